//! Sessions: a cookie in the place of a token, for programs in a browser.
//!
//! A gateway keeps nothing of a session. All of it is in the cookie, sealed so that nobody can read or change it
//! ([`seal`]) with keys that all gateways have ([`keys`]); logouts are in ConfigMaps that all gateways watch
//! ([`logouts`]). How long a session lives is decided in [`life`].

pub mod cookie;
pub mod csrf;
pub mod keys;
pub mod life;
pub mod logouts;
pub mod seal;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::caller::Token;

/// What a session is known by. Never leaves the seal.
#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub struct SessionId([u8; 16]);

impl SessionId {
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId")
    }
}

/// What is sealed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    pub id: SessionId,
    pub token: Token,
    /// When it counts as begun: later than the logout before it.
    pub issued_at: Timestamp,
    /// When it was last sealed. A cookie that was used since is sealed anew.
    pub seen_at: Timestamp,
    /// When it ends whatever is done.
    pub expires_at: Timestamp,
}
