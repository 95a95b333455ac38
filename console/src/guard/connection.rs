//! A connection, as far as its requests must know it: how it stands, and that it is about to close.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{
    crowd::Member,
    party::Party,
    pool::{Held, Pool},
};

/// One connection. It is a stranger's until a request on it brings a user's credentials.
#[derive(Debug)]
pub struct Connection {
    users: Pool,
    standing: Mutex<Standing>,
    leaving: CancellationToken,
}

#[derive(Debug)]
enum Standing {
    /// May lose its place to another stranger.
    Stranger {
        _member: Member,
    },
    User {
        _held: Held,
    },
}

impl Connection {
    /// `users` has the places of connections with users. `leaving` is cancelled when the connection is about to close.
    pub fn new(member: Member, users: Pool, leaving: CancellationToken) -> Self {
        Self {
            users,
            standing: Mutex::new(Standing::Stranger { _member: member }),
            leaving,
        }
    }

    /// Notes that a user sent a request. Without room among users the connection stays a stranger's.
    pub fn is_of(&self, party: &Party) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Standing::Stranger { .. } = *standing
            && let Ok(held) = self.users.enter(party)
        {
            *standing = Standing::User { _held: held };
        }
    }

    /// Whether a user sent a request.
    pub fn has_user(&self) -> bool {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*standing, Standing::User { .. })
    }

    /// Is cancelled when the connection is about to close: what lasts long ends now.
    pub fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }
}
