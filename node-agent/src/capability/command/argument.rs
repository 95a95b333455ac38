//! Arguments of a declared command: literal ones, and ones that come from the input.
//!
//! There is no shell and no quoting. A placeholder is a whole argument, so what comes from the input is one argument
//! whatever is in it.

use std::fmt;

use serde_json::Value;

/// One argument, as declared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Argument {
    Literal(String),
    /// `{input.a.b}`: what is found there, by keys of objects and indices of arrays.
    Input(Vec<String>),
}

/// What ends the options of most programs.
const END_OF_OPTIONS: &str = "--";

impl Argument {
    /// Reads an argument; fails with what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("an argument cannot contain the character NUL".to_owned());
        }
        if !text.contains("{input") {
            return Ok(Self::Literal(text.to_owned()));
        }
        let inner = text
            .strip_prefix("{input")
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|inner| !inner.contains(['{', '}']))
            .ok_or_else(|| {
                format!(
                    "{text:?}: a placeholder is a whole argument, such as {{input.name}}, with nothing before or after it"
                )
            })?;
        if inner.is_empty() {
            return Ok(Self::Input(Vec::new()));
        }
        let steps: Option<Vec<String>> = inner.strip_prefix('.').and_then(|path| {
            let steps = path.split('.').map(str::to_owned);
            let steps: Vec<String> = steps.collect();
            steps.iter().all(|step| is_step(step)).then_some(steps)
        });
        steps.map(Self::Input).ok_or_else(|| {
            format!(
                "{text:?}: after {{input comes a path of letters, digits, - and _, its steps separated by dots"
            )
        })
    }
}

fn is_step(step: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !step.is_empty() && step.chars().all(fits)
}

/// As it is declared.
impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Input(steps) => {
                f.write_str("{input")?;
                for step in steps {
                    write!(f, ".{step}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// The arguments of one run. Fails with what is wrong with the input.
pub fn fill(arguments: &[Argument], input: &Value) -> Result<Vec<String>, String> {
    let mut options_ended = false;
    let mut filled = Vec::with_capacity(arguments.len());
    for argument in arguments {
        filled.push(match argument {
            Argument::Literal(text) => {
                options_ended |= text == END_OF_OPTIONS;
                text.clone()
            }
            Argument::Input(steps) => {
                let place = place(steps);
                let text = text_of(find(input, steps), &place)?;
                // Who may invoke a capability may not thereby choose options of the program behind it.
                if text.starts_with('-') && !options_ended {
                    return Err(format!(
                        "{place} begins with -, and could be taken for an option: this capability does not accept that"
                    ));
                }
                text
            }
        });
    }
    Ok(filled)
}

fn place(steps: &[String]) -> String {
    if steps.is_empty() {
        "the input".to_owned()
    } else {
        format!("input.{}", steps.join("."))
    }
}

fn find<'a>(input: &'a Value, steps: &[String]) -> Option<&'a Value> {
    steps.iter().try_fold(input, |value, step| match value {
        Value::Object(object) => object.get(step),
        Value::Array(array) => array.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn text_of(value: Option<&Value>, place: &str) -> Result<String, String> {
    let wanted = "give a string, a number or a boolean";
    match value {
        None => Err(format!("{place} is missing: {wanted}")),
        Some(Value::String(text)) if text.contains('\0') => {
            Err(format!("{place} contains the character NUL"))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(boolean)) => Ok(boolean.to_string()),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) => {
            Err(format!("{place} is none that can be an argument: {wanted}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(arguments: &[&str]) -> Vec<Argument> {
        let parsed = arguments.iter().map(|text| Argument::parse(text).unwrap());
        parsed.collect()
    }

    #[test]
    fn a_placeholder_is_a_whole_argument() {
        for text in [
            "--name={input.name}",
            "{input.name} ",
            "{input.name}{input.name}",
            "{input.}",
            "{input..a}",
            "{input.a b}",
            "{inputs}",
            "{input",
            "{input.name",
            "{input.{input}}",
        ] {
            assert!(Argument::parse(text).is_err(), "{text}");
        }
        for text in [
            "",
            "-v",
            "{print $1}",
            "{}",
            "input.name",
            "a b",
            "{input.a-b.0.c_d}",
            "{input}",
        ] {
            assert_eq!(Argument::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_comes_from_the_input_is_one_argument_whatever_is_in_it() {
        let arguments = parse(&["a b", "{input.who.name}", "{input.list.1}", "{input.on}"]);
        let odd = "x y\t'\"`$(touch x); rm -r / #\n*";
        let input = json!({"who": {"name": odd}, "list": [1, 2.5], "on": true});
        assert_eq!(
            fill(&arguments, &input).unwrap(),
            ["a b", odd, "2.5", "true"]
        );
        assert_eq!(fill(&parse(&["{input}"]), &json!(7)).unwrap(), ["7"]);
    }

    #[test]
    fn what_is_no_scalar_is_refused_with_its_place() {
        let arguments = parse(&["{input.a.b}"]);
        for (input, says) in [
            (json!({}), "input.a.b is missing"),
            (json!({"a": "b"}), "input.a.b is missing"),
            (json!(null), "input.a.b is missing"),
            (json!({"a": {"b": null}}), "input.a.b is none"),
            (json!({"a": {"b": [1]}}), "input.a.b is none"),
            (json!({"a": {"b": {}}}), "input.a.b is none"),
            (json!({"a": {"b": "x\u{0}"}}), "NUL"),
        ] {
            let error = fill(&arguments, &input).unwrap_err();
            assert!(error.contains(says), "{input}: {error}");
        }
    }

    #[test]
    fn the_input_chooses_no_options() {
        let input = json!({"file": "--delete"});
        let error = fill(&parse(&["ls", "{input.file}"]), &input).unwrap_err();
        assert!(error.contains("option"), "{error}");
        assert_eq!(
            fill(&parse(&["--", "{input.file}"]), &input).unwrap(),
            ["--", "--delete"]
        );
        assert!(fill(&parse(&["{input}", "--"]), &json!(-1)).is_err());
    }
}
