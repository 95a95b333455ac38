//! What every kind's loop has in common: how it is driven, how a status is written, how errors are retried.

mod drive;
mod error;
mod status;

pub use drive::drive;
pub use error::{Error, api};
pub use status::{settle, write_status};
