//! What was computed about surfaces before: every session of a device, and every device like it, asks for the same again.
//!
//! The same question has the same answer at any time, so an answer that was dropped is computed again and nothing else
//! changes. An attacker who fills the memory costs others the time to compute, never a wrong answer.

use std::fmt;

use crds::v1alpha1::Execution;
use moka::sync::Cache;
use surface::{Schema, digest_of_canonical, narrows};

/// Most verdicts that are kept, some 300 bytes each.
const MAX_VERDICTS: u64 = 16_384;

/// How a capability is started, and what it takes: canonical JSON, as gateways read and write it.
#[derive(Clone, Copy)]
pub struct Surface<'a> {
    pub execution: Execution,
    pub input_schema: Option<&'a str>,
}

impl Surface<'_> {
    /// Of its schema.
    pub fn bytes(self) -> usize {
        self.input_schema.map_or(0, str::len)
    }

    /// As a grant names it. That of a text that is not canonical, which no gateway wrote, is named by no grant.
    pub fn digest(self) -> String {
        digest_of_canonical(self.execution.as_str(), self.input_schema)
    }
}

/// Which of two surfaces is within the other. Bounded; cheap to clone, and clones share what they know.
#[derive(Clone)]
pub struct Known(Cache<[String; 2], bool>);

impl Default for Known {
    fn default() -> Self {
        Self(Cache::new(MAX_VERDICTS))
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

impl Known {
    /// Whether the new surface is sure to be no more than the old one. Two schemas that cannot be compared within the bound
    /// of a comparison are not.
    pub fn is_within(&self, new: Surface<'_>, old: Surface<'_>) -> bool {
        let key = [new.digest(), old.digest()];
        if let Some(verdict) = self.0.get(&key) {
            return verdict;
        }
        let verdict = is_within(new, old);
        self.0.insert(key, verdict);
        verdict
    }

    /// How many verdicts are kept.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

fn is_within(new: Surface<'_>, old: Surface<'_>) -> bool {
    let asks_nobody_any_more =
        old.execution == Execution::Mediated && new.execution == Execution::Automatic;
    if asks_nobody_any_more {
        return false;
    }
    match (read(new.input_schema), read(old.input_schema)) {
        (Ok(new), Ok(old)) => narrows(new.as_ref(), old.as_ref()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Reads the schema of a surface.
pub fn read(schema: Option<&str>) -> Result<Option<Schema>, surface::Invalid> {
    schema
        .map(|text| Schema::parse(text.as_bytes()))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automatic(text: &str) -> Surface<'_> {
        Surface {
            execution: Execution::Automatic,
            input_schema: Some(text),
        }
    }

    #[test]
    fn the_same_pair_is_compared_once_and_each_order_is_a_pair_of_its_own() {
        let known = Known::default();
        let (small, large) = (automatic(r#"{"maximum":1}"#), automatic(r#"{"maximum":2}"#));
        for _ in 0..3 {
            assert!(known.is_within(small, large));
            assert!(!known.is_within(large, small));
        }
        assert_eq!(known.count(), 2);
        let mediated = Surface {
            execution: Execution::Mediated,
            ..small
        };
        assert!(known.is_within(mediated, small));
        assert!(!known.is_within(small, mediated), "it asks nobody any more");
        let anything = Surface {
            input_schema: None,
            ..small
        };
        assert!(known.is_within(small, anything));
        assert!(!known.is_within(anything, small));
    }
}
