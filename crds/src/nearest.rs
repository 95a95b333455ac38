//! Which of several names a mistyped one stands for. Pure.

/// Edits that a mistyped name may be away from the name that is meant.
const MOST_EDITS: usize = 3;
/// Names that are compared. A Device declares at most 128 capabilities.
const MOST_NAMES: usize = 1024;

/// Returns the name that `typed` is most likely a mistyping of, or `None` where no name is near.
///
/// Near means: at most one edit for each three characters of `typed`, and at most three. An edit inserts, removes or
/// replaces a character, or swaps two neighbours.
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (typed.chars().count() / 3).clamp(1, MOST_EDITS);
    names
        .into_iter()
        .take(MOST_NAMES)
        .filter(|name| name.len().abs_diff(typed.len()) <= 4 * MOST_EDITS)
        .map(|name| (strsim::osa_distance(typed, name), name))
        .filter(|(edits, _)| (1..=most).contains(edits))
        .min()
        .map(|(_, name)| name)
}

/// The question after an error about a name: `; did you mean NAME?`, or an empty text where no name is near.
pub fn did_you_mean<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, names).map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_recognised_and_another_one_is_not() {
        let names = ["echo", "system.health", "system.identity", "a"];
        for (typed, meant) in [
            ("sytem.health", Some("system.health")),
            ("system.haelth", Some("system.health")),
            ("ehco", Some("echo")),
            ("ech", Some("echo")),
            ("door.open", None),
            ("system.health", None),
            ("zz", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
        assert_eq!(did_you_mean("ehco", names), "; did you mean echo?");
        assert_eq!(did_you_mean("door.open", names), "");
    }

    #[test]
    fn a_name_of_any_length_is_compared_within_bounds() {
        let long = "x".repeat(100_000);
        assert_eq!(nearest("echo", [long.as_str()]), None);
        assert_eq!(nearest(&long, ["echo"]), None);
    }
}
