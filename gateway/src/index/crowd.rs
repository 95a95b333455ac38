//! The open invocations of a namespace, of which the oldest so many are within its bound.

use std::collections::BTreeSet;

/// Things in an order that no two of them share. All within are before all beyond.
pub struct Crowd<O> {
    most: usize,
    within: BTreeSet<O>,
    beyond: BTreeSet<O>,
}

impl<O: Copy + Ord> Crowd<O> {
    /// `most` are within.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            within: BTreeSet::new(),
            beyond: BTreeSet::new(),
        }
    }

    pub fn insert(&mut self, order: O) {
        if self.is_beyond(order) {
            self.beyond.insert(order);
            return;
        }
        self.within.insert(order);
        if self.within.len() > self.most
            && let Some(last) = self.within.pop_last()
        {
            self.beyond.insert(last);
        }
    }

    pub fn remove(&mut self, order: O) {
        if self.within.remove(&order) {
            self.within.extend(self.beyond.pop_first());
        } else {
            self.beyond.remove(&order);
        }
    }

    /// The first that has as many before it as may be; with none, all are within.
    pub fn first_beyond(&self) -> Option<O> {
        self.beyond.first().copied()
    }

    /// Whether what has that place has as many before it as may be.
    fn is_beyond(&self, order: O) -> bool {
        let is_after_all = self.within.last().is_none_or(|last| order > *last);
        is_after_all && self.within.len() >= self.most
    }

    pub fn is_empty(&self) -> bool {
        self.within.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u8),
        Remove(u8),
    }

    proptest! {
        #[test]
        fn beyond_are_all_but_the_first_so_many(
            most in 1_usize..6,
            steps in prop::collection::vec(
                prop_oneof![
                    (0_u8..12).prop_map(Step::Insert),
                    (0_u8..12).prop_map(Step::Remove),
                ],
                0..60,
            ),
        ) {
            let mut crowd = Crowd::new(most);
            let mut all = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(order) => {
                        crowd.insert(order);
                        all.insert(order);
                    }
                    Step::Remove(order) => {
                        crowd.remove(order);
                        all.remove(&order);
                    }
                }
                for (place, order) in all.iter().enumerate() {
                    prop_assert_eq!(crowd.is_beyond(*order), place >= most, "{} of {:?}", order, all);
                }
                prop_assert_eq!(crowd.first_beyond(), all.iter().nth(most).copied());
                prop_assert_eq!(crowd.is_empty(), all.is_empty());
            }
        }
    }
}
