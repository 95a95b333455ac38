//! `notify`: shows what waits for an answer as notifications of a desktop session, with buttons
//! (Desktop Notifications Specification 1.2), and brings the answers to the agent.
//!
//! A companion of the person's own, in the person's own session: the agent need not know that there is a desktop.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use runtime::shutdown::StopSignals;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;
use zbus::{
    Connection, MatchRule, Message, MessageStream, Variant, message, names::OwnedUniqueName,
};

use super::{
    client::{Client, Error, Pending},
    commands::{Socket, minutes},
    question::Shown,
    wire::{Refused, Said},
};

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// How long the desktop may take to show something.
const SHOW_TIME: Duration = Duration::from_secs(10);
/// Before the agent is looked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// Characters of an input that a notification shows. Of what does not fit, only a part would be allowed knowingly.
const MOST_INPUT: usize = 300;
/// What the buttons are called between the desktop and this.
const ALLOW: &str = "allow";
const DENY: &str = "deny";
/// Does not go away by itself.
const CRITICAL: u8 = 2;

#[derive(Clone, Debug, clap::Args)]
pub struct Notify {
    #[command(flatten)]
    pub socket: Socket,
}

/// Until a signal.
pub async fn notify(
    args: Notify,
    configured: impl FnOnce() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<()> {
    let path = args.socket.path(configured)?;
    let mut stop = StopSignals::listen()?;
    let desktop = Desktop::connect()
        .await
        .context("reach this desktop session's notifications: run it in a desktop session, where DBUS_SESSION_BUS_ADDRESS is set")?;
    tokio::select! {
        served = serve(&path, desktop) => served,
        () = stop.recv() => Ok(()),
    }
}

async fn serve(path: &Path, mut desktop: Desktop) -> anyhow::Result<()> {
    let mut board = Board::default();
    let mut version = None;
    loop {
        tokio::select! {
            pending = look(path, version) => {
                let questions = match pending {
                    Ok(pending) => {
                        version = Some(pending.version);
                        pending.questions
                    }
                    Err(Error::NotRunning { .. } | Error::Io { .. }) => {
                        // It starts later, or again; what it asked before is asked no more.
                        version = None;
                        Vec::new()
                    }
                    Err(error) => return Err(error.into()),
                };
                for change in board.plan(&questions) {
                    desktop.make(change, &mut board).await?;
                }
                if version.is_none() {
                    sleep(AGAIN).await;
                }
            }
            heard = desktop.hear() => {
                let heard = heard.context("the desktop session ended")?;
                if let Some((question, said)) = board.take(&heard) {
                    answer(path, &question, said, &desktop).await?;
                }
            }
        }
    }
}

/// With a connection of its own: dropped in the middle, it leaves nothing half said.
async fn look(path: &Path, unlike: Option<u64>) -> Result<Pending, Error> {
    Client::connect(path).await?.pending(unlike).await
}

async fn answer(
    path: &Path,
    question: &Shown,
    said: Said,
    desktop: &Desktop,
) -> anyhow::Result<()> {
    let answered = async {
        Client::connect(path)
            .await?
            .answer(question, said, "")
            .await
    };
    match answered.await {
        Ok(_) => Ok(()),
        Err(
            error @ Error::Refused {
                why: Refused::NotAllowed,
                ..
            },
        ) => Err(error.into()),
        Err(error) => {
            let text = desktop.text(&format!("{}: {error}", question.capability));
            let shown = desktop.show("Your answer does not count", &text, &[]).await;
            shown.map(drop)
        }
    }
}

/// What is on the screen, by digest.
#[derive(Debug, Default)]
struct Board {
    posted: BTreeMap<String, Posted>,
}

#[derive(Debug)]
struct Posted {
    question: Shown,
    /// What the desktop calls it; `None` where the person closed it without an answer.
    notification: Option<u32>,
}

/// What to do on the screen.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Change {
    Show(Box<Shown>),
    Close(u32),
}

/// What the person did.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Heard {
    Pressed { notification: u32, button: String },
    Closed { notification: u32 },
    Nothing,
}

impl Board {
    /// What is asked now, and nothing else, is on the screen; what a person closed stays closed.
    fn plan(&mut self, questions: &[Shown]) -> Vec<Change> {
        let is_asked = |digest: &String| questions.iter().any(|one| one.digest == *digest);
        let gone = self.posted.iter().filter(|(digest, _)| !is_asked(digest));
        let close = gone.filter_map(|(_, posted)| posted.notification.map(Change::Close));
        let mut changes: Vec<Change> = close.collect();
        self.posted.retain(|digest, _| is_asked(digest));
        let new = questions
            .iter()
            .filter(|question| !self.posted.contains_key(&question.digest));
        changes.extend(
            new.cloned()
                .map(|question| Change::Show(Box::new(question))),
        );
        changes
    }

