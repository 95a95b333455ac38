//! Who a token belongs to: the API server says so, to the gateway (TokenReview).
//!
//! Any token is good that is good for the API server itself: of a ServiceAccount, or of the cluster's identity provider.
//! Answers are remembered for some seconds, so a token that is withdrawn is good for as long at most.
//!
//! Random tokens of strangers must not keep users out. So a user's token that was reviewed in the last hour is reviewed
//! again in a queue of the user, apart from strangers; a stranger's token is reviewed in a queue of the address. Requests
//! with the same token share one review.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use moka::sync::Cache;
use tokio::{sync::Semaphore, time::timeout};

use super::{Digest, Token};
use crate::{
    guard::{rates::Address, turns::Turns},
    problem::{Answer, Fault},
};

/// How long an answer holds.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most answers that are remembered.
const MOST: u64 = 10_000;
/// Most tokens that are remembered as not accepted.
const MOST_REFUSED: u64 = 4096;
/// How long it is remembered whose a token was, beyond what it is remembered for.
const LATELY: Duration = Duration::from_hours(1);
/// Reviews at once, and of these for each user or address. Strangers together have a half.
const REVIEWS: usize = 64;
const REVIEWS_EACH: usize = 8;
/// How long the API server may take.
const TIME: Duration = Duration::from_secs(10);

/// A user, as the cluster knows him.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Who {
    pub user: String,
    pub groups: Vec<String>,
}

/// Users by their tokens.
pub struct Identities {
    reviews: Api<TokenReview>,
    known: Cache<Digest, Arc<Who>>,
    /// Tokens of nobody. Apart, so that a flood of them displaces no user.
    refused: Cache<Digest, ()>,
    /// Users of tokens that were reviewed lately.
    lately: Cache<Digest, Arc<str>>,
    by_token: Turns<Digest>,
    of_users: Turns<Arc<str>>,
    of_strangers: Turns<Option<Address>>,
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
            refused: Cache::builder()
                .max_capacity(MOST_REFUSED)
                .time_to_live(REMEMBERED)
                .build(),
            lately: Cache::builder()
                .max_capacity(MOST)
                .time_to_live(LATELY)
                .build(),
            by_token: Turns::new(Semaphore::MAX_PERMITS, 1),
            of_users: Turns::new(REVIEWS / 2, REVIEWS_EACH),
            of_strangers: Turns::new(REVIEWS / 2, REVIEWS_EACH),
        }
    }

    /// Returns the answer about a token if it is remembered. The inner `None`: the token is nobody's.
    pub fn remembered(&self, digest: &Digest) -> Option<Option<Arc<Who>>> {
        if let Some(who) = self.known.get(digest) {
            return Some(Some(who));
        }
        self.refused.contains_key(digest).then_some(None)
    }

    /// Returns whose the token was in the last hour.
    pub fn lately(&self, digest: &Digest) -> Option<Arc<str>> {
        self.lately.get(digest)
    }

    /// Asks whose token it is; `None` if it is nobody's. `pace`: whether an address may ask about a stranger's token now.
    /// The caller bounds the time.
    ///
    /// # Errors
    /// If the API server cannot be asked, or not now.
    pub async fn ask(
        &self,
        token: &Token,
        address: Option<Address>,
        pace: impl FnOnce() -> Answer<()>,
    ) -> Answer<Option<Arc<Who>>> {
        let digest = token.digest();
        let _alone = self.by_token.wait(digest).await;
        if let Some(remembered) = self.remembered(&digest) {
            return Ok(remembered);
        }
        if let Some(user) = self.lately.get(&digest) {
            let _turn = self.of_users.wait(user).await;
            return self.review(token, digest).await;
        }
        pace()?;
        let _turn = self.of_strangers.wait(address).await;
        self.review(token, digest).await
    }

    async fn review(&self, token: &Token, digest: Digest) -> Answer<Option<Arc<Who>>> {
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
        if let Some(who) = &who {
            self.lately.insert(digest, who.user.as_str().into());
            self.known.insert(digest, Arc::clone(who));
        } else {
            self.lately.invalidate(&digest);
            self.refused.insert(digest, ());
        }
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

#[cfg(test)]
mod tests;
