//! A session: a cookie and its CSRF token, made from the caller's token, kept here and nowhere else.
//!
//! One login at a time: who finds no session waits for the one that is being made. A session is given up by its number,
//! so that ten requests that find the same one ended make one new session, not ten.

use console_api::session::SESSION_COOKIE;
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};

/// Whether requests carry the token itself, or a session that is made from it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Authentication {
    /// The token, on every request. Nothing is kept, nothing ends.
    #[default]
    Token,
    /// A session, made when it is first needed and again when it has ended. The token crosses the wire once in hours.
    Session,
}

/// An open session.
#[derive(Clone)]
pub(crate) struct Open {
    /// Which of the sessions of this client it is.
    pub(crate) number: u64,
    cookie: HeaderValue,
    csrf: HeaderValue,
}

impl Open {
    pub(crate) fn new(number: u64, answer: &HeaderMap, csrf: Option<&str>) -> Result<Self> {
        let Change::Set(cookie) = change(answer) else {
            return Err(Error::Incomplete("session cookie"));
        };
        let mut csrf = csrf
            .and_then(|token| HeaderValue::from_str(token).ok())
            .ok_or(Error::Incomplete("CSRF token"))?;
        csrf.set_sensitive(true);
        Ok(Self {
            number,
            cookie,
            csrf,
        })
    }

    /// The headers of a request. The CSRF token goes with what changes something, and with nothing else.
    pub(crate) fn onto(&self, headers: &mut HeaderMap, changes: bool) {
        headers.insert(COOKIE, self.cookie.clone());
        if changes {
            headers.insert(console_api::session::CSRF_HEADER, self.csrf.clone());
        }
    }
}

/// The session of a client, if it has one.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) current: Option<Open>,
    /// How many there have been.
    pub(crate) made: u64,
}

impl Sessions {
    pub(crate) async fn lock(&self) -> MutexGuard<'_, State> {
        self.open.lock().await
    }

    /// That session has ended.
    pub(crate) async fn ended(&self, number: u64) {
        let mut state = self.open.lock().await;
        if state
            .current
            .as_ref()
            .is_some_and(|open| open.number == number)
        {
            state.current = None;
        }
    }

    /// What an answer to a request of that session says about its cookie: the console seals it anew from time to time.
    pub(crate) async fn learn(&self, number: u64, answer: &HeaderMap) {
        let change = change(answer);
        if matches!(change, Change::Kept) {
            return;
        }
        let mut state = self.open.lock().await;
        let Some(open) = state.current.as_mut().filter(|open| open.number == number) else {
            return;
        };
        match change {
            Change::Set(cookie) => open.cookie = cookie,
            Change::Removed => state.current = None,
            Change::Kept => {}
        }
    }
}

/// What an answer does to the cookie.
#[derive(Debug, Eq, PartialEq)]
enum Change {
    Kept,
    Set(HeaderValue),
    Removed,
}

/// Reads `Set-Cookie` (RFC 6265) of the one cookie that there is. Its attributes are for browsers: this client sends it to
/// the one origin that it came from, whatever they say; what they say about its end, the console says by itself.
fn change(headers: &HeaderMap) -> Change {
    let mut change = Change::Kept;
    for value in headers.get_all(SET_COOKIE) {
        let Ok(text) = value.to_str() else { continue };
        let mut parts = text.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            continue;
        };
        if name != SESSION_COOKIE {
            continue;
        }
        let removed = value.is_empty()
            || parts.any(|attribute| attribute.replace(' ', "").eq_ignore_ascii_case("max-age=0"));
        change = match HeaderValue::from_str(&format!("{name}={value}")) {
            Ok(mut cookie) if !removed => {
                cookie.set_sensitive(true);
                Change::Set(cookie)
            }
            Ok(_) | Err(_) => Change::Removed,
        };
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_kept_renewed_and_removed_as_the_console_says() {
        let answer = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SET_COOKIE, HeaderValue::from_str(value).unwrap());
            }
            change(&headers)
        };
        let set = |value: &'static str| Change::Set(HeaderValue::from_static(value));
        assert_eq!(answer(&[]), Change::Kept);
        assert_eq!(answer(&["other=1; Path=/"]), Change::Kept);
        assert_eq!(
            answer(&["__Host-fairlead-session=abc.def; Path=/; HttpOnly; Secure; SameSite=Strict"]),
            set("__Host-fairlead-session=abc.def")
        );
        assert_eq!(
            answer(&["other=1", "__Host-fairlead-session=a"]),
            set("__Host-fairlead-session=a")
        );
        assert_eq!(
            answer(&["__Host-fairlead-session=; Path=/"]),
            Change::Removed
        );
        assert_eq!(
            answer(&["__Host-fairlead-session=x; Max-Age=0"]),
            Change::Removed
        );
        assert_eq!(answer(&["__Host-fairlead-session"]), Change::Kept);
    }
}
