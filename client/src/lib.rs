//! [`ControlPlaneClient`]: the typed client of Fairlead's console API, for programs that do not speak to Kubernetes.
//!
//! What it asks and is told are the types of [`api`], which the console serves: the two cannot disagree. What the caller
//! may see and do are the rights that the cluster gives to the token that is sent.
//!
//! ```no_run
//! use client::{
//!     ControlPlaneClient, Credentials, Roots, Waited,
//!     api::{inventory::Presence, invocation::NewInvocation, query::InventoryQuery},
//! };
//! use futures::TryStreamExt as _;
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = ControlPlaneClient::builder("https://console.example:8443")
//!     .roots(Roots::Only(std::fs::read("ca.crt")?))
//!     .credentials(Credentials::file("/var/run/secrets/tokens/fairlead"))
//!     .build()?;
//!
//! // Every device that is there, over all pages.
//! let online = InventoryQuery { presence: Some(Presence::Online), ..InventoryQuery::default() };
//! let mut devices = client.devices(&online);
//! while let Some(device) = devices.try_next().await? {
//!     println!("{}", device.id);
//! }
//!
//! // Run something, once, however often the connection breaks meanwhile.
//! let invocation = client.invoke(&NewInvocation {
//!     device: "workshop.kiosk-7".parse()?,
//!     capability: "system.health".to_owned(),
//!     input: None,
//!     timeout_seconds: Some(30),
//!     when_offline: None,
//!     queue_seconds: None,
//!     idempotency_key: None,
//!     max_output_bytes: None,
//!     ttl_seconds_after_finished: None,
//! }).await?;
//! match client.wait(&invocation.summary.id, Duration::from_mins(1)).await? {
//!     Waited::Ended(ended) => println!("{}: {:?}", ended.summary.phase, ended.output),
//!     Waited::Open(open) => println!("still {}", open.summary.phase),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Who the caller is
//! [`Credentials`] says where the token comes from: it stays, it is a file that is read again, or it is what kubectl would
//! use here (feature `kubeconfig`, on by default: exec plugins and ServiceAccounts included). With
//! [`Authentication::Session`] the token is sent once, for a cookie; the client keeps that and its CSRF token, and logs in
//! again, once, when the session has ended.
//!
//! # What is sent again
//! A GET, and what carries an idempotency key, which the client makes itself: [`invoke`](ControlPlaneClient::invoke) and
//! [`create_code`](ControlPlaneClient::create_code). Nothing else: what suspends a device is for the caller to repeat. Tries
//! are bounded ([`Retries`]) and have jitter, and `Retry-After` is obeyed.
//!
//! # Bounds
//! Every wait has one ([`Timeouts`]), and so has what is read ([`Limits`]).
//!
//! # Errors
//! [`Error`] says what happened, [`Error::code`] what the console calls it, [`Error::category`] what kind it is,
//! [`Error::retryable`] whether it may pass.
//!
//! # Versions
//! A newer console may send fields and values of enums that this client does not know. Fields are left out, values are
//! read as `Other`, and events are skipped.
#![warn(missing_docs)]

mod artefact;
mod builder;
mod credentials;
mod devices;
mod error;
mod events;
mod inventory;
mod invocations;
mod key;
mod pairing;
mod retry;
mod session;
mod tls;
mod transport;
mod whoami;

use std::{fmt, sync::Arc};

pub use builder::{Builder, Limits, Timeouts};
pub use console_api as api;
#[cfg(feature = "kubeconfig")]
pub use credentials::KubeCredentials;
pub use credentials::{Credentials, Token};
pub use error::{Category, Error, Result};
pub use events::Received;
pub use invocations::Waited;
pub use key::{IdempotencyKey, InvalidKey};
pub use retry::Retries;
pub use session::Authentication;
pub use tls::Roots;

/// A client of one console. Clones are cheap and share connections and session.
#[derive(Clone)]
pub struct ControlPlaneClient {
    inner: Arc<transport::Inner>,
}

impl ControlPlaneClient {
    /// A client of the console at `url`: `https://HOST:PORT`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url)
    }
}

impl fmt::Debug for ControlPlaneClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlaneClient")
            .field("url", &self.inner.base.as_str())
            .finish_non_exhaustive()
    }
}
