//! Sessions: a cookie made from a token, for programs in a browser. Others send the token with every request.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Header of the CSRF token, on every request of a session that changes something.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// Name of the cookie. The prefix makes browsers refuse it from anywhere but this host, over HTTPS, for `/`.
pub const SESSION_COOKIE: &str = "__Host-fairlead-session";

/// What a session is made from.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// A token that the cluster takes: of a ServiceAccount, or of the cluster's identity provider.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 12288, pattern = "^[-A-Za-z0-9._~+/=]+$")
    )]
    pub token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// Who the caller is.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The user name that the cluster knows the caller by.
    pub user: String,
    pub groups: Vec<String>,
    /// For the header `X-CSRF-Token`. Absent where the caller has sent a token of his own and has no session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csrf_token: Option<String>,
    /// When the session ends whatever is done. Absent without a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it ends if nothing is asked until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_expires_at: Option<Timestamp>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
