//! The admin port: whether the process lives, whether it is ready, and its metrics. Plain HTTP, apart from traffic.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use clap::Args;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// `--admin-address`.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Where /live, /ready and /metrics are served.
    #[arg(long, env = "FAIRLEAD_ADMIN_ADDRESS", default_value = "127.0.0.1:8080")]
    pub admin_address: SocketAddr,
}

/// Set once the process can do its work; unset when it begins to stop.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl AdminArgs {
    /// Binds the port, so that a port in use fails the start; the future serves until the token is cancelled.
    pub async fn bind(
        &self,
        registry: Registry,
        readiness: Readiness,
        stop: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
        let address = self.admin_address;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("bind --admin-address {address}"))?;
        let router = Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(Admin {
                registry,
                readiness,
            }));
        Ok(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await
                .context("serve the admin port")
        })
    }
}

struct Admin {
    registry: Registry,
    readiness: Readiness,
}

async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    if admin.readiness.get() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
