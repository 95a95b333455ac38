//! Answers to dry runs that need not be asked for again: for half a minute, and not past a change of the policy.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::policies::SETTLES;
use tokio::time::Instant;

use super::plan::{Answer, Policy};

/// How long a refusal counts. Bounds what signatures cost: one dry run for each policy, namespace and set of labels in
/// this time.
const REFUSED: Duration = Duration::from_secs(30);
/// How long anything else counts: of many that wait for a policy, one asks.
const OTHERWISE: Duration = Duration::from_secs(2);
/// Most answers that are kept.
const MOST: usize = 4096;

/// What a dry run was about.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Subject {
    pub namespace: String,
    pub policy: Policy,
    pub labels: u64,
}

/// The answers that are known.
#[derive(Debug, Default)]
pub struct Verdicts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<Subject, Kept>,
    /// The form of each policy as it is stored, and since when it has been seen so.
    forms: HashMap<Policy, (String, Instant)>,
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    form: String,
    at: Instant,
}

impl Verdicts {
    /// The answer, if it still counts. `form`: of the policy, as it is stored now.
    pub fn get(&self, subject: &Subject, form: &str, now: Instant) -> Option<Answer> {
        let mut known = self.known();
        let since = known.since(subject.policy, form, now);
        let kept = known.answers.get(subject)?;
        let lives = match kept.answer {
            // The API server may not have taken in the change when it answered.
            Answer::Refused if kept.at < since + SETTLES.unsigned_abs() => Duration::ZERO,
            Answer::Refused => REFUSED,
            Answer::NotRefused | Answer::CannotTell(_) => OTHERWISE,
        };
        (kept.form == form && now.duration_since(kept.at) < lives).then(|| kept.answer.clone())
    }

    pub fn keep(&self, subject: Subject, form: &str, answer: Answer, now: Instant) {
        let mut known = self.known();
        if known.answers.len() >= MOST {
            known
                .answers
                .retain(|_, kept| now.duration_since(kept.at) < REFUSED);
        }
        if known.answers.len() >= MOST {
            known.answers.clear();
        }
        let form = form.to_owned();
        let at = now;
        known.answers.insert(subject, Kept { answer, form, at });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Since when the policy has been seen in that form.
    fn since(&mut self, policy: Policy, form: &str, now: Instant) -> Instant {
        let (seen, since) = self
            .forms
            .entry(policy)
            .or_insert_with(|| (form.to_owned(), now));
        if seen != form {
            form.clone_into(seen);
            *since = now;
        }
        *since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(namespace: &str) -> Subject {
        Subject {
            namespace: namespace.to_owned(),
            policy: Policy::Decision,
            labels: 0,
        }
    }

    #[tokio::test]
    async fn a_refusal_counts_for_half_a_minute_and_anything_else_for_two_seconds() {
        let verdicts = Verdicts::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let get = |namespace: &str, seconds| verdicts.get(&subject(namespace), "1", at(seconds));
        assert_eq!(get("one", 0), None);
        verdicts.keep(subject("one"), "1", Answer::Refused, at(10));
        verdicts.keep(subject("two"), "1", Answer::NotRefused, at(10));
        assert_eq!(get("one", 39), Some(Answer::Refused));
        assert_eq!(get("one", 40), None);
        assert_eq!(get("two", 11), Some(Answer::NotRefused));
        assert_eq!(get("two", 12), None);
        assert_eq!(get("three", 11), None);
    }

    #[tokio::test]
    async fn a_change_of_the_policy_ends_what_was_known_and_what_is_said_while_it_settles() {
        let verdicts = Verdicts::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let get = |form: &str, seconds| verdicts.get(&subject("one"), form, at(seconds));
        assert_eq!(get("1", 0), None);
        verdicts.keep(subject("one"), "1", Answer::Refused, at(10));
        assert_eq!(get("1", 11), Some(Answer::Refused));
        assert_eq!(get("2", 12), None);
        // An API server that has not heard of the change yet.
        verdicts.keep(subject("one"), "2", Answer::Refused, at(12));
        assert_eq!(get("2", 13), None);
        verdicts.keep(subject("one"), "2", Answer::Refused, at(15));
        assert_eq!(get("2", 44), Some(Answer::Refused));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let verdicts = Verdicts::default();
        let now = Instant::now();
        for number in 0..3 * MOST {
            verdicts.keep(subject(&number.to_string()), "1", Answer::Refused, now);
        }
        assert!(verdicts.known().answers.len() <= MOST);
    }
}
