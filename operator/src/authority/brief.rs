//! Makes devices' certificates shorter than anybody may, so that a test sees one renewed by the clock. In debug builds
//! alone, and where the environment asks for it.

use jiff::SignedDuration;

/// Asks for it: seconds from now on.
const SWITCH: &str = "FAIRLEAD_TEST_CERTIFICATE_SECONDS";

/// How long a certificate is valid that is to be valid so long.
pub fn life(wanted: SignedDuration) -> SignedDuration {
    let said = std::env::var(SWITCH).ok();
    let seconds = said.and_then(|said| said.parse::<u32>().ok());
    seconds.map_or(wanted, |seconds| SignedDuration::from_secs(seconds.into()))
}
