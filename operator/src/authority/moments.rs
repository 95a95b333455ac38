//! Conversions between the clocks of three libraries. X.509 counts whole seconds.

use jiff::Timestamp;
use time::OffsetDateTime;

/// The whole second that a moment is in.
pub fn whole_second(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// For rcgen. A moment that it cannot express becomes the beginning of time, which no verifier accepts.
pub fn to_rcgen(moment: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// From x509-parser. `None` beyond the year 9999.
pub fn from_x509(moment: x509_parser::time::ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(moment.timestamp()).ok()
}
