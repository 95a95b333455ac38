//! How long a session lives, pure.

use jiff::{SignedDuration, Timestamp};

use super::{Sealed, SessionId};
use crate::caller::Token;

/// Whatever is done, it ends then.
pub const ABSOLUTE: SignedDuration = SignedDuration::from_hours(12);
/// Without a request for as long, it ends.
pub const IDLE: SignedDuration = SignedDuration::from_mins(30);
/// A cookie that is as old is sealed anew when it is used.
const REFRESH: SignedDuration = SignedDuration::from_mins(1);
/// Clocks of gateways may differ by as much.
pub const SKEW: SignedDuration = SignedDuration::from_mins(1);
/// Latest beginning of a session, from now. A logout ends sessions until [`SKEW`] from now, so the next session of the
/// user begins later than that.
const MOST_AHEAD: SignedDuration = SignedDuration::from_mins(3);

/// Returns a session that does not outlive its token. It counts as begun now, or just after `over`, the moment at or
/// before which all sessions of the user are over. Returns `None` if that moment is too far ahead: some clock is wrong.
pub fn begin(
    id: SessionId,
    token: Token,
    now: Timestamp,
    over: Option<Timestamp>,
) -> Option<Sealed> {
    let after = over.map(|over| over.saturating_add(SignedDuration::from_millis(1)));
    let issued_at = match after {
        Some(after) => now.max(after.ok()?),
        None => now,
    };
    if !is_near(issued_at, now, MOST_AHEAD) {
        return None;
    }
    // Seals have whole milliseconds for the beginning, and whole seconds for all else.
    let issued_at = Timestamp::from_millisecond(issued_at.as_millisecond()).unwrap_or(issued_at);
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let latest = now.saturating_add(ABSOLUTE).unwrap_or(Timestamp::MAX);
    let expires_at = token.expires_at().map_or(latest, |end| end.min(latest));
    Some(Sealed {
        id,
        token,
        issued_at,
        seen_at: now,
        expires_at,
    })
}

/// Whether a moment is in the past, or ahead by at most so much.
fn is_near(moment: Timestamp, now: Timestamp, ahead: SignedDuration) -> bool {
    moment
        .saturating_sub(ahead)
        .is_ok_and(|earliest| earliest <= now)
}

/// Whether it goes on.
pub fn is_alive(session: &Sealed, now: Timestamp) -> bool {
    // A session from the future is not alive: a clock was set back, and the session's ends cannot be believed.
    let begun =
        is_near(session.seen_at, now, SKEW) && is_near(session.issued_at, now, MOST_AHEAD + SKEW);
    begun && now < absolute_end(session) && now < idle_end(session)
}

/// When it ends whatever is done.
pub fn absolute_end(session: &Sealed) -> Timestamp {
    let end = session
        .issued_at
        .saturating_add(ABSOLUTE)
        .unwrap_or(Timestamp::MAX);
    end.min(session.expires_at)
}

/// When it ends if nothing is asked until then.
pub fn idle_end(session: &Sealed) -> Timestamp {
    let end = session
        .seen_at
        .saturating_add(IDLE)
        .unwrap_or(Timestamp::MAX);
    end.min(session.expires_at)
}

/// The session as it is to be sealed anew; `None` while the cookie is new enough.
pub fn refreshed(session: &Sealed, now: Timestamp) -> Option<Sealed> {
    let due = session
        .seen_at
        .saturating_add(REFRESH)
        .is_ok_and(|due| due <= now);
    due.then(|| Sealed {
        seen_at: now,
        ..session.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn session() -> Sealed {
        begin(
            SessionId::from_bytes([7; 16]),
            Token::new("opaque").unwrap(),
            at(0),
            None,
        )
        .unwrap()
    }

    #[test]
    fn one_that_is_not_used_ends_and_one_that_is_used_goes_on_to_its_absolute_end() {
        let mut session = session();
        assert!(is_alive(&session, at(1799)));
        assert!(!is_alive(&session, at(1800)));
        let mut seconds = 0;
        while seconds + 1700 < 12 * 3600 {
            seconds += 1700;
            assert!(is_alive(&session, at(seconds)));
            session = refreshed(&session, at(seconds)).unwrap();
        }
        assert!(is_alive(&session, at(12 * 3600 - 1)));
        assert!(!is_alive(&session, at(12 * 3600)));
        assert_eq!(idle_end(&session), session.expires_at);
    }

    #[test]
    fn it_does_not_outlive_its_token() {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let claims = format!(r#"{{"exp":{}}}"#, at(600).as_second());
        let jwt = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let session = begin(
            SessionId::from_bytes([7; 16]),
            Token::new(jwt).unwrap(),
            at(0),
            None,
        )
        .unwrap();
        assert!(is_alive(&session, at(599)));
        assert!(!is_alive(&session, at(600)));
    }

    #[test]
    fn a_cookie_is_sealed_anew_once_a_minute() {
        let session = session();
        assert_eq!(refreshed(&session, at(59)), None);
        assert_eq!(refreshed(&session, at(60)).unwrap().seen_at, at(60));
    }

    #[test]
    fn a_session_begins_after_the_logout_before_it_and_lasts_no_longer_for_it() {
        let after = |over: Timestamp| {
            begin(
                SessionId::from_bytes([7; 16]),
                Token::new("opaque").unwrap(),
                at(0),
                Some(over),
            )
        };
        let over = at(60);
        let session = after(over).unwrap();
        assert!(session.issued_at > over);
        assert!(is_alive(&session, at(0)));
        assert!(!is_alive(&session, at(12 * 3600)));
        assert_eq!(after(at(-5)).unwrap().issued_at, at(0));
        assert_eq!(after(at(180)), None);
        assert_eq!(after(Timestamp::MAX), None);
    }

    #[test]
    fn one_from_the_future_is_none() {
        assert!(is_alive(&session(), at(-60)));
        assert!(!is_alive(&session(), at(-61)));
    }
}
