//! What becomes of a trust bundle that a gateway sends.

use pairing::{
    bundle::{Held, SignedBundle},
    key::KeyFingerprint,
};

/// Bytes that are the one encoding of a bundle, or none; and nobody's bundle to a device that holds none of its signers.
pub fn is_not_trusted(bytes: &[u8]) {
    let Ok(signed) = SignedBundle::from_bytes(bytes) else {
        return;
    };
    assert_eq!(signed.to_bytes(), bytes);
    let held = Held {
        trust_domain: "test.example",
        sequence: 0,
        authorities: &[],
    };
    signed.verify(&held).unwrap_err();
    let pin = KeyFingerprint::of_spki(b"ours");
    signed.verify_pinned(pin, "test.example").unwrap_err();
}
