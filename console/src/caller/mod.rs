//! Who asks, and requests to the API server with that person's own token.
//!
//! - [`mod@tenant`]: users that share one owner;
//! - [`token`]: a token, which reaches no log;
//! - [`identity`]: who it belongs to (TokenReview, by the gateway);
//! - [`own`]: the API server, asked with it.

pub mod identity;
pub mod own;
pub mod tenant;
pub mod token;

use std::sync::Arc;

pub use identity::{Identities, Who};
pub use own::OwnApi;
pub use tenant::tenant;
pub use token::{Digest, Token};

/// Somebody whom the cluster knows.
#[derive(Clone, Debug)]
pub struct Caller {
    pub who: Arc<Who>,
    /// What decisions about the caller are remembered by.
    pub digest: Digest,
    pub api: OwnApi,
}
