//! What every request meets before anybody looks at what it wants.
//!
//! - [`bounds`]: how much it may hold, and how many may hold it at once;
//! - [`rates`]: how often one identity and one address may ask;
//! - [`shares`]: how much of what all share one may have;
//! - [`origin`]: whether a page of another web site sent it;
//! - [`headers`]: what browsers are told with every answer.

pub mod bounds;
pub mod headers;
pub mod origin;
pub mod rates;
pub mod shares;
