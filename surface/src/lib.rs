//! What a capability takes and answers: JSON Schemas that come from devices, so that nothing in them is believed.
//!
//! - [`schema`]: a schema, read and bounded: [`Schema`];
//! - [`read`]: from JSON to [`node`], with everything that is refused;
//! - [`node`]: a schema in memory; [`pattern`]: its regular expressions;
//! - [`check`]: whether a value is what a schema asks for, and where it is not;
//! - [`narrows()`]: whether one schema is sure to accept no more than another;
//! - [`digest()`]: what a grant names.
//!
//! The dialect is draft 2020-12 without what looks elsewhere or at what was evaluated before: `$dynamicRef`, `$anchor`,
//! `$id`, `unevaluatedItems`, `unevaluatedProperties`. A keyword that is not known is refused and not skipped: a schema
//! that says `requried` would accept more than who wrote it believes. `format` asserts nothing, as the draft has it by
//! default, and neither do `contentMediaType` and `contentEncoding`.
//!
//! The work of a check is bounded by the size of the schema times that of the value, whoever wrote them. No I/O, no
//! clock, nothing of Kubernetes or of the wire.

mod check;
mod digest;
mod narrows;
mod node;
mod pattern;
mod read;
mod schema;
mod values;

pub use check::Mismatch;
pub use digest::digest;
pub use narrows::narrows;
pub use read::Invalid;
pub use schema::{MAX_SCHEMA_BYTES, Schema, is_deceptive};

#[cfg(test)]
mod tests;
