//! Where a value is not what a schema asks for, in words; and how the check reports that, or only that it is so.

use std::fmt;

use crate::{
    read::{escaped, shortened},
    work::Spent,
};

/// Most bytes of a place.
const MAX_PLACE: usize = 192;
/// Most bytes of what is expected there.
const MAX_EXPECTED: usize = 288;

/// Where a value is not what a schema asks for. The text names the place as a JSON Pointer (RFC 6901) and what is
/// expected there, in 512 bytes at most; it does not repeat what was there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Mismatch {
    at: String,
    expected: String,
    is_too_costly: bool,
}

impl Mismatch {
    /// JSON Pointer; empty for the whole value.
    pub fn place(&self) -> &str {
        &self.at
    }

    /// Whether nothing is known to be wrong with the value: to find out took too many steps.
    pub fn is_too_costly(&self) -> bool {
        self.is_too_costly
    }

    /// The value and the schema together are more than a check may cost.
    pub(crate) fn too_costly(steps: u32) -> Self {
        Self {
            at: String::new(),
            expected: format!(
                "cannot be checked: that takes more than {steps} steps; send less, or declare a schema with smaller \
                 patterns and fewer alternatives"
            ),
            is_too_costly: true,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.expected)
    }
}

/// The steps from the value to the part that is being checked.
pub struct Path<'a> {
    before: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Start,
    Name(&'a str),
    Index(usize),
}

impl Path<'_> {
    pub const START: Self = Self {
        before: None,
        step: Step::Start,
    };

    pub fn name<'a>(&'a self, name: &'a str) -> Path<'a> {
        Path {
            before: Some(self),
            step: Step::Name(name),
        }
    }

    pub fn index(&self, index: usize) -> Path<'_> {
        Path {
            before: Some(self),
            step: Step::Index(index),
        }
    }

    fn write(&self, into: &mut String) {
        if let Some(before) = self.before {
            before.write(into);
        }
        match self.step {
            Step::Start => {}
            Step::Name(name) => {
                into.push('/');
                into.push_str(&escaped(name));
            }
            Step::Index(index) => {
                into.push('/');
                into.push_str(&index.to_string());
            }
        }
    }
}

/// Why a check stops before its end.
pub enum Stop<M> {
    Misfit(M),
    Spent,
}

impl<M> From<Spent> for Stop<M> {
    fn from(Spent: Spent) -> Self {
        Self::Spent
    }
}

/// What a check makes of a misfit.
pub trait Report {
    type Misfit;
    /// Whether somebody reads the text.
    const IS_READ: bool;

    fn misfit(path: &Path<'_>, expected: impl FnOnce() -> String) -> Self::Misfit;
}

/// The answer is yes or no: no text is built.
pub enum Silent {}

impl Report for Silent {
    type Misfit = ();
    const IS_READ: bool = false;

    fn misfit(_: &Path<'_>, _: impl FnOnce() -> String) {}
}

/// The first misfit is described, and the check ends with it.
pub enum Told {}

impl Report for Told {
    type Misfit = Mismatch;
    const IS_READ: bool = true;

    fn misfit(path: &Path<'_>, expected: impl FnOnce() -> String) -> Mismatch {
        let mut at = String::new();
        path.write(&mut at);
        Mismatch {
            at: shortened(&at, MAX_PLACE),
            expected: shortened(&expected(), MAX_EXPECTED),
            is_too_costly: false,
        }
    }
}
