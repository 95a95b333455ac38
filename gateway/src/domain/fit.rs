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
        let text: &[u8] = if input.is_empty() { b"null" } else { input };
        let Ok(input) = serde_json::from_slice::<Value>(text) else {
            let unread = |_: &Schema| "it is nested too deeply to be read".to_owned();
            return Some(Self {
                beyond_grant: accepted.as_ref().map(unread),
                not_taken: declared.as_ref().map(unread),
            });
        };
        let mut misfit = |schema: &Option<Schema>| match schema {
            Some(schema) => checked(schema, &input, steps),
            None => Ok(None),
        };
        Some(Self {
            beyond_grant: misfit(accepted).ok()?,
            not_taken: misfit(declared).ok()?,
        })
    }
}

/// The check needs more steps than there are.
struct NotChecked;

/// Says what is wrong with the input, if anything.
fn checked(schema: &Schema, input: &Value, steps: &mut u32) -> Result<Option<String>, NotChecked> {
    let most = (*steps).min(MAX_CHECK_STEPS);
    let (checked, taken) = schema.check_counting(input, most);
    *steps -= taken;
    match checked {
        Err(mismatch) if mismatch.is_too_costly() && most < MAX_CHECK_STEPS => Err(NotChecked),
        checked => Ok(checked.err().map(|mismatch| mismatch.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn permitted(accepted: Option<&str>, declared: Option<&str>) -> Standing {
        let read = |text: Option<&str>| text.map(|text| Schema::parse(text.as_bytes()).unwrap());
        Standing::Permitted(Permit {
            accepted: read(accepted),
            declared: read(declared),
            mediate: false,
        })
    }

    fn input(value: &Value) -> Input {
        Input::Json(value.to_string().into_bytes().into())
    }

    #[test]
    fn each_schema_says_what_it_has_against_an_input() {
        let standing = permitted(Some(r#"{"maximum":5}"#), Some(r#"{"type":"integer"}"#));
        let of = |value: Value| Fit::of(&input(&value), &standing, &mut { u32::MAX }).unwrap();
        assert_eq!(of(json!(5)), Fit::default());
        let fit = of(json!(6));
        assert!(fit.beyond_grant.is_some() && fit.not_taken.is_none());
        let fit = of(json!(0.5));
        assert!(fit.beyond_grant.is_none() && fit.not_taken.is_some());
        let deep = Input::Json("[".repeat(200).into_bytes().into());
        let fit = Fit::of(&deep, &standing, &mut { u32::MAX }).unwrap();
        assert!(fit.beyond_grant.is_some() && fit.not_taken.is_some());
        let anything = permitted(None, None);
        assert_eq!(
            Fit::of(&deep, &anything, &mut 0),
            Some(Fit::default()),
            "there is nothing to check"
        );
    }

    #[test]
    fn an_input_that_needs_more_steps_than_there_are_is_judged_with_all_of_them() {
        let slow = r#"{"pattern":"[a-z]{1,253}[0-9]"}"#;
        let standing = permitted(Some(slow), Some(slow));
        let host = input(&json!(format!("{}1", "a".repeat(100))));
        let mut few = 200_000;
        assert_eq!(Fit::of(&host, &standing, &mut few), None);
        assert!(few < 200_000, "the attempt is paid for");
        assert_eq!(
            Fit::of(&host, &standing, &mut { u32::MAX }),
            Some(Fit::default())
        );
        let endless = input(&json!("a".repeat(30_000)));
        let fit = Fit::of(&endless, &standing, &mut { u32::MAX }).unwrap();
        let says = fit.beyond_grant.unwrap();
        assert!(says.contains("cannot be checked"), "{says}");
    }
}
