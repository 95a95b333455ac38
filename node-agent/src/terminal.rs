//! What is said to the person at the device, and asked. Everything that came from outside passes [`printable`].

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
};

use pairing::key::KeyFingerprint;
use zeroize::Zeroizing;

use crate::{
    enrol::Progress,
    state::{Identity, pairing::Request},
};

/// Longest text of others that is shown.
const MAX_CHARACTERS: usize = 512;
/// Longest line that is read: a pairing URI is 2 KiB at most.
const MAX_LINE_BYTES: u64 = 4096;

/// A text from outside, without what could move a cursor or hide a line.
pub fn printable(text: &str) -> String {
    printable_within(text, MAX_CHARACTERS)
}

/// The same, with so many characters at most.
pub fn printable_within(text: &str, characters: usize) -> String {
    text.chars()
        .map(|c| if surface::is_deceptive(c) { ' ' } else { c })
        .take(characters)
        .collect()
}

/// So many bytes of a text, and no half character.
pub fn cut(text: &str, bytes: usize) -> &str {
    let end = text.floor_char_boundary(bytes);
    text.get(..end).unwrap_or(text)
}

/// A line to standard output. A closed pipe is nobody's fault.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Whether there is a person to ask.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Asks a person.
pub fn ask(question: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = io::stderr();
    write!(terminal, "{question} ")?;
    terminal.flush()?;
    read_line()
}

/// One line of standard input, without its end.
pub fn read_line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin()
        .lock()
        .take(MAX_LINE_BYTES)
        .read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

/// A fingerprint as people compare it: in groups of four, eight to a line.
pub fn grouped(fingerprint: KeyFingerprint) -> String {
    let digits = fingerprint.to_string();
    let mut text = String::with_capacity(digits.len() * 5 / 4);
    for (index, digit) in digits.chars().enumerate() {
        match index {
            0 => {}
            _ if index % 32 == 0 => text.push('\n'),
            _ if index % 4 == 0 => text.push(' '),
            _ => {}
        }
        text.push(digit);
    }
    text
}

/// What a person types to approve.
pub fn approval_command(Request { namespace, name }: &Request) -> String {
    format!(
        "kubectl -n {namespace} patch preq {name} --subresource=status --type=merge \
         -p '{{\"status\":{{\"approval\":{{\"decision\":\"Approved\"}}}}}}'"
    )
}

/// Progress of a pairing, for a person.
pub fn of_progress(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Proved {
            gateway,
            pinned: true,
            authority,
        } => format!(
            "The gateway at {gateway} is verified: its certificate comes from the authority in your code\n\
             ({authority}), and it knows the code."
        ),
        Progress::Proved {
            gateway,
            pinned: false,
            authority,
        } => format!(
            "The gateway at {gateway} proved that it knows your code.\n\
             A PIN cannot verify its certificate, so this authority is trusted from now on:\n{}",
            indented(&grouped(*authority))
        ),
        Progress::Pending {
            request,
            key,
            expires_in,
        } => {
            let mut text = format!(
                "Waiting for approval of PairingRequest {}/{} (for {} minutes at most).\n",
                request.namespace,
                request.name,
                expires_in.as_secs().div_ceil(60)
            );
            let _ = write!(
                text,
                "The approver types:\n\n    {}\n\nThis device's key is\n\n{}\n\n\
                 The approver must see the same in spec.publicKeySha256. By voice, compare these words with what the\n\
                 approver sees:\n\n    {}",
                approval_command(request),
                indented(&grouped(*key)),
                key.words().join(" ")
            );
            text
        }
        Progress::Interrupted { reason, pause } => format!(
            "Interrupted: {}. Asking again in {:.1} s; the request stays.",
            printable(reason),
            pause.as_secs_f64()
        ),
    }
}

/// The end of a pairing, for a person.
pub fn of_identity(identity: &Identity) -> String {
    format!(
        "Paired as {}/{}. Start it with: fairlead-agent run",
        identity.namespace, identity.device
    )
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fingerprint_is_grouped_and_nothing_is_lost() {
        let fingerprint = KeyFingerprint::of_spki(b"key");
        let text = grouped(fingerprint);
        assert_eq!(text.replace([' ', '\n'], ""), fingerprint.to_string());
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.split(' ').count() == 8));
    }

    #[test]
    fn what_others_say_cannot_move_the_cursor() {
        assert_eq!(printable("no\u{1b}[2Jway\n"), "no [2Jway ");
        assert_eq!(printable("a\u{202e}b\u{200b}ü"), "a b ü");
        assert_eq!(printable(&"x".repeat(10_000)).len(), MAX_CHARACTERS);
    }

    #[test]
    fn a_person_is_told_what_was_not_verified() {
        let proved = |pinned| {
            of_progress(&Progress::Proved {
                gateway: "g:1",
                pinned,
                authority: KeyFingerprint::of_spki(b"authority"),
            })
        };
        assert!(proved(true).contains("verified"));
        assert!(!proved(false).contains("verified"));
        assert!(proved(false).contains("A PIN cannot verify"));
    }

    #[test]
    fn the_approvers_command_is_complete() {
        let request = Request {
            namespace: "kitchen".to_owned(),
            name: "preq-1".to_owned(),
        };
        let text = of_progress(&Progress::Pending {
            request: &request,
            key: KeyFingerprint::of_spki(b"key"),
            expires_in: Duration::from_secs(890),
        });
        assert!(text.contains(
            r#"kubectl -n kitchen patch preq preq-1 --subresource=status --type=merge -p '{"status":{"approval":{"decision":"Approved"}}}'"#
        ), "{text}");
        assert!(text.contains("15 minutes"), "{text}");
        // What the bytes of SHA-256("key") begin with.
        assert!(
            text.contains("\n    cluster mandate enlist village good lady"),
            "{text}"
        );
    }
}
