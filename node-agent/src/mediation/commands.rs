//! What a person types: `pending`, `allow`, `deny`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{
    client::{Client, Error},
    question::{Id, Shown},
    wire::{Refused, Said},
};
use crate::{args::Output, exit::Refusal, terminal::say};

/// Where the agent listens.
#[derive(Clone, Debug, clap::Args)]
pub struct Socket {
    /// The agent's socket [default: mediation.socket of the configuration, else agent.sock in the state folder].
    #[arg(long, env = "FAIRLEAD_SOCKET", value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

impl Socket {
    /// The configuration is read only where this does not say it: who answers may not be allowed to read it.
    pub fn path(
        self,
        configured: impl FnOnce() -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<PathBuf> {
        match self.socket {
            Some(socket) => Ok(socket),
            None => configured().context(
                "find the agent's socket, which --socket and FAIRLEAD_SOCKET can say, too",
            ),
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct Pending {
    /// How it is written.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub socket: Socket,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Allow {
    /// As `pending` shows it.
    pub id: String,
    /// Told to who asked.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    #[command(flatten)]
    pub socket: Socket,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Deny {
    /// As `pending` shows it.
    pub id: String,
    /// Told to who asked.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    #[command(flatten)]
    pub socket: Socket,
}

type Configured = anyhow::Result<PathBuf>;

pub async fn pending(args: Pending, configured: impl FnOnce() -> Configured) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.socket.path(configured)?).await?;
    let questions = client.pending(None).await?.questions;
    match args.output {
        Output::Text => say(&table(&questions)),
        Output::Json => say(&serde_json::to_string_pretty(&questions)?),
    }
    Ok(())
}

pub async fn allow(args: Allow, configured: impl FnOnce() -> Configured) -> anyhow::Result<()> {
    let Allow { id, reason, socket } = args;
    answer(&id, Said::Allow, &reason, socket.path(configured)?).await
}

pub async fn deny(args: Deny, configured: impl FnOnce() -> Configured) -> anyhow::Result<()> {
    let Deny { id, reason, socket } = args;
    answer(&id, Said::Deny, &reason, socket.path(configured)?).await
}

/// The ID is the beginning of the digest of what was shown; what has it now is what was shown then.
async fn answer(typed: &str, said: Said, reason: &str, path: PathBuf) -> anyhow::Result<()> {
    let id = Id::parse(typed).ok_or_else(|| {
        let message =
            "the ID is none: `fairlead-agent pending` shows those that there are".to_owned();
        Refusal::Usage(message)
    })?;
    let mut client = Client::connect(&path).await?;
    let questions = client.pending(None).await?.questions;
    let question = only(&questions, &id)?;
    let by = client.answer(question, said, reason).await?;
    let done = match said {
        Said::Allow => "Allowed",
        Said::Deny => "Denied",
    };
    say(&format!(
        "{done}: {} for {}, as {by}.",
        question.capability, question.requested_by
    ));
    Ok(())
}

fn only<'a>(questions: &'a [Shown], id: &Id) -> Result<&'a Shown, Error> {
    let refused = |why, message: String| Err(Error::Refused { why, message });
    let mut found = questions.iter().filter(|question| question.is(id));
    match (found.next(), found.next()) {
        (Some(question), None) => Ok(question),
        (None, _) => refused(
            Refused::NotAsked,
            format!(
                "nothing with the ID {id} waits for an answer, or what was asked has changed: look at \
                 `fairlead-agent pending`"
            ),
        ),
        (Some(_), Some(_)) => refused(
            Refused::Changed,
            format!(
                "two things with the ID {id} wait for an answer: deny what asks by kubectl, and ask again"
            ),
        ),
    }
}

fn table(questions: &[Shown]) -> String {
    if questions.is_empty() {
        return "Nothing waits for an answer.".to_owned();
    }
    let mut text = String::new();
    for question in questions {
        text.push_str(&of(question));
        text.push('\n');
    }
    text.push_str("Answer with: fairlead-agent allow ID, or fairlead-agent deny ID --reason TEXT");
    text
}

fn of(question: &Shown) -> String {
    let Shown {
        id,
        capability,
        description,
        input,
        input_bytes,
        input_is_cut,
        requested_by,
        invocation,
        ..
    } = question;
    let described = if description.is_empty() {
        String::new()
    } else {
        format!(" ({description})")
    };
    let input = match (input.as_str(), input_is_cut) {
        ("", _) => "none".to_owned(),
        (input, false) => input.to_owned(),
        (input, true) => format!(
            "{input}...\n              CUT: it has {input_bytes} bytes. Deny it unless you know the rest."
        ),
    };
    format!(
        "{id}  {capability}{described}\n  asked by:   {requested_by}\n  input:      {input}\n  \
         time left:  {}\n  invocation: {invocation}\n",
        minutes(question.remaining().as_secs())
    )
}

/// A time as people say it.
pub fn minutes(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200.. => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::document::Problem, exit::Exit};

    fn shown(id: &str) -> Shown {
        Shown {
            id: id.to_owned(),
            digest: String::new(),
            uid: "a".to_owned(),
            invocation: "open-it".to_owned(),
            capability: "desktop.open_url".to_owned(),
            description: "opens an address".to_owned(),
            input: "{\"url\":\"https://example.org\"}".to_owned(),
            input_bytes: 30,
            input_is_cut: false,
            requested_by: "jane@example.org".to_owned(),
            remaining_seconds: 250,
        }
    }

    #[test]
    fn who_may_not_read_the_configuration_learns_how_to_answer_all_the_same() {
        let path = PathBuf::from("/run/fairlead/agent.sock");
        let unreadable = || {
            let problem = Problem::of(&path, "this user may not read it");
            Err(problem.into())
        };
        let given = Socket {
            socket: Some(path.clone()),
        };
        assert_eq!(given.path(unreadable).unwrap(), path);
        let error = Socket { socket: None }.path(unreadable).unwrap_err();
        assert!(
            format!("{error:#}").contains("FAIRLEAD_SOCKET"),
            "{error:#}"
        );
        assert_eq!(Exit::of(&error), Exit::Config);
    }

    #[test]
    fn everything_that_a_person_decides_by_is_shown() {
        let text = table(&[shown("7kq2-x9m4")]);
        for part in [
            "7kq2-x9m4",
            "desktop.open_url (opens an address)",
            "jane@example.org",
            "https://example.org",
            "4 min",
            "fairlead-agent allow",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("CUT"));
        let cut = Shown {
            input_is_cut: true,
            ..shown("7kq2-x9m4")
        };
        assert!(table(&[cut]).contains("CUT: it has 30 bytes"));
        assert_eq!(table(&[]), "Nothing waits for an answer.");
    }

    #[test]
    fn an_answer_is_for_the_one_thing_that_has_the_id() {
        let questions = [shown("7kq2-x9m4"), shown("0000-0000"), shown("0000-0000")];
        let only = |id: &str| only(&questions, &Id::parse(id).unwrap());
        assert_eq!(only("7KQ2X9M4").unwrap(), &questions[0]);
        for (id, expected) in [
            ("1111-1111", Refused::NotAsked),
            ("0000-0000", Refused::Changed),
        ] {
            assert!(
                matches!(only(id), Err(Error::Refused { why, .. }) if why == expected),
                "{id}"
            );
        }
    }
}
