//! What every kind's loop has in common: how it is driven, how long a pass may take, how a status is written, how errors
//! are retried, what is said of an object that cannot be read.

mod drive;
mod error;
mod limit;
mod status;
mod unreadable;

pub use drive::{Kind, drive};
pub use error::{Error, api};
pub use limit::{PASS, within};
pub use status::{settle, write_status};
pub(crate) use unreadable::say as say_unreadable;
