//! What must hold of schemas, whoever made them.

use serde_json::Value;
use surface::{Schema, narrows};

/// What an input stands for: a schema; behind a NUL, which is in no JSON, another; behind one more, what is given to both.
pub fn try_parts(name: &str, bytes: &[u8], inputs: &[Value]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (one, other, input) = (part(), part(), part());
    let mut inputs = inputs.to_vec();
    inputs.extend(serde_json::from_slice::<Value>(input).ok());
    try_bytes(name, one, &inputs);
    try_bytes(name, other, &inputs);
    if let (Ok(one), Ok(other)) = (Schema::parse(one), Schema::parse(other)) {
        try_pair(&one, &other, &inputs);
        try_pair(&other, &one, &inputs);
    }
}

/// What holds for whatever is read as a schema, and whatever is given to it.
pub fn try_bytes(name: &str, bytes: &[u8], inputs: &[Value]) {
    let Ok(schema) = Schema::parse(bytes) else {
        return;
    };
    let again = Schema::parse(schema.text().as_bytes()).expect("its own text is a schema");
    assert_eq!(schema.text(), again.text(), "{name}");
    assert!(narrows(Some(&schema), Some(&again)), "{name}");
    for input in inputs {
        let is_taken = schema.check(input).is_ok();
        assert_eq!(is_taken, again.check(input).is_ok(), "{name} {input}");
    }
}

/// A schema is within itself, and what is within another accepts nothing that the other does not.
pub fn try_pair(new: &Schema, old: &Schema, inputs: &[Value]) {
    let (narrower, wider) = (new.text(), old.text());
    assert!(narrows(Some(new), Some(new)), "{narrower}");
    if narrows(Some(new), Some(old)) {
        for input in inputs {
            assert!(
                new.check(input).is_err() || old.check(input).is_ok(),
                "{input} is accepted by {narrower} and not by {wider}"
            );
        }
    }
}
