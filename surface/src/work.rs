//! How much a comparison or a check may cost.
//!
//! A **step** is the unit: a few nanoseconds, about the time to compare two short values. Everything whose count the author
//! of a schema or of a value controls is charged here before it is done: nodes, members of an `enum`, names, bytes of text,
//! characters given to a pattern. The count depends on the input alone, never on the machine, so a verdict is the same
//! wherever and whenever it is computed.

use std::cell::Cell;

/// Steps that are left of a bound.
#[derive(Debug)]
pub struct Work {
    bound: u32,
    left: Cell<u32>,
}

/// The bound is reached: there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spent;

impl Work {
    pub fn new(bound: u32) -> Self {
        Self {
            bound,
            left: Cell::new(bound),
        }
    }

    /// Charges steps that are about to be taken.
    ///
    /// # Errors
    /// [`Spent`] where fewer are left; none are left after that.
    pub fn spend(&self, steps: usize) -> Result<(), Spent> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(Spent)
    }

    /// Steps that were charged: at most the bound.
    pub fn steps(&self) -> u32 {
        self.bound - self.left.get()
    }
}

/// Steps to go through a text once.
pub fn of_text(bytes: usize) -> usize {
    1 + bytes / 16
}

/// Steps to find a name among so many that are in order.
pub fn of_lookup(among: usize, name: &str) -> usize {
    let compared = usize::try_from(usize::BITS - among.leading_zeros()).unwrap_or(usize::MAX);
    2 + compared * of_text(name.len())
}

/// Whether all hold.
pub fn all<T>(
    items: impl IntoIterator<Item = T>,
    mut holds: impl FnMut(T) -> Result<bool, Spent>,
) -> Result<bool, Spent> {
    for item in items {
        if !holds(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one holds.
pub fn any<T>(
    items: impl IntoIterator<Item = T>,
    mut holds: impl FnMut(T) -> Result<bool, Spent>,
) -> Result<bool, Spent> {
    for item in items {
        if holds(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_beyond_the_bound_leaves_nothing() {
        let work = Work::new(10);
        assert_eq!(work.spend(4), Ok(()));
        assert_eq!((work.spend(7), work.steps()), (Err(Spent), 10));
        assert_eq!(work.spend(1), Err(Spent));
        assert_eq!(Work::new(u32::MAX).spend(usize::MAX), Ok(()));
    }
}
