//! Between the agent's loop, which decides, and whoever shows questions and brings answers.
//!
//! The loop never waits for anybody here: what is asked is published, and answers that find no room are turned away.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    question::{Digest, Question},
    rules::Decision,
};
use crate::{
    agent::plan::{Answer, Reply},
    config::mediation::Mediation,
    journal::Uid,
};

/// Answers on their way to the loop.
const ANSWERS: usize = 16;

/// What is asked now.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Another one for each change.
    pub version: u64,
    /// In the order in which they came.
    pub questions: Vec<Question>,
}

/// An answer of a person, and where the reply goes.
#[derive(Debug)]
pub struct Given {
    pub uid: Uid,
    pub shown: Digest,
    pub is_allowed: bool,
    pub decision: Decision,
    pub reply: oneshot::Sender<Reply>,
}

/// The loop's side.
#[derive(Debug)]
pub struct Desk {
    asked: watch::Sender<Arc<Asked>>,
    answers: mpsc::Receiver<Given>,
    settings: watch::Receiver<Arc<Mediation>>,
    /// Who waits for a reply.
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    next_ticket: u64,
}

/// The other side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Visitors {
    pub asked: watch::Receiver<Arc<Asked>>,
    pub answers: mpsc::Sender<Given>,
    pub settings: watch::Receiver<Arc<Mediation>>,
}

/// Something that the loop hears.
#[derive(Clone, Debug)]
pub enum Heard {
    Answer(Answer),
    /// The rules may be others.
    Settings,
}

/// Makes both sides; `settings` may change at any time.
pub fn open(settings: watch::Receiver<Arc<Mediation>>) -> (Desk, Visitors) {
    let (asked, shown) = watch::channel(Arc::default());
    let (sender, answers) = mpsc::channel(ANSWERS);
    let desk = Desk {
        asked,
        answers,
        settings: settings.clone(),
        waiting: HashMap::new(),
        next_ticket: 0,
    };
    let visitors = Visitors {
        asked: shown,
        answers: sender,
        settings,
    };
    (desk, visitors)
}

impl Desk {
    /// One at which nobody ever answers, and without rules.
    pub fn unattended() -> Self {
        open(watch::channel(Arc::default()).1).0
    }

    pub fn settings(&self) -> Arc<Mediation> {
        Arc::clone(&self.settings.borrow())
    }

    /// Until there is something to hear. Dropping the future loses nothing.
    pub async fn hear(&mut self) -> Heard {
        tokio::select! {
            // Closed where nobody can be asked.
            Some(given) = self.answers.recv() => Heard::Answer(self.take(given)),
            Ok(()) = self.settings.changed() => Heard::Settings,
            else => std::future::pending().await,
        }
    }

    fn take(&mut self, given: Given) -> Answer {
        let Given {
            uid,
            shown,
            is_allowed,
            decision,
            reply,
        } = given;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, reply);
        Answer {
            ticket,
            uid,
            shown,
            is_allowed,
            decision,
        }
    }

    /// Says what became of an answer.
    pub fn reply(&mut self, ticket: u64, reply: Reply) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = waiting.send(reply);
        }
    }

    /// Publishes what is asked now, where it is something else than before.
    pub fn publish(&mut self, questions: impl Iterator<Item = Question>) {
        let questions: Vec<Question> = questions.collect();
        self.asked.send_if_modified(|asked| {
            if asked.questions == questions {
                return false;
            }
            *asked = Arc::new(Asked {
                version: asked.version + 1,
                questions,
            });
            true
        });
    }
}