    fn posted(&mut self, question: Shown, notification: u32) {
        let digest = question.digest.clone();
        let notification = Some(notification);
        let posted = Posted {
            question,
            notification,
        };
        self.posted.insert(digest, posted);
    }

    /// What the person answered, if that is what was heard.
    fn take(&mut self, heard: &Heard) -> Option<(Shown, Said)> {
        let (Heard::Pressed { notification, .. } | Heard::Closed { notification }) = heard else {
            return None;
        };
        let mut all = self.posted.values_mut();
        let posted = all.find(|posted| posted.notification == Some(*notification))?;
        let said = match heard {
            Heard::Pressed { button, .. } if button == ALLOW && fits(&posted.question) => {
                Said::Allow
            }
            Heard::Pressed { button, .. } if button == DENY => Said::Deny,
            Heard::Pressed { .. } | Heard::Nothing => return None,
            Heard::Closed { .. } => {
                posted.notification = None;
                return None;
            }
        };
        Some((posted.question.clone(), said))
    }
}

/// Whether all that is asked can be shown.
fn fits(question: &Shown) -> bool {
    !question.input_is_cut && question.input.chars().count() <= MOST_INPUT
}

/// What a notification says. `has_buttons`: whether it can be answered there.
fn body(question: &Shown, has_buttons: bool) -> String {
    let Shown {
        id,
        description,
        input,
        requested_by,
        ..
    } = question;
    let mut lines = Vec::new();
    if !description.is_empty() {
        lines.push(description.clone());
    }
    lines.push(format!("Asked by {requested_by}"));
    let (fits, is_none) = (fits(question), input.is_empty());
    if fits && !is_none {
        lines.push(format!("Input: {input}"));
    }
    if !fits {
        lines.push("Its input is too long to be shown here: run fairlead-agent pending".to_owned());
    }
    if !has_buttons {
        lines.push(format!(
            "Answer with: fairlead-agent allow {id}, or deny {id}"
        ));
    }
    let time = minutes(question.remaining().as_secs());
    lines.push(format!("Time left: {time}"));
    lines.join("\n")
}

fn buttons(question: &Shown) -> Vec<(&'static str, &'static str)> {
    let allow = fits(question).then_some((ALLOW, "Allow"));
    allow.into_iter().chain([(DENY, "Deny")]).collect()
}

/// Text where markup is understood.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The notifications of this desktop session.
struct Desktop {
    connection: Connection,
    signals: MessageStream,
    has_markup: bool,
    has_buttons: bool,
    /// Who showed something. Others may send such signals, too.
    daemon: Option<OwnedUniqueName>,
}

impl Desktop {
    async fn connect() -> anyhow::Result<Self> {
        let connection = Connection::session().await?;
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .interface(NAME)
            .path(PATH)
            .build()?;
        // Before anything is shown: no press is missed.
        let signals = MessageStream::for_match_rule(rule, &connection, None).await?;
        let mut desktop = Self {
            connection,
            signals,
            has_markup: false,
            has_buttons: false,
            daemon: None,
        };
        let (capabilities, _) = desktop
            .call::<_, Vec<String>>("GetCapabilities", &())
            .await?;
        let has = |name: &str| capabilities.iter().any(|one| one == name);
        desktop.has_markup = has("body-markup");
        desktop.has_buttons = has("actions");
        Ok(desktop)
    }

    async fn call<B, T>(
        &self,
        method: &str,
        body: &B,
    ) -> anyhow::Result<(T, Option<OwnedUniqueName>)>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        T: serde::de::DeserializeOwned + zbus::zvariant::Type,
    {
        let called = self
            .connection
            .call_method(Some(NAME), PATH, Some(NAME), method, body);
        let reply = timeout(SHOW_TIME, called)
            .await
            .context("the desktop does not answer")??;
        let sender = reply
            .header()
            .sender()
            .map(|sender| sender.to_owned().into());
        Ok((reply.body().deserialize()?, sender))
    }

    fn text(&self, text: &str) -> String {
        if self.has_markup {
            escaped(text)
        } else {
            text.to_owned()
        }
    }

    async fn make(&mut self, change: Change, board: &mut Board) -> anyhow::Result<()> {
        match change {
            Change::Show(question) => {
                let summary = format!("Allow {} on this device?", question.capability);
                let text = self.text(&body(&question, self.has_buttons));
                let (notification, daemon) =
                    self.show(&summary, &text, &buttons(&question)).await?;
                self.daemon = daemon;
                board.posted(*question, notification);
            }
            Change::Close(notification) => {
                // Fails where it is closed already.
                let _ = self
                    .call::<_, ()>("CloseNotification", &(notification,))
                    .await;
            }
        }
        Ok(())
    }

