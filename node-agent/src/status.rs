//! What `status` shows: read from the state folder, while another process may use it.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::{
    journal::{Counts, Journal},
    renewal::{REMEDY, moment},
    state::{
        Identity, Refused, Standing, View,
        identity::LifeState,
        pairing::Request,
        session::{Session, State},
    },
    upstream::rfc3339,
};

/// As JSON, its fields stay: new ones may come, none goes or changes its meaning.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub state_dir: String,
    pub standing: StandingName,
    /// Process that uses the folder now.
    pub process: Option<u32>,
    /// 64 hexadecimal digits.
    pub public_key_sha256: Option<String>,
    /// Its beginning, for people who compare it by voice.
    pub public_key_words: Option<String>,
    pub device: Option<Device>,
    pub certificate: Option<Certificate>,
    pub gateways: Vec<String>,
    /// The request that waits for an approver.
    pub request: Option<Request>,
    pub session: Option<Session>,
    pub journal: JournalStatus,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum StandingName {
    Unpaired,
    Pairing,
    Paired,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub state: LifeState,
    /// RFC 3339.
    pub not_before: String,
    pub not_after: String,
    /// When the device asks for another one, where its clock is right.
    pub renews_at: String,
    /// The renewal that was not accepted, where none was accepted since.
    pub refused: Option<Refused>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalStatus {
    #[serde(flatten)]
    pub counts: Counts,
    pub bytes: u64,
}

impl Status {
    /// Reads the folder; one that is not there is that of an unpaired device.
    pub fn read(path: &Path, now: jiff::Timestamp) -> anyhow::Result<Self> {
        let mut status = Self {
            state_dir: path.display().to_string(),
            standing: StandingName::Unpaired,
            process: None,
            public_key_sha256: None,
            public_key_words: None,
            device: None,
            certificate: None,
            gateways: Vec::new(),
            request: None,
            session: None,
            journal: JournalStatus::default(),
        };
        let Some(view) = View::of(path)? else {
            return Ok(status);
        };
        status.process = view.user();
        if let Some(key) = view.key()? {
            let fingerprint = key.fingerprint();
            status.public_key_sha256 = Some(fingerprint.to_string());
            status.public_key_words = Some(fingerprint.words().join(" "));
        }
        status.session = view.session()?;
        if status.process.is_none()
            && let Some(session) = &mut status.session
        {
            // A process that was killed could not say goodbye.
            session.state = State::Stopped;
        }
        let (counts, bytes) = Journal::peek(&view.journal())?;
        status.journal = JournalStatus { counts, bytes };
        match view.standing(now.as_second())? {
            Standing::Unpaired => {}
            Standing::Pairing(saved) => {
                status.standing = StandingName::Pairing;
                status.request.clone_from(&saved.pairing().request);
                status.gateways = vec![saved.pairing().gateway.clone()];
            }
            Standing::Paired(identity) => {
                let life = view.life_of(&identity)?;
                status.standing = StandingName::Paired;
                status.gateways = identity.addresses();
                status.certificate = Some(Certificate {
                    state: life.at(now.as_second()),
                    not_before: at(life.not_before),
                    not_after: at(life.not_after),
                    renews_at: at(moment::due_at(life, jitter(&identity))),
                    refused: view.refused()?,
                });
                status.device = Some(Device {
                    namespace: identity.namespace,
                    name: identity.device,
                });
            }
        }
        Ok(status)
    }
}

fn jitter(identity: &Identity) -> f64 {
    let leaf = identity.chain.first();
    leaf.map_or(0.0, |leaf| moment::jitter(&leaf.0))
}

fn at(second: i64) -> String {
    jiff::Timestamp::from_second(second).map_or_else(|_| second.to_string(), rfc3339)
}

/// For people.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.standing, &self.device) {
            (StandingName::Paired, Some(Device { namespace, name })) => {
                writeln!(f, "device:       {namespace}/{name}")?;
            }
            (StandingName::Pairing, _) => {
                let request = self.request.as_ref().map_or_else(
                    || "not known yet".to_owned(),
                    |request| format!("{}/{}", request.namespace, request.name),
                );
                writeln!(f, "device:       being paired, PairingRequest {request}")?;
            }
            (StandingName::Paired | StandingName::Unpaired, _) => {
                writeln!(f, "device:       not paired")?;
            }
        }
        if let Some(key) = &self.public_key_sha256 {
            writeln!(f, "key:          {key}")?;
        }
        if let Some(words) = &self.public_key_words {
            writeln!(f, "in words:     {words}")?;
        }
        if let Some(Certificate {
            state,
            not_before,
            not_after,
            renews_at,
            refused,
        }) = &self.certificate
        {
            writeln!(f, "certificate:  {state:?}, {not_before} to {not_after}")?;
            match state {
                LifeState::Expired => writeln!(
                    f,
                    "renewal:      too late, unless this device's clock is wrong: pair it again"
                )?,
                LifeState::Valid | LifeState::NotYetValid => {
                    writeln!(f, "renewal:      asked for from {renews_at} on")?;
                }
            }
            if let Some(Refused { reason, at }) = refused {
                writeln!(f, "not accepted: {at}: {reason}; {REMEDY}")?;
            }
        }
        match self.process {
            Some(process) => writeln!(f, "process:      {process}")?,
            None => writeln!(f, "process:      not running")?,
        }
        if let Some(session) = &self.session {
            let gateway = session.gateway.as_deref().unwrap_or("no gateway yet");
            writeln!(
                f,
                "gateway:      {:?} since {} ({gateway})",
                session.state, session.since
            )?;
            if let Some(error) = &session.last_error {
                writeln!(f, "last error:   {error}")?;
            }
        }
        let JournalStatus { counts, bytes } = &self.journal;
        write!(
            f,
            "journal:      {} waiting, {} running, {} to be acked, {} remembered, {bytes} bytes",
            counts.waiting, counts.running, counts.unacked, counts.acked
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Folder, Pairing};

    #[test]
    fn json_keeps_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let now = jiff::Timestamp::UNIX_EPOCH;
        let before = serde_json::to_value(Status::read(&path, now).unwrap()).unwrap();
        let fields: Vec<_> = before.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            fields,
            [
                "certificate",
                "device",
                "gateways",
                "journal",
                "process",
                "publicKeySha256",
                "publicKeyWords",
                "request",
                "session",
                "standing",
                "stateDir"
            ]
        );
        assert_eq!(before["standing"], "Unpaired");
        assert_eq!(
            before["journal"],
            serde_json::json!({
                "waiting": 0, "running": 0, "unacked": 0, "acked": 0, "forgotten": 0, "bytes": 0
            })
        );

        let opened = Folder::open(&path).unwrap();
        opened.key().unwrap();
        opened.save_pairing(Pairing::for_tests()).unwrap();
        let status = Status::read(&path, now).unwrap();
        assert_eq!(status.standing, StandingName::Pairing);
        assert_eq!(status.process, Some(std::process::id()));
        assert!(status.to_string().contains("being paired"));
        let words = opened.key().unwrap().fingerprint().words().join(" ");
        assert!(
            status
                .to_string()
                .contains(&format!("in words:     {words}\n"))
        );
        assert_eq!(status.public_key_words, Some(words));
    }
}
