//! What of the store may go: artefacts whose invocation is deleted, and parts that nobody goes on with.
//!
//! What is deleted in Kubernetes never comes back under its uid. So an artefact goes whose uid was not among all
//! invocations of its namespace, when those were read after the artefact was seen.

use std::collections::BTreeSet;

use super::artefact::{ARTEFACTS, PARTS};

/// Nothing is younger that goes: clocks differ, and what is written now has its invocation.
const ARTEFACT_AGE_SECONDS: i64 = 3600;
/// No invocation runs for that long.
const PART_AGE_SECONDS: i64 = 24 * 3600;

/// An object that may go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    pub key: String,
    /// Of its invocation.
    pub uid: String,
}

/// Whether an artefact that was written then may be one without its invocation. What is not ours stays.
pub fn candidate(key: &str, written: i64, now: i64) -> Option<Candidate> {
    let mut steps = key.split('/');
    let (root, _namespace, invocation) = (steps.next()?, steps.next()?, steps.next()?);
    let _digest = steps.next()?;
    let (_name, uid) = invocation.rsplit_once('_')?;
    let is_ours = root == ARTEFACTS && steps.next().is_none();
    (is_ours && is_older(written, now, ARTEFACT_AGE_SECONDS)).then(|| Candidate {
        key: key.to_owned(),
        uid: uid.to_owned(),
    })
}

/// Whether a part that was written then is of an upload that nobody goes on with.
pub fn is_abandoned(key: &str, written: i64, now: i64) -> bool {
    let is_ours = key
        .strip_prefix(PARTS)
        .is_some_and(|rest| rest.starts_with('/'));
    is_ours && is_older(written, now, PART_AGE_SECONDS)
}

fn is_older(written: i64, now: i64, seconds: i64) -> bool {
    now.saturating_sub(written) > seconds
}

/// Keys of those whose invocation is not there any more.
pub fn orphans(candidates: Vec<Candidate>, uids: &BTreeSet<String>) -> Vec<String> {
    let gone = candidates
        .into_iter()
        .filter(|candidate| !uids.contains(&candidate.uid));
    gone.map(|candidate| candidate.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    #[test]
    fn an_artefact_goes_an_hour_after_it_was_written_when_its_invocation_is_gone() {
        let key = "artefacts/kitchen/say-hi_1a-2b/ab";
        assert_eq!(candidate(key, 0, HOUR), None, "too young");
        assert_eq!(candidate(key, HOUR, 0), None, "from the future");
        let found = candidate(key, 0, HOUR + 1).unwrap();
        assert_eq!(found.uid, "1a-2b");
        let there = BTreeSet::from(["1a-2b".to_owned()]);
        assert_eq!(orphans(vec![found.clone()], &there), [""; 0]);
        assert_eq!(orphans(vec![found], &BTreeSet::new()), [key]);
    }

    #[test]
    fn what_somebody_else_put_there_stays() {
        for key in [
            "artefacts/kitchen/say-hi/ab",
            "artefacts/kitchen/say-hi_1a",
            "artefacts/kitchen/say-hi_1a/ab/cd",
            "backup/kitchen/say-hi_1a/ab",
            "parts/kitchen/1a/ab/00000000",
            "",
        ] {
            assert_eq!(candidate(key, 0, i64::MAX), None, "{key}");
        }
    }

    #[test]
    fn parts_go_after_a_day() {
        assert!(!is_abandoned("parts/kitchen/1a/ab/00000000", 0, 24 * HOUR));
        assert!(is_abandoned(
            "parts/kitchen/1a/ab/00000000",
            0,
            24 * HOUR + 1
        ));
        assert!(!is_abandoned("partsandmore/x", 0, i64::MAX));
        assert!(!is_abandoned("artefacts/kitchen/say-hi_1a/ab", 0, i64::MAX));
    }
}
