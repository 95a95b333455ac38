//! The labels and surfaces that a device gets at approval. Pure; the names of its capabilities are `crds::grants`'.

use std::collections::BTreeMap;

use crds::v1alpha1::{DeclaredCapability, Grants};

/// What the approver gave, else what the code gives; never more than the code allows.
pub fn labels_at_approval(
    given: Option<&Grants>,
    ceiling: Option<&Grants>,
) -> BTreeMap<String, String> {
    let given = given
        .map(|grants| &grants.labels)
        .filter(|labels| !labels.is_empty());
    let wanted = given.or_else(|| ceiling.map(|grants| &grants.labels));
    let allowed = |key: &String, value: &String| {
        ceiling.is_none_or(|ceiling| ceiling.labels.get(key) == Some(value))
    };
    wanted
        .into_iter()
        .flatten()
        .filter(|(key, value)| allowed(key, value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The digests of what the request shows of the capabilities that are granted. One that it does not show is granted by
/// its name alone.
pub fn surfaces_at_approval(
    declared: &[DeclaredCapability],
    granted: &[String],
) -> BTreeMap<String, String> {
    declared
        .iter()
        .filter(|declared| granted.contains(&declared.name))
        .map(|declared| {
            let schema = declared.input_schema.as_deref();
            let digest = surface::digest(declared.execution.as_str(), schema);
            (declared.name.clone(), digest)
        })
        .collect()
}

/// The first label that Kubernetes would refuse.
pub fn wrong_label(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels
        .iter()
        .find(|(key, value)| !(is_key(key) && is_value(value)))
        .map(|(key, _)| key.as_str())
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|label| {
                is_word(label)
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
    };
    is_word(name) && name.len() <= 63 && prefix.is_none_or(is_prefix)
}

fn is_value(value: &str) -> bool {
    value.is_empty() || (is_word(value) && value.len() <= 63)
}

/// Letters and digits at both ends; dashes, dots and underscores within.
fn is_word(text: &str) -> bool {
    let at_the_ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    at_the_ends(bytes.first())
        && at_the_ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(labels: &[(&str, &str)]) -> Grants {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Grants {
            labels,
            capabilities: None,
        }
    }

    #[test]
    fn a_device_gets_the_labels_that_the_code_allows() {
        let site = grants(&[("site", "north"), ("tier", "1")]);
        for (given, ceiling, expected) in [
            (None, None, vec![]),
            (None, Some(&site), vec!["site", "tier"]),
            (
                Some(&grants(&[("site", "north")])),
                Some(&site),
                vec!["site"],
            ),
            (
                Some(&grants(&[("site", "south"), ("x", "y")])),
                Some(&site),
                vec![],
            ),
            (Some(&grants(&[("site", "south")])), None, vec!["site"]),
            (Some(&grants(&[])), Some(&site), vec!["site", "tier"]),
            (
                Some(&grants(&[("site", "north")])),
                Some(&grants(&[])),
                vec![],
            ),
        ] {
            let labels = labels_at_approval(given, ceiling);
            assert_eq!(
                labels.keys().collect::<Vec<_>>(),
                expected,
                "{given:?} {ceiling:?}"
            );
        }
    }

    #[test]
    fn labels_that_kubernetes_would_refuse_are_found() {
        for (key, value, right) in [
            ("site", "north-1", true),
            ("example.com/site", "", true),
            ("Example.com/site", "", false),
            ("a/b/c", "", false),
            ("", "x", false),
            ("-site", "x", false),
            ("site", "north 1", false),
            ("site", "-", false),
        ] {
            let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert_eq!(wrong_label(&labels).is_none(), right, "{key}={value}");
        }
    }
}
