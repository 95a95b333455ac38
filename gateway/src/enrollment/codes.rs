//! Reads pairing codes and counts on them, by compare-and-swap: nothing is counted in memory, so that gateways agree
//! and none loses a count by a restart.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{Guarded, PairingCode, names::GATEWAY, v1alpha1::pairing_code::AdmittedKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    api::{Error, call},
    decide::{self, Attempt, Link, Place, Proved},
};
use crate::clock;

/// How long a stranger waits for others' challenges to be proved, and a write for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Objects read at once, where all must be.
const PAGE: u32 = 500;
/// Reads of all codes at once: each may hold a page in memory.
const READERS: usize = 4;

pub struct Codes {
    client: Client,
    readers: Semaphore,
}

/// A code on which an attempt was counted.
#[derive(Clone, Debug)]
pub struct Counted {
    pub code: Place,
    pub password_file: Vec<u8>,
}

/// What a gateway writes; what is absent stays.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admitted: Option<Vec<AdmittedKey>>,
}

impl Codes {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            readers: Semaphore::new(READERS),
        }
    }

    /// Counts an attempt on the code with that id. `None` where there is no such code, or none that can be used.
    pub async fn count_attempt(&self, id: &str) -> Result<Option<Counted>, Error> {
        if !is_id(id) {
            return Ok(None);
        }
        let by_id = ListParams::default()
            .fields(&format!("status.codeId={id}"))
            .limit(PAGE);
        // Tenants share this list: a code that one of them made unreadable must not hide those of others.
        let all: Api<Guarded<PairingCode>> = Api::all(self.client.clone());
        let mut patience = Patience::new();
        loop {
            let found = call(all.list(&by_id)).await?.items;
            let readable = found.into_iter().filter_map(Guarded::readable).collect();
            let Some(code) = decide::live(readable) else {
                return Ok(None);
            };
            let now = clock::now();
            match decide::attempt(&code, now) {
                Attempt::Refuse(why) => {
                    tracing::info!(
                        code = code.name_any(),
                        namespace = code.namespace(),
                        ?why,
                        "A code was tried that cannot be used"
                    );
                    return Ok(None);
                }
                Attempt::Wait => {
                    if !patience.wait(Duration::from_millis(100)).await {
                        return Ok(None);
                    }
                }
                Attempt::Count { attempts } => {
                    let counts = Counts {
                        attempts: Some(attempts),
                        last_attempt_at: Some(Time(now)),
                        ..Counts::default()
                    };
                    match self.write(&code, &counts).await {
                        Ok(code) => return Ok(counted(&code)),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Spends a use on the key that proved the code. `None` where others were quicker.
    pub async fn admit(&self, place: &Place, key: &str) -> Result<Option<PairingCode>, Error> {
        let mut patience = Patience::new();
        loop {
            let Some(code) = self.get(place).await? else {
                return Ok(None);
            };
            let counts = match decide::proved(&code, key, clock::now()) {
                Proved::Admit {
                    attempts,
                    uses,
                    admitted,
                } => Counts {
                    attempts: Some(attempts),
                    uses: Some(uses),
                    admitted: Some(admitted),
                    ..Counts::default()
                },
                Proved::Again { attempts: None } => return Ok(Some(code)),
                Proved::Again { attempts } => Counts {
                    attempts,
                    ..Counts::default()
                },
                Proved::Refuse(why) => {
                    tracing::info!(
                        code = place.name,
                        namespace = place.namespace,
                        ?why,
                        "A code was proved too late"
                    );
                    return Ok(None);
                }
            };
            match self.write(&code, &counts).await {
                Ok(code) => return Ok(Some(code)),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// Writes which request of the key counts, unless that is written already. Returns the one that does; `None` where
    /// the code is gone or does not know the key, so that only the request itself is left to go by.
    pub async fn link(
        &self,
        place: &Place,
        key: &str,
        request: &str,
    ) -> Result<Option<String>, Error> {
        let mut patience = Patience::new();
        loop {
            let Some(code) = self.get(place).await? else {
                return Ok(None);
            };
            let counts = match decide::link(&code, key, request) {
                Link::NotAdmitted => return Ok(None),
                Link::Counts { request } => return Ok(Some(request)),
                Link::Write { admitted } => Counts {
                    admitted: Some(admitted),
                    ..Counts::default()
                },
            };
            match self.write(&code, &counts).await {
                Ok(_) => return Ok(Some(request.to_owned())),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// All codes that admitted the key. Reads every code there is, page by page.
    pub async fn that_admitted(&self, key: &str) -> Result<Vec<PairingCode>, Error> {
        // As in count_attempt.
        let all: Api<Guarded<PairingCode>> = Api::all(self.client.clone());
        // Never closed.
        let _turn = self.readers.acquire().await;
        let mut page = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let codes = call(all.list(&page)).await?;
            found.extend(
                codes
                    .items
                    .into_iter()
                    .filter_map(Guarded::readable)
                    .filter(|code| decide::has_admitted(code, key)),
            );
            match codes.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                Some(_) | None => return Ok(found),
            }
        }
    }

    async fn get(&self, place: &Place) -> Result<Option<PairingCode>, Error> {
        call(self.namespaced(&place.namespace).get_opt(&place.name)).await
    }

    /// Fails as outdated where the code is not as it was read.
    async fn write(&self, code: &PairingCode, counts: &Counts) -> Result<PairingCode, Error> {
        let Place { namespace, name } = Place::of(code);
        let patch = json!({
            "metadata": { "resourceVersion": code.metadata.resource_version },
            "status": counts,
        });
        let params = PatchParams {
            field_manager: Some(GATEWAY.to_owned()),
            ..PatchParams::default()
        };
        call(
            self.namespaced(&namespace)
                .patch_status(&name, &params, &Patch::Merge(&patch)),
        )
        .await
    }

    fn namespaced(&self, namespace: &str) -> Api<PairingCode> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn counted(code: &PairingCode) -> Option<Counted> {
    let place = Place::of(code);
    let file = code.status.as_ref()?.password_file.as_deref()?;
    let Ok(password_file) = STANDARD.decode(file) else {
        tracing::error!(
            code = place.name,
            namespace = place.namespace,
            "The code's password file is not Base64"
        );
        return None;
    };
    Some(Counted {
        code: place,
        password_file,
    })
}

/// Ids are short and of digits and capital letters. Anything else has no business in a selector.
fn is_id(id: &str) -> bool {
    (1..=16).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// How long one goes on trying. The pauses are drawn, so that those who met do not meet again.
struct Patience {
    until: Instant,
}

impl Patience {
    fn new() -> Self {
        Self {
            until: Instant::now() + PATIENCE,
        }
    }

    /// Waits about so long; `false` where the patience is at its end.
    async fn wait(&mut self, about: Duration) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        sleep(about.mul_f64(rand::random_range(0.5..2.0))).await;
        true
    }

    /// Waits after a write that came too late; passes on every other error, and the last one.
    async fn after(&mut self, error: Error) -> Result<(), Error> {
        if error.is_outdated() && self.wait(Duration::from_millis(15)).await {
            Ok(())
        } else {
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_an_id_is_looked_up() {
        for id in ["7KQ2", "0000", "A"] {
            assert!(is_id(id), "{id}");
        }
        for id in [
            "",
            "7kq2",
            "7KQ2,status.phase=Active",
            "a=b",
            "7KQ2 ",
            "\u{c4}",
            &"7".repeat(17),
        ] {
            assert!(!is_id(id), "{id}");
        }
    }
}
