//! How a code is shown: the URI, the QR code and the PIN, so that a terminal of 24 rows has room for them.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use crds::{PairingCode, names::code_secret};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use pairing::uri::PairingUri;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::patience::{Waiting, not_true},
    cluster::{Cluster, is_forbidden, is_missing, told},
    show::{note, out},
};

/// How long the operator may take to draw a code.
const DRAW: Duration = Duration::from_secs(30);
/// Between two looks at a Secret: to watch it would take a right that few have.
const LOOK: Duration = Duration::from_millis(300);
/// Row of the QR code that the PIN stands beside.
const PIN_ROW: usize = 2;

/// Shows the PIN and the QR code, once the operator has drawn them.
pub async fn show_code(cluster: &Cluster, code: &str) -> anyhow::Result<()> {
    let secrets: Api<Secret> = cluster.api();
    let name = code_secret(code);
    let end = Instant::now() + DRAW;
    let codes: Api<PairingCode> = cluster.api();
    let mut waiting = Waiting::begin();
    let layout = if io::stdout().is_terminal() {
        Layout::Screen
    } else {
        Layout::Lines
    };
    loop {
        match secrets.get(&name).await {
            Ok(secret) => {
                if let Some(text) = shown_code(&secret, layout) {
                    out(&text)?;
                    note("waiting for the device; Ctrl-C takes the code back");
                    return Ok(());
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) if is_forbidden(&error) => {
                bail!(
                    "to show the code takes the right to get the Secret {name}: {:#}",
                    told(error)
                )
            }
            Err(error) => return Err(told(error)).context("read the code"),
        }
        if Instant::now() >= end {
            let why = waiting
                .last()
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            bail!("the operator has not drawn the code{why}; see kubectl fairlead doctor");
        }
        sleep(LOOK).await;
        if waiting.is_long() {
            let status = codes.get(code).await.ok().and_then(|code| code.status);
            let why = status.and_then(|status| not_true(&status.conditions));
            waiting.tell(
                &why.unwrap_or_else(|| "waiting for the operator to draw the code".to_owned()),
            );
        }
    }
}

/// Where the code is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Layout {
    /// On a terminal: what must be seen at once, the QR code and the PIN, stands side by side and last.
    Screen,
    /// For a program: the PIN and the URI each have a line that begins with their name.
    Lines,
}

/// The code as a person needs it; `None` until all of it is in the Secret. Pure.
fn shown_code(secret: &Secret, layout: Layout) -> Option<String> {
    let part = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    let (pin, uri, qr) = (part("pin")?, part("uri")?, part("qr.txt")?);
    let qr = qr.trim_end();
    // A PIN does not name a gateway.
    let gateway = uri.parse::<PairingUri>().ok().map(|uri| uri.gateway);
    let flag = gateway.map_or_else(String::new, |gateway| format!(" --gateway {gateway}"));
    Some(match layout {
        Layout::Lines => {
            format!("{qr}\n\nPIN  {pin}\nURI  {uri}\n\nAt the device: fairlead-agent pair{flag}\n")
        }
        Layout::Screen => {
            let rows = qr.lines().enumerate().map(|(row, line)| match row {
                PIN_ROW => format!("{line}   PIN  {pin}\n"),
                row if row == PIN_ROW + 2 => format!("{line}   At the device:\n"),
                row if row == PIN_ROW + 3 => format!("{line}   fairlead-agent pair\n"),
                // A line of its own: a terminal of 80 columns has little room beside the code.
                row if row == PIN_ROW + 4 && !flag.is_empty() => format!("{line}    {flag}\n"),
                _ => format!("{line}\n"),
            });
            format!("URI  {uri}\n{}", rows.collect::<String>())
        }
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_code_is_shown_once_all_of_it_is_there() {
        let mut secret = Secret::default();
        assert_eq!(shown_code(&secret, Layout::Lines), None);
        let part = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = std::collections::BTreeMap::from([
            ("pin".to_owned(), part("PIN-TEXT")),
            ("uri".to_owned(), part("URI-TEXT")),
        ]);
        secret.data = Some(data.clone());
        assert_eq!(shown_code(&secret, Layout::Lines), None);
        data.insert("qr.txt".to_owned(), part("QR-TEXT\n"));
        secret.data = Some(data);
        let text = shown_code(&secret, Layout::Lines).unwrap();
        assert!(
            text.starts_with("QR-TEXT\n\nPIN  PIN-TEXT\nURI  URI-TEXT\n"),
            "{text}"
        );
    }

    #[test]
    fn the_command_for_a_pin_names_the_gateway() {
        let uri = format!(
            "fairlead://gateway.example:7443/?ns=kitchen&ca={}#0101-ABCDEF",
            pairing::key::KeyFingerprint::of_spki(b"authority")
        );
        let part = |text: &str| ByteString(text.as_bytes().to_vec());
        let rows = ["ROW"; 22].join("\n");
        let secret = Secret {
            data: Some(
                [
                    ("pin".to_owned(), part("PIN-TEXT")),
                    ("uri".to_owned(), part(&uri)),
                    ("qr.txt".to_owned(), part(&rows)),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let lines = shown_code(&secret, Layout::Lines).unwrap();
        assert!(
            lines.ends_with("fairlead-agent pair --gateway gateway.example:7443\n"),
            "{lines}"
        );
        let screen = shown_code(&secret, Layout::Screen).unwrap();
        assert_eq!(screen.lines().count(), 23);
        assert!(
            screen.contains("fairlead-agent pair\nROW     --gateway gateway.example:7443\n"),
            "{screen}"
        );
    }

    #[test]
    fn on_a_terminal_the_pin_stands_beside_the_qr_code() {
        let part = |text: &str| ByteString(text.as_bytes().to_vec());
        let rows: Vec<String> = (0..22).map(|row| format!("ROW {row}")).collect();
        let secret = Secret {
            data: Some(
                [
                    ("pin".to_owned(), part("PIN-TEXT")),
                    ("uri".to_owned(), part("URI-TEXT")),
                    ("qr.txt".to_owned(), part(&rows.join("\n"))),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let text = shown_code(&secret, Layout::Screen).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "URI  URI-TEXT");
        assert_eq!(lines[3], "ROW 2   PIN  PIN-TEXT");
        assert!(lines[6].ends_with("fairlead-agent pair"));
        // With the line below the code and that of the cursor, nothing but the URI leaves a terminal of 24 rows.
        assert_eq!(lines.len() - 1 + 2, 24);
    }
}
