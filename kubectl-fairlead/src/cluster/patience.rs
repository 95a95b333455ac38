//! An API server that does not answer: names its address where it cannot be reached, and says after three seconds of
//! silence what is waited for.

use std::{
    error::Error,
    iter::successors,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Client, client::Body};
use tokio::time::{Instant, timeout};

use crate::show::{harmless, note};

/// How long nothing is said.
const SILENCE: Duration = Duration::from_secs(3);

/// The API server could not be asked.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the API server at {address}: {cause}; see whether the cluster runs, and `kubectl cluster-info`"
)]
pub struct Unreachable {
    address: Arc<str>,
    cause: String,
}

/// The same client, whose errors name the address, and whose first silent request is reported to the person who waits.
pub fn patient(client: &Client, address: &str) -> Client {
    let namespace = client.default_namespace().to_owned();
    let address: Arc<str> = address.trim_end_matches('/').into();
    let (client, said) = (client.clone(), Arc::new(AtomicBool::new(false)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, address, said) = (client.clone(), Arc::clone(&address), Arc::clone(&said));
        async move { ask(&client, request, address, &said).await }
    });
    Client::new(service, namespace)
}

async fn ask(
    client: &Client,
    request: Request<Body>,
    address: Arc<str>,
    said: &AtomicBool,
) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
    let mut asked = pin!(client.send(request));
    let answer = if let Ok(answer) = timeout(SILENCE, asked.as_mut()).await {
        answer
    } else {
        if !said.swap(true, Ordering::Relaxed) {
            note(&format!("waiting for the API server at {address}"));
        }
        asked.await
    };
    answer.map_err(|error| unreachable(error, address))
}

/// Errors of authentication and answers of the API server stay what they are: callers look into them.
fn unreachable(error: kube::Error, address: Arc<str>) -> Box<dyn Error + Send + Sync> {
    let cause = if let kube::Error::HyperError(cause) = &error {
        chain(cause)
    } else if let kube::Error::Service(cause) = &error {
        chain(cause.as_ref())
    } else {
        return Box::new(error);
    };
    Box::new(Unreachable { address, cause })
}

/// The innermost causes in words: the outer ones say `client error (Connect)` and no more.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = successors(Some(error), |&cause| cause.source())
        .map(ToString::to_string)
        .collect();
    let from = causes.len().saturating_sub(2);
    let mut words = causes[from..].to_vec();
    words.dedup();
    words.join(": ")
}

/// A wait for something that a program of the cluster does.
pub struct Waiting {
    began: Instant,
    said: Option<String>,
}

impl Waiting {
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            said: None,
        }
    }

    /// Whether the person was left without a word for so long that the reason is worth one.
    pub fn is_long(&self) -> bool {
        self.began.elapsed() >= SILENCE
    }

    /// Says what is waited for, once for each thing.
    pub fn tell(&mut self, why: &str) {
        if self.said.as_deref() != Some(why) {
            note(&harmless(why));
            self.said = Some(why.to_owned());
        }
    }

    /// What was said last.
    pub fn last(&self) -> Option<&str> {
        self.said.as_deref()
    }
}

/// Why an object is not as it should be: the messages of the conditions that do not hold, each once. `None` where no
/// condition says anything.
pub fn not_true(conditions: &[Condition]) -> Option<String> {
    let mut messages: Vec<&str> = Vec::new();
    for condition in conditions {
        let message = condition.message.as_str();
        if condition.status != "True" && !message.is_empty() && !messages.contains(&message) {
            messages.push(message);
        }
    }
    (!messages.is_empty()).then(|| messages.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::told;

    async fn error_of(client: &Client) -> String {
        let error = client.apiserver_version().await.unwrap_err();
        format!("{:#}", told(error))
    }

    #[tokio::test]
    async fn an_api_server_that_is_not_there_is_named_with_its_address() {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let text = error_of(&patient(&client, &format!("http://{address}/"))).await;
        let start = format!("cannot reach the API server at http://{address}: ");
        assert!(
            text.starts_with(&start) && text.contains("refused"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_is_reported_once() {
        let silent = Client::new(
            tower::service_fn(|_: Request<Body>| async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err::<Response<Body>, _>("gone")
            }),
            "default",
        );
        let said = AtomicBool::new(false);
        let request = || Request::new(Body::empty());
        ask(&silent, request(), "a".into(), &said)
            .await
            .unwrap_err();
        assert!(said.load(Ordering::Relaxed));
        let quick = Client::new(
            tower::service_fn(|_: Request<Body>| async {
                Ok::<_, String>(Response::new(Body::empty()))
            }),
            "default",
        );
        let said = AtomicBool::new(false);
        ask(&quick, request(), "a".into(), &said).await.unwrap();
        assert!(!said.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_explained_after_three_seconds() {
        let mut waiting = Waiting::begin();
        assert!(!waiting.is_long());
        tokio::time::sleep(SILENCE).await;
        assert!(waiting.is_long());
        assert_eq!(waiting.last(), None);
        waiting.tell("the quota is used up");
        assert_eq!(waiting.last(), Some("the quota is used up"));
    }

    #[test]
    fn the_words_of_conditions_that_do_not_hold_are_said_once() {
        let condition = |type_, holds: bool, message: &str| {
            let now = jiff::Timestamp::from_second(1).unwrap();
            crds::conditions::condition(now, None, type_, holds, "Reason", message)
        };
        let quota = "create Secret lamp-mtls: exceeded quota";
        let conditions = [
            condition("Ready", false, quota),
            condition("Stored", false, quota),
            condition("Approved", true, "approved by ada"),
            condition("Empty", false, ""),
        ];
        assert_eq!(not_true(&conditions).as_deref(), Some(quota));
        assert_eq!(not_true(&conditions[2..]), None);
    }
}