    async fn show(
        &self,
        summary: &str,
        text: &str,
        buttons: &[(&str, &str)],
    ) -> anyhow::Result<(u32, Option<OwnedUniqueName>)> {
        let buttons = buttons.iter().filter(|_| self.has_buttons);
        let actions: Vec<&str> = buttons.flat_map(|&(key, label)| [key, label]).collect();
        let hints = HashMap::from([("urgency", Variant::from(CRITICAL))]);
        let (replaces, icon, expires) = (0_u32, "dialog-question", 0_i32);
        let notification = (
            "Fairlead", replaces, icon, summary, text, actions, hints, expires,
        );
        self.call("Notify", &notification).await
    }

    /// What the person did next; `None` where the session is gone. Dropping the future loses nothing.
    async fn hear(&mut self) -> Option<Heard> {
        let message = self.signals.next().await?.ok()?;
        Some(self.read(&message).unwrap_or(Heard::Nothing))
    }

    fn read(&self, message: &Message) -> Option<Heard> {
        let header = message.header();
        let is_ours = header.sender().is_some_and(|sender| {
            self.daemon
                .as_ref()
                .is_some_and(|daemon| daemon.as_str() == sender.as_str())
        });
        let member = header.member().filter(|_| is_ours)?;
        match member.as_str() {
            "ActionInvoked" => {
                let (notification, button) = message.body().deserialize().ok()?;
                Some(Heard::Pressed {
                    notification,
                    button,
                })
            }
            "NotificationClosed" => {
                let (notification, _reason): (u32, u32) = message.body().deserialize().ok()?;
                Some(Heard::Closed { notification })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn shown(digest: &str) -> Shown {
        Shown {
            id: "7kq2-x9m4".to_owned(),
            digest: digest.to_owned(),
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

    fn pressed(notification: u32, button: &str) -> Heard {
        Heard::Pressed {
            notification,
            button: button.to_owned(),
        }
    }

    #[test]
    fn what_is_asked_is_shown_once_and_taken_away_when_it_is_asked_no_more() {
        let mut board = Board::default();
        let (a, b) = (shown("a"), shown("b"));
        let show = |question: &Shown| Change::Show(Box::new(question.clone()));
        assert_eq!(board.plan(slice::from_ref(&a)), [show(&a)]);
        board.posted(a.clone(), 7);
        assert_eq!(board.plan(&[a.clone(), b.clone()]), [show(&b)]);
        board.posted(b.clone(), 8);
        assert_eq!(board.plan(slice::from_ref(&b)), [Change::Close(7)]);
        // Closed by the person: not shown again, and nothing to close.
        assert_eq!(board.take(&Heard::Closed { notification: 8 }), None);
        assert_eq!(board.plan(&[b]), []);
        assert_eq!(board.plan(&[]), []);
        assert_eq!(board.plan(slice::from_ref(&a)), [show(&a)]);
    }

    #[test]
    fn a_button_answers_what_its_notification_showed_and_nothing_else_answers() {
        let mut board = Board::default();
        board.posted(shown("a"), 7);
        board.posted(shown("b"), 8);
        assert_eq!(
            board.take(&pressed(8, "allow")),
            Some((shown("b"), Said::Allow))
        );
        assert_eq!(
            board.take(&pressed(7, "deny")),
            Some((shown("a"), Said::Deny))
        );
        for heard in [
            pressed(9, "allow"),
            pressed(7, "default"),
            pressed(7, ""),
            Heard::Nothing,
        ] {
            assert_eq!(board.take(&heard), None, "{heard:?}");
        }
    }

    #[test]
    fn what_cannot_be_shown_whole_cannot_be_allowed_by_a_button() {
        let long = Shown {
            input: "x".repeat(301),
            ..shown("a")
        };
        let cut = Shown {
            input_is_cut: true,
            ..shown("a")
        };
        for question in [long, cut] {
            assert_eq!(buttons(&question), [("deny", "Deny")]);
            assert!(body(&question, true).contains("fairlead-agent pending"));
            let mut board = Board::default();
            board.posted(question, 7);
            assert_eq!(board.take(&pressed(7, "allow")), None);
        }
        assert_eq!(buttons(&shown("a")).len(), 2);
    }

    #[test]
    fn a_notification_says_what_a_person_decides_by_and_nobody_elses_markup_counts() {
        let text = body(&shown("a"), true);
        for part in [
            "opens an address",
            "jane@example.org",
            "https://example.org",
            "4 min",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(body(&shown("a"), false).contains("fairlead-agent allow 7kq2-x9m4"));
        assert_eq!(escaped("<b>&x"), "&lt;b&gt;&amp;x");
    }
}
