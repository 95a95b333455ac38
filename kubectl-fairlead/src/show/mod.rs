//! How things are shown: tables for people, JSON and YAML for programs. Pure, but for the writing itself.

pub mod age;
pub mod table;

use std::io::{self, Write};

use clap::ValueEnum;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use crate::terminal::Colours;

/// `-o`, as kubectl has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    Json,
    Yaml,
    /// More columns.
    Wide,
    /// `KIND.GROUP/NAME`.
    Name,
    /// Of an invocation: its output and nothing else.
    Raw,
}

/// How the caller wants to see things.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub format: Option<Format>,
    pub colours: Colours,
    /// Whether objects are shown with `metadata.managedFields`.
    pub managed_fields: bool,
}

impl Shown {
    pub fn new(format: Option<Format>, managed_fields: bool) -> Self {
        Self {
            format,
            managed_fields,
            colours: Colours::of_stdout(),
        }
    }

    pub fn is_wide(self) -> bool {
        self.format == Some(Format::Wide)
    }

    /// Objects as a program reads them; `None` where the caller wants a table.
    pub fn for_programs<K>(self, objects: &[K], many: Many) -> anyhow::Result<Option<String>>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Ok(match self.format {
            None | Some(Format::Wide | Format::Raw) => None,
            Some(Format::Name) => Some(objects.iter().map(|object| name(object) + "\n").collect()),
            Some(Format::Json) => Some(pretty(&self.document(objects, many)?)?),
            Some(Format::Yaml) => Some(yaml(&self.document(objects, many)?)?),
        })
    }

    /// Anything else, as a program reads it; `None` where the caller wants a table.
    pub fn value_for_programs(self, value: &impl Serialize) -> anyhow::Result<Option<String>> {
        Ok(match self.format {
            None | Some(Format::Wide | Format::Raw | Format::Name) => None,
            Some(Format::Json) => Some(pretty(&serde_json::to_value(value)?)?),
            Some(Format::Yaml) => Some(yaml(&serde_json::to_value(value)?)?),
        })
    }

    /// One object by itself, several in a `List`, as kubectl does.
    fn document<K>(self, objects: &[K], many: Many) -> anyhow::Result<Value>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let values = objects.iter().map(|object| {
            let mut value = whole(object)?;
            let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
            if let (Some(metadata), false) = (metadata, self.managed_fields) {
                metadata.remove("managedFields");
            }
            Ok(value)
        });
        let mut values = values.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(match (many, values.len()) {
            (Many::One, 1) => values.remove(0),
            (Many::One | Many::List, _) => {
                json!({"apiVersion": "v1", "kind": "List", "items": values})
            }
        })
    }
}

/// Whether a list was asked for, however long it is, or one object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Many {
    List,
    One,
}

/// Writes to standard output.
pub fn out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard error: what is said beside the result.
pub fn note(text: &str) {
    // Who closed standard error does not want to know.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let kind = K::kind(&()).to_ascii_lowercase();
    format!("{kind}.{}/{}", K::group(&()), object.name_any())
}

/// With kind and version, which objects of a list come without.
fn whole<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
        fields.insert("kind".to_owned(), K::kind(&()).into());
    }
    Ok(value)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn yaml(value: &Value) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value)?;
    Ok(if text.ends_with('\n') {
        text
    } else {
        text + "\n"
    })
}

/// What somebody wrote into an object and that is shown in a terminal: control characters would be orders to that, and
/// what has no width or turns the direction of writing would let one name look like another.
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|character| {
            if surface::is_deceptive(character) {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crds::Device;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    use super::*;

    fn device(name: &str) -> Device {
        Device::new(name, crds::v1alpha1::DeviceSpec::default())
    }

    fn shown(format: Format) -> Shown {
        Shown {
            format: Some(format),
            colours: Colours::Off,
            managed_fields: false,
        }
    }

    #[test]
    fn who_set_which_field_is_shown_only_on_request() {
        let mut object = device("a");
        object.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        let plain = shown(Format::Yaml);
        let read = |shown: Shown| {
            let objects = std::slice::from_ref(&object);
            shown.for_programs(objects, Many::One).unwrap().unwrap()
        };
        assert!(!read(plain).contains("managedFields"));
        let all = Shown {
            managed_fields: true,
            ..plain
        };
        assert!(read(all).contains("managedFields"));
    }

    #[test]
    fn names_are_such_as_kubectl_takes() {
        let text = shown(Format::Name).for_programs(&[device("a"), device("b")], Many::List);
        assert_eq!(
            text.unwrap().unwrap(),
            "device.fairlead.dev/a\ndevice.fairlead.dev/b\n"
        );
    }

    #[test]
    fn one_object_stands_alone_and_a_list_is_one_however_short() {
        let read = |many| -> Value {
            let text = shown(Format::Json)
                .for_programs(&[device("a")], many)
                .unwrap()
                .unwrap();
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(read(Many::One)["kind"], "Device");
        assert_eq!(read(Many::One)["apiVersion"], "fairlead.dev/v1alpha1");
        assert_eq!(read(Many::List)["kind"], "List");
        assert_eq!(read(Many::List)["items"][0]["kind"], "Device");
        let yaml = shown(Format::Yaml)
            .for_programs(&[device("a")], Many::One)
            .unwrap()
            .unwrap();
        assert!(yaml.contains("kind: Device\n"), "{yaml}");
    }

    #[test]
    fn a_host_name_gives_no_orders_to_the_terminal() {
        assert_eq!(harmless("kiosk\u{1b}[2J\n"), "kiosk\u{fffd}[2J\u{fffd}");
        assert_eq!(harmless("a\u{202e}b\u{200b}ü"), "a\u{fffd}b\u{fffd}ü");
    }
}
