//! Who a token belongs to: the API server says so, to the gateway (TokenReview).
//!
//! Any token is good that is good for the API server itself: of a ServiceAccount, or of the cluster's identity provider.
//! Answers are remembered for some seconds, so a token that is withdrawn is good for as long at most.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use moka::sync::Cache;
use tokio::time::timeout;

use super::{Digest, Token};
use crate::problem::{Answer, Fault};

/// How long an answer holds.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most answers that are remembered.
const MOST: u64 = 10_000;
/// How long the API server may take.
const TIME: Duration = Duration::from_secs(10);

/// A user, as the cluster knows him.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Who {
    pub user: String,
    pub groups: Vec<String>,
}

/// Users by their tokens. Cheap to clone.
#[derive(Clone)]
pub struct Identities {
    reviews: Api<TokenReview>,
    /// `None`: nobody's.
    known: Cache<Digest, Option<Arc<Who>>>,
}

impl Identities {
    /// `client` is the gateway's own.
    pub fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
            known: Cache::builder()
                .max_capacity(MOST)
                .time_to_live(REMEMBERED)
                .build(),
        }
    }

    /// `None` for a token that the cluster does not take. `pace`: whether the API server may be asked, where it must be.
    ///
    /// # Errors
    /// Where it cannot be asked, or not now.
    pub async fn of(
        &self,
        token: &Token,
        pace: impl FnOnce() -> Answer<()>,
    ) -> Answer<Option<Arc<Who>>> {
        let digest = token.digest();
        if let Some(known) = self.known.get(&digest) {
            return Ok(known);
        }
        pace()?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                // No audience: that of the API server, for whom the token is used.
                audiences: None,
                token: Some(token.expose().to_owned()),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let asked = timeout(TIME, self.reviews.create(&params, &review)).await;
        let reviewed = match asked {
            Ok(Ok(reviewed)) => reviewed,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "Asking whose token it is failed"
                );
                return Err(Fault::unavailable(
                    "the cluster does not say whose token this is: try again",
                ));
            }
            Err(_) => {
                return Err(Fault::unavailable(
                    "the cluster took too long to say whose token this is: try again",
                ));
            }
        };
        let status = reviewed.status.unwrap_or_default();
        let who = match (status.authenticated, status.user) {
            (Some(true), Some(user)) => who(user).map(Arc::new),
            _ => None,
        };
        self.known.insert(digest, who.clone());
        Ok(who)
    }

    /// Forgets a token: what the API server says next is asked anew.
    pub fn forget(&self, digest: &Digest) {
        self.known.invalidate(digest);
    }
}

fn who(user: UserInfo) -> Option<Who> {
    Some(Who {
        user: user.username.filter(|name| !name.is_empty())?,
        groups: user.groups.unwrap_or_default(),
    })
}
