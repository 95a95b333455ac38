//! Whether a caller may: the API server's own authorizer is asked, with the caller's token (SelfSubjectAccessReview).
//!
//! Decisions are remembered for [`REMEMBERED`] at most and all are dropped when a role or a binding changes
//! ([`changes`]), so a right that is taken away is gone within a moment here, and within that time where the gateway may
//! not watch roles, or where another authorizer decides.

pub mod changes;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use moka::sync::Cache;

use crate::{
    caller::{Caller, Digest},
    guard::turns::Turns,
    metrics::{Metrics, Source},
    problem::{Answer, Fault},
    registry::{Permission, Review, Target},
};

/// How long a decision holds.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Most decisions that are remembered.
const MOST: u64 = 100_000;
/// Questions of one request that are asked at once.
const AT_ONCE: usize = 4;
/// Questions of all requests that are asked at once, and of these for each user.
const REVIEWS: usize = 128;
const REVIEWS_EACH: usize = 16;

/// What the authorizer said.
pub struct Access {
    decisions: Cache<(Digest, Review), bool>,
    /// Counts the times that all was dropped: an answer to what was asked before is not remembered after.
    epoch: AtomicU64,
    /// Whether each of the watches on roles and bindings works.
    watching: [AtomicBool; changes::KINDS],
    turns: Turns<String>,
    metrics: Metrics,
}

/// Decisions are as good as when they were made, as long as this is the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Epoch(u64);

impl Access {
    pub fn new(metrics: Metrics) -> Self {
        Self {
            decisions: Cache::builder()
                .max_capacity(MOST)
                .time_to_live(REMEMBERED)
                .build(),
            epoch: AtomicU64::new(0),
            watching: std::array::from_fn(|_| AtomicBool::new(false)),
            turns: Turns::new(REVIEWS, REVIEWS_EACH),
            metrics,
        }
    }

    /// Forgets all.
    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.decisions.invalidate_all();
    }

    /// `None` where roles may change unseen: then only time tells.
    pub fn epoch(&self) -> Option<Epoch> {
        let epoch = Epoch(self.epoch.load(Ordering::Acquire));
        let sees_all = self
            .watching
            .iter()
            .all(|works| works.load(Ordering::Acquire));
        sees_all.then_some(epoch)
    }

    fn works(&self, watch: usize, works: bool) {
        if let Some(watching) = self.watching.get(watch) {
            watching.store(works, Ordering::Release);
        }
    }

    /// Whether the caller has the permission.
    ///
    /// # Errors
    /// Where the API server cannot be asked.
    pub async fn has(
        &self,
        caller: &Caller,
        permission: Permission,
        target: &Target,
    ) -> Answer<bool> {
        self.lacks(caller, permission, target)
            .await
            .map(|lacked| lacked.is_none())
    }

    /// # Errors
    /// Where the caller does not have the permission: with the rule that would give it.
    pub async fn require(
        &self,
        caller: &Caller,
        permission: Permission,
        target: &Target,
    ) -> Answer<()> {
        match self.lacks(caller, permission, target).await? {
            None => Ok(()),
            Some(review) => {
                self.metrics.denied(permission);
                Err(Fault::denied(permission, &review))
            }
        }
    }

    /// The first review that the caller does not pass.
    async fn lacks(
        &self,
        caller: &Caller,
        permission: Permission,
        target: &Target,
    ) -> Answer<Option<Review>> {
        let reviews = permission.reviews(target);
        let answers: Vec<(Review, bool)> = stream::iter(reviews)
            .map(|review| async {
                let allowed = self.allows(caller, &review).await?;
                Ok::<_, Fault>((review, allowed))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(answers
            .into_iter()
            .find(|(_, allowed)| !allowed)
            .map(|(review, _)| review))
    }

    async fn allows(&self, caller: &Caller, review: &Review) -> Answer<bool> {
        let key = (caller.digest, review.clone());
        if let Some(allowed) = self.decisions.get(&key) {
            self.metrics.reviewed(Source::Memory);
            return Ok(allowed);
        }
        let _turn = self.turns.wait(caller.who.user.clone()).await;
        if let Some(allowed) = self.decisions.get(&key) {
            self.metrics.reviewed(Source::Memory);
            return Ok(allowed);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        self.metrics.reviewed(Source::ApiServer);
        let answer = caller.api.create(None, &question(review)).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        if self.epoch.load(Ordering::Acquire) == epoch {
            self.decisions.insert(key, allowed);
        }
        Ok(allowed)
    }
}

fn question(review: &Review) -> SelfSubjectAccessReview {
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(review.group.to_owned()),
                resource: Some(review.resource.to_owned()),
                subresource: review.subresource.map(str::to_owned),
                verb: Some(review.verb.to_owned()),
                name: review.name.clone(),
                namespace: review.namespace.clone(),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    }
}
