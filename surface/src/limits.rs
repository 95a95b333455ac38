//! Whether what is known of a value keeps it within the limits of numbers, of strings and of sizes.

use std::cmp::Ordering;

use serde_json::Number;

use crate::{
    facts::Facts,
    node::{Numbers, Strings},
    values,
    work::{Spent, Work, of_text},
};

pub fn at_least(old: Option<u64>, mut new: impl Iterator<Item = u64>) -> bool {
    old.is_none_or(|old| old == 0 || new.any(|new| new >= old))
}

pub fn at_most(old: Option<u64>, new: Option<u64>) -> bool {
    old.is_none_or(|old| new.is_some_and(|new| new <= old))
}

/// Looks at each fact a few times; the caller has charged that.
pub fn numbers_follow(facts: &Facts<'_>, old: &Numbers) -> bool {
    let Numbers {
        minimum,
        above,
        maximum,
        below,
        multiple_of,
    } = old;
    let any = |holds: &dyn Fn(&Numbers) -> bool| facts.rules().any(|rules| holds(&rules.numbers));
    let known = |new: &Option<Number>, old: &Number, holds: fn(Ordering) -> bool| {
        new.as_ref()
            .is_some_and(|new| holds(values::compare(new, old)))
    };
    let not_less = |old: &Number| {
        any(&|new| {
            known(&new.minimum, old, Ordering::is_ge) || known(&new.above, old, Ordering::is_ge)
        })
    };
    let more = |old: &Number| {
        any(&|new| {
            known(&new.minimum, old, Ordering::is_gt) || known(&new.above, old, Ordering::is_ge)
        })
    };
    let not_more = |old: &Number| {
        any(&|new| {
            known(&new.maximum, old, Ordering::is_le) || known(&new.below, old, Ordering::is_le)
        })
    };
    let less = |old: &Number| {
        any(&|new| {
            known(&new.maximum, old, Ordering::is_lt) || known(&new.below, old, Ordering::is_le)
        })
    };
    minimum.as_ref().is_none_or(not_less)
        && above.as_ref().is_none_or(more)
        && maximum.as_ref().is_none_or(not_more)
        && below.as_ref().is_none_or(less)
        && multiple_of
            .is_none_or(|old| any(&|new| new.multiple_of.is_some_and(|new| new % old == 0)))
}

pub fn strings_follow(facts: &Facts<'_>, old: &Strings, work: &Work) -> Result<bool, Spent> {
    let Strings { min, max, pattern } = old;
    let strings = || facts.rules().map(|rules| &rules.strings);
    if let Some(pattern) = pattern {
        work.spend(facts.steps() * of_text(pattern.text().len()))?;
    }
    Ok(at_least(*min, strings().filter_map(|strings| strings.min))
        && at_most(*max, strings().filter_map(|strings| strings.max).min())
        && (pattern.is_none() || strings().any(|strings| strings.pattern == *pattern)))
}
