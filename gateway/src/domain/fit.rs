//! Whether the input of an invocation is what was granted, and what the device takes.

use serde_json::Value;
use surface::{MAX_CHECK_STEPS, Schema};

use super::{
    grants::{Permit, Standing},
    invocation::Input,
};

/// Steps to read one byte of an input.
const STEPS_PER_BYTE: usize = 3;

/// What is wrong with an input, for who sent it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fit {
    /// More than was granted.
    pub beyond_grant: Option<String>,
    /// Something that the device does not take.
    pub not_taken: Option<String>,
}

impl Fit {
    /// Checks an input with so many steps at most (see `surface`), and takes off those that it took. `None` where more are
    /// needed, which never happens with `u32::MAX`.
    pub fn of(input: &Input, standing: &Standing, steps: &mut u32) -> Option<Self> {
        let (Standing::Permitted(permit), Input::Json(input)) = (standing, input) else {
            return Some(Self::default());
        };
        let Permit {
            accepted, declared, ..
        } = permit;
        if accepted.is_none() && declared.is_none() {
            return Some(Self::default());
        }
        let to_read = u32::try_from(input.len() * STEPS_PER_BYTE).unwrap_or(u32::MAX);
        *steps = steps.checked_sub(to_read)?;
        let input = if input.is_empty() {
            Value::Null
        } else {
            match serde_json::from_slice(input) {
                Ok(input) => input,
                Err(_) => {
                    let unread = || "it is nested too deeply to be read".to_owned();
                    return Some(Self {
                        beyond_grant: accepted.as_ref().map(|_| unread()),
                        not_taken: declared.as_ref().map(|_| unread()),
                    });
                }
            }
        };
        Some(Self {
            beyond_grant: misfit(accepted.as_ref(), &input, steps)?,
            not_taken: misfit(declared.as_ref(), &input, steps)?,
        })
    }
}

fn misfit(schema: Option<&Schema>, input: &Value, steps: &mut u32) -> Option<Option<String>> {
    let Some(schema) = schema else {
        return Some(None);
    };
    let most = (*steps).min(MAX_CHECK_STEPS);
    let (checked, taken) = schema.check_counting(input, most);
    *steps -= taken;
    match checked {
        Err(mismatch) if mismatch.is_too_costly() && most < MAX_CHECK_STEPS => None,
        checked => Some(checked.err().map(|mismatch| mismatch.to_string())),
    }
}
