//! The person at this terminal: whether there is one, whether colours may be used, what was answered, and Ctrl-C.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use tokio::sync::watch;

use crate::show::note;

/// How what is printed may look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colours {
    On,
    Off,
}

impl Colours {
    /// For standard output.
    pub fn of_stdout() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        decide(
            io::stdout().is_terminal(),
            variable("NO_COLOR").as_deref(),
            variable("TERM").as_deref(),
        )
    }
}

/// Colours are for a person who looks, and did not ask for none (no-color.org).
fn decide(terminal: bool, no_color: Option<&str>, term: Option<&str>) -> Colours {
    let unwanted = no_color.is_some_and(|value| !value.is_empty()) || term == Some("dumb");
    if terminal && !unwanted {
        Colours::On
    } else {
        Colours::Off
    }
}

/// Asks a question on standard error, and reads the answer from standard input, whatever that is. What is not a yes is
/// a no, and so is the end of the input.
pub async fn agrees(question: &str) -> io::Result<bool> {
    let question = question.to_owned();
    tokio::task::spawn_blocking(move || {
        // Never locked for longer than a line: who presses Ctrl-C instead of answering is told something there, too.
        write!(io::stderr(), "{question} [y/N] ")?;
        io::stderr().flush()?;
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer)?;
        if read == 0 {
            writeln!(io::stderr())?;
        }
        Ok(is_yes(&answer))
    })
    .await
    .unwrap_or_else(|_| Err(io::Error::other("nobody could be asked")))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Ctrl-C, from when it is first listened for: what is pressed between two looks is not lost. Until then it ends the
/// process, as it does every program; from then on it does so no more, and somebody must look.
pub struct Interrupts(Listener);

#[cfg(unix)]
type Listener = tokio::signal::unix::Signal;
#[cfg(windows)]
type Listener = tokio::signal::windows::CtrlC;

impl Interrupts {
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        let listener = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        #[cfg(windows)]
        let listener = tokio::signal::windows::ctrl_c()?;
        Ok(Self(listener))
    }

    /// The next one, or one that was not looked at yet.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // Nobody can be heard any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Interrupts {
    /// Does `work`, which is given how often Ctrl-C was pressed. Says `first` at the first press.
    pub async fn counted<T>(mut self, first: &str, work: impl AsyncFnOnce(Presses) -> T) -> T {
        let (sender, presses) = watch::channel(0_usize);
        let count = async {
            loop {
                self.next().await;
                if *sender.borrow() == 0 {
                    note(first);
                }
                sender.send_modify(|number| *number += 1);
            }
        };
        tokio::select! {
            outcome = work(Presses(presses)) => outcome,
            never = count => never,
        }
    }
}

/// How often Ctrl-C was pressed.
#[derive(Clone)]
pub struct Presses(watch::Receiver<usize>);

impl Presses {
    pub fn number(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until it was pressed so often.
    pub async fn reach(&mut self, number: usize) {
        if self.0.wait_for(|pressed| *pressed >= number).await.is_err() {
            // Nobody counts any more.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_a_person_who_looks_and_wants_them() {
        assert_eq!(decide(true, None, Some("xterm")), Colours::On);
        assert_eq!(decide(true, Some(""), None), Colours::On);
        assert_eq!(decide(true, Some("1"), None), Colours::Off);
        assert_eq!(decide(true, None, Some("dumb")), Colours::Off);
        assert_eq!(decide(false, None, Some("xterm")), Colours::Off);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_was_pressed_before_anybody_looked_is_heard_and_once() {
        use std::time::Duration;

        let mut interrupts = Interrupts::listen().unwrap();
        let pressed = std::process::Command::new("kill")
            .args(["-INT", &std::process::id().to_string()])
            .status()
            .unwrap();
        assert!(pressed.success());
        tokio::time::timeout(Duration::from_secs(10), interrupts.next())
            .await
            .unwrap();
        let again = tokio::time::timeout(Duration::from_millis(50), interrupts.next()).await;
        assert!(again.is_err());
    }

    #[test]
    fn what_is_no_yes_is_a_no() {
        assert!(is_yes("y\n") && is_yes(" YES "));
        for no in ["", "\n", "n", "yep", "j"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
