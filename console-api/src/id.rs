//! How an object of a namespace is named in a path: `NAMESPACE.NAME`.
//!
//! A namespace is a DNS label (RFC 1123) and has no dot, so the first dot is the boundary, whatever the name is. No
//! character of either needs escaping in a URL.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name of a namespace.
const MAX_NAMESPACE: usize = 63;
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// Namespace and name of an object. Both are such as Kubernetes takes, so they can stand in a path.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectId {
    namespace: String,
    name: String,
}

/// What is no id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("give NAMESPACE.NAME: lower-case letters, digits and dashes, in the name also dots")]
pub struct InvalidId;

impl ObjectId {
    /// # Errors
    /// Where Kubernetes would not take one of the two as a name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, InvalidId> {
        let (namespace, name) = (namespace.into(), name.into());
        if is_namespace(&namespace) && is_name(&name) {
            Ok(Self { namespace, name })
        } else {
            Err(InvalidId)
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether Kubernetes takes it as the name of a namespace (RFC 1123 label).
pub fn is_namespace(text: &str) -> bool {
    text.len() <= MAX_NAMESPACE && is_label(text)
}

/// Whether Kubernetes takes it as the name of an object (RFC 1123 subdomain).
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

impl FromStr for ObjectId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (namespace, name) = text.split_once('.').ok_or(InvalidId)?;
        Self::new(namespace, name)
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::{
        PartialSchema, ToSchema,
        openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
    };

    use super::ObjectId;

    impl PartialSchema for ObjectId {
        fn schema() -> RefOr<Schema> {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some("Namespace and name of an object: NAMESPACE.NAME"))
                .max_length(Some(super::MAX_NAMESPACE + 1 + super::MAX_NAME))
                .pattern(Some(
                    r"^(?!.*(\.\.|\.-|-\.))[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$",
                ))
                .examples([serde_json::json!("workshop.kiosk-7")])
                .into()
        }
    }

    impl ToSchema for ObjectId {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dot_parts_namespace_and_name() {
        let id: ObjectId = "workshop.kiosk.7".parse().unwrap();
        assert_eq!((id.namespace(), id.name()), ("workshop", "kiosk.7"));
        assert_eq!(id.to_string(), "workshop.kiosk.7");
    }

    #[test]
    fn what_could_not_stand_in_a_path_is_no_id() {
        for bad in [
            "",
            "kiosk",
            ".kiosk",
            "workshop.",
            "workshop./",
            "workshop..kiosk",
            "Workshop.kiosk",
            "workshop.kiosk/status",
            "workshop.ki osk",
            "-w.kiosk",
            "workshop.%2e",
            "workshop.kiosk-",
        ] {
            assert_eq!(bad.parse::<ObjectId>(), Err(InvalidId), "{bad}");
        }
        assert!(format!("{}.a", "n".repeat(64)).parse::<ObjectId>().is_err());
        assert!(
            format!("n.{}", "a".repeat(254))
                .parse::<ObjectId>()
                .is_err()
        );
    }
}
