//! `kubectl fairlead`.

fn main() {}
