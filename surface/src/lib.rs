//! What a capability takes and answers: JSON Schemas that come from devices, so that nothing in them is believed.
//!
//! - [`schema`]: a schema, read and bounded: [`Schema`];
//! - [`read`]: from JSON to [`node`], with everything that is refused;
//! - [`node`]: a schema in memory; [`pattern`]: its regular expressions;
//! - [`check`]: whether a value is what a schema asks for; [`mismatch`]: where it is not;
//! - [`narrows()`]: whether one schema is sure to accept no more than another; [`facts`] and [`limits`]: from what that
//!   follows;
//! - [`work`]: how much a check or a comparison may cost; [`values`]: how values are compared;
//! - [`digest()`]: what a grant names; [`canonical`]: the one way to write a value.
//!
//! The dialect is draft 2020-12 without what looks elsewhere or at what was evaluated before: `$dynamicRef`, `$anchor`,
//! `$id`, `unevaluatedItems`, `unevaluatedProperties`. A keyword that is not known is refused and not skipped: a schema
//! that says `requried` would accept more than who wrote it believes. `format` asserts nothing, as the draft has it by
//! default, and neither do `contentMediaType` and `contentEncoding`.
//!
//! Whoever wrote a schema and a value, the work has a bound: every comparison is counted, a check that needs more refuses
//! the value, and a comparison of schemas that needs more finds the new one wider. No I/O, no clock, nothing of Kubernetes
//! or of the wire.

mod canonical;
mod check;
mod digest;
mod facts;
mod limits;
mod mismatch;
mod narrows;
mod node;
mod pattern;
mod read;
mod schema;
mod values;
mod work;

pub use digest::{digest, digest_of_canonical};
pub use mismatch::Mismatch;
pub use narrows::{Comparison, Verdict, compare, most_steps, narrows};
pub use read::Invalid;
pub use schema::{
    MAX_CHECK_STEPS, MAX_DEVICE_PATTERN_BYTES, MAX_SCHEMA_BYTES, Schema, is_deceptive,
};

#[cfg(test)]
mod tests;
