//! What every request meets before anybody looks at what it wants.
//!
//! - [`bounds`]: how much it may hold, and how many may hold it at once;
//! - [`party`]: whom that counts against, and the share of each;
//! - [`pool`]: a bound with shares, where nobody waits;
//! - [`turns`]: a bound with shares, where each waits for its turn;
//! - [`crowd`]: a bound for strangers, where the newest takes the place of the oldest;
//! - [`connection`]: how a connection stands;
//! - [`rates`]: how often one identity and one address may ask;
//! - [`origin`]: whether a page of another web site sent it;
//! - [`headers`]: what browsers are told with every answer.

pub mod bounds;
pub mod connection;
pub mod crowd;
pub mod headers;
pub mod origin;
pub mod party;
pub mod pool;
pub mod rates;
pub mod turns;
