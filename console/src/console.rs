//! What all requests share, and the tasks behind it.

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use kube::Client;
use object_store::ObjectStore;
use runtime::shutdown::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{self, Access},
    caller::{Identities, Token, Who},
    guard::{
        bounds::{Places, full},
        party::Party,
        pool::Full,
        rates::{Address, Rates},
    },
    index::{self, Index},
    metrics::Metrics,
    openapi,
    problem::Answer,
    session::{
        keys::{KeyRing, Keys},
        logouts::Logouts,
    },
};

/// What a console is made of.
pub struct Parts {
    /// With the gateway's own rights: to watch, and to ask whose a token is.
    pub client: Client,
    /// Brings no credentials: see [`crate::caller::own::without_credentials`].
    pub without_credentials: Client,
    /// Namespace of Fairlead's own objects.
    pub namespace: String,
    /// What sessions are sealed with; `None` until it is mounted.
    pub keys: watch::Receiver<Option<Arc<Keys>>>,
    /// Where artefacts are, if anywhere.
    pub artefacts: Option<Arc<dyn ObjectStore>>,
    pub limits: Limits,
    pub metrics: Metrics,
}

/// How much may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests_per_second_per_address: NonZeroU32,
    pub requests_per_second_per_user: NonZeroU32,
    /// Requests with `?wait=` at once. One user may have an eighth.
    pub waits: usize,
    /// Event streams at once, and a quarter as many downloads. One user may have an eighth of each.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let rate = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            requests_per_second_per_address: rate(200),
            requests_per_second_per_user: rate(100),
            waits: 1024,
            streams: 4000,
        }
    }
}

/// What all requests share.
pub struct Console {
    pub(crate) index: Arc<Index>,
    pub(crate) identities: Identities,
    pub(crate) without_credentials: Client,
    pub(crate) access: Arc<Access>,
    pub(crate) keys: KeyRing,
    pub(crate) logouts: Arc<Logouts>,
    pub(crate) rates: Rates,
    pub(crate) places: Places,
    pub(crate) artefacts: Option<Arc<dyn ObjectStore>>,
    pub(crate) metrics: Metrics,
    pub(crate) document: Bytes,
    pub(crate) stop: CancellationToken,
}

impl Console {
    /// Starts what watches. The console answers at once, and says of what it does not know yet that it does not.
    pub fn start(parts: Parts, tasks: &Tasks) -> Arc<Self> {
        let Parts {
            client,
            without_credentials,
            namespace,
            keys,
            artefacts,
            limits,
            metrics,
        } = parts;
        let stop = tasks.token();
        let (index, indexing) = index::start(client.clone(), &namespace, stop.clone());
        let indexing = Box::pin(indexing);
        tasks.spawn_essential("console index", async move {
            indexing.await;
            Ok(())
        });
        let access = Arc::new(Access::new(metrics.clone()));
        let following = access::changes::follow(client.clone(), Arc::clone(&access), stop.clone());
        tasks.spawn_essential("console roles", async move {
            following.await;
            Ok(())
        });
        let logouts = Arc::new(Logouts::new(&client, &namespace));
        let (followed, until) = (Arc::clone(&logouts), stop.clone());
        tasks.spawn_essential("console logouts", async move {
            followed.follow(until).await;
            Ok(())
        });
        Arc::new(Self {
            index,
            identities: Identities::new(client),
            without_credentials,
            access,
            keys: KeyRing::new(keys),
            logouts,
            rates: Rates::new(
                limits.requests_per_second_per_address,
                limits.requests_per_second_per_user,
            ),
            places: Places::new(limits.waits, limits.streams),
            artefacts,
            metrics,
            document: Bytes::from(openapi::text()),
            stop,
        })
    }

    /// Whose token it is; `None` where the cluster does not take it.
    ///
    /// # Errors
    /// Where the API server cannot be asked, or not now.
    pub(crate) async fn who(
        &self,
        token: &Token,
        address: Option<Address>,
    ) -> Answer<Option<Arc<Who>>> {
        let digest = token.digest();
        if let Some(remembered) = self.identities.remembered(&digest) {
            return Ok(remembered);
        }
        let pace = || address.map_or(Ok(()), |address| self.rates.of_new_token(address));
        let asking = self.identities.ask(token, address, pace);
        if let Some(user) = self.identities.lately(&digest) {
            let from = Party {
                address,
                user: Some(user.as_ref().to_owned()),
            };
            let _place = self.places.reviewed.enter(&from).map_err(full)?;
            return asking.await;
        }
        self.as_stranger(address, asking).await?
    }

    /// Does something for a stranger, who may lose the place to another meanwhile.
    ///
    /// # Errors
    /// If there is no room for one more of the address.
    pub(crate) async fn as_stranger<T>(
        &self,
        address: Option<Address>,
        work: impl Future<Output = T>,
    ) -> Answer<T> {
        let member = self.places.strangers.enter(address);
        let member = member.ok_or_else(|| full(Full::Share))?;
        let evicted = member.evicted();
        tokio::select! {
            done = work => Ok(done),
            () = evicted.cancelled() => Err(full(Full::All)),
        }
    }

    /// Whether it knows what the cluster looks like.
    pub fn is_synced(&self) -> bool {
        self.index.is_synced()
    }
}
