//! What becomes of the output of a capability.

use gateway::domain::result::End;
use proto::node;
use sha2::{Digest as _, Sha256};

const MAX_OUTPUT: i64 = 262_144;

/// An output that can be stored, or a failure.
pub fn prints(output: Vec<u8>) {
    let mut result = node::Result {
        output_sha256: Sha256::digest(&output).to_vec(),
        output,
        ..node::Result::default()
    };
    result.set_outcome(node::Outcome::Succeeded);
    let end = End::reported(&result, MAX_OUTPUT);
    let Some(value) = end.output else {
        return assert!(end.error.is_some() || result.output.is_empty());
    };
    // It goes to the API server and comes back.
    let written = serde_json::to_vec(&value).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&read).unwrap(), written);
}
