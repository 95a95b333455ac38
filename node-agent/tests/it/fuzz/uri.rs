//! What becomes of what is scanned or typed.

use pairing::uri::PairingUri;

/// A pairing URI, which its own text is too, or none.
pub fn scans(text: &str) {
    if let Ok(read) = text.parse::<PairingUri>() {
        assert_eq!(read.expose().parse(), Ok(read));
    }
}
