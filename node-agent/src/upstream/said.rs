//! Which failures were logged already: a gateway that is away for a night is logged once. Pure.

use std::collections::BTreeMap;

/// Gateways that are remembered: more than are kept at once. Beyond that, all is logged anew.
const MAX_GATEWAYS: usize = 64;

/// The last failure of each gateway. Several gateways may fail in different ways, one after the other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said(BTreeMap<String, String>);

impl Said {
    /// Whether this gateway failed in another way the last time; remembers how it failed now.
    pub fn is_new(&mut self, gateway: &str, reason: &str) -> bool {
        if self.0.get(gateway).is_some_and(|last| last == reason) {
            return false;
        }
        if self.0.len() >= MAX_GATEWAYS {
            self.0.clear();
        }
        self.0.insert(gateway.to_owned(), reason.to_owned());
        true
    }

    /// Logs whatever comes next.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_that_fail_in_turn_and_differently_are_each_logged_once() {
        let mut said = Said::default();
        let rounds = [("a", "closed"), ("b", "silent")].repeat(5);
        let logged = rounds
            .iter()
            .filter(|(gateway, reason)| said.is_new(gateway, reason));
        assert_eq!(logged.count(), 2);
        assert!(said.is_new("a", "silent"));
        said.forget();
        assert!(said.is_new("a", "silent"));
        for number in 0..1000 {
            said.is_new(&number.to_string(), "closed");
        }
        assert!(said.0.len() <= MAX_GATEWAYS);
    }
}
