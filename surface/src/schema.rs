//! A schema, read and bounded.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    canonical, check,
    mismatch::{Mismatch, Stop},
    node::Node,
    read::{self, Invalid},
    work::Work,
};

/// Longest schema, in bytes of JSON text.
pub const MAX_SCHEMA_BYTES: usize = 4096;
/// Most memory of the regular expressions in all schemas of one device ([`Schema::pattern_bytes`]): each takes time to be
/// read, however short it is written.
pub const MAX_DEVICE_PATTERN_BYTES: usize = 1024 * 1024;
/// Most steps of a check: an input that needs more is refused.
pub const MAX_CHECK_STEPS: u32 = 1_500_000;

/// A JSON Schema that was found to be one. Cheap to clone; a few kilobytes at most.
#[derive(Clone, Debug)]
pub struct Schema {
    root: Arc<Node>,
    pattern_bytes: usize,
    text: Arc<str>,
}

impl Schema {
    /// Reads a schema: JSON text of [`MAX_SCHEMA_BYTES`] at most, nested 16 levels deep, with references to
    /// `#/$defs/NAME` alone, none of them in a circle, 256 schemas once every reference is written out, and regular
    /// expressions that are matched in linear time. Whatever the text is, this is done in milliseconds.
    ///
    /// # Errors
    /// What is wrong and where, for who wrote it.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let value = read::json(text)?;
        let (root, pattern_bytes) = read::node(&value)?;
        let text = canonical::text(&value).ok_or_else(|| {
            let what = "a number in it has no one way to be written: use another one";
            Invalid::at("", what)
        })?;
        read::fits(text.len())?;
        if text.chars().any(is_deceptive) {
            let what = "it has characters in it that change how it is shown: leave them out";
            return Err(Invalid::at("", what));
        }
        Ok(Self {
            root,
            pattern_bytes,
            text: text.into(),
        })
    }

    /// The same schema as JSON text without white space, in the one order of keys (RFC 8785): [`MAX_SCHEMA_BYTES`] at
    /// most, without control characters.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Memory of its regular expressions, in bytes: 64 KiB at most.
    pub fn pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// Whether the value is what the schema asks for.
    ///
    /// # Errors
    /// The first place where it is not, and what is expected there; or that to find out takes more than
    /// [`MAX_CHECK_STEPS`].
    pub fn check(&self, value: &Value) -> Result<(), Mismatch> {
        self.check_counting(value, MAX_CHECK_STEPS).0
    }

    /// As [`Self::check`] with another bound, and with the steps that it took.
    pub fn check_counting(&self, value: &Value, most: u32) -> (Result<(), Mismatch>, u32) {
        let work = Work::new(most);
        let checked = match check::check(&self.root, value, &work) {
            Ok(()) => Ok(()),
            Err(Stop::Misfit(mismatch)) => Err(mismatch),
            Err(Stop::Spent) => Err(Mismatch::too_costly(most)),
        };
        (checked, work.steps())
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}

/// Two are equal where their texts are.
impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schema {}

/// Whether a terminal or a window shows something else than the character: control characters (C0, DEL, C1), characters
/// that turn the direction of writing or have no width, and separators of lines and paragraphs. A text of a device is
/// shown to the person who decides about it, and must not read as another one.
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
