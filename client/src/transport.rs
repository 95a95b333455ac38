//! How a request is made: credentials, session, tries, bounds. Everything else in this crate says only what is asked.

use std::time::Duration;

use backon::BackoffBuilder as _;
use bytes::{Bytes, BytesMut};
use console_api::{
    problem::Problem,
    routes,
    session::{Login, Session},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use reqwest::Response;
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use crate::{
    builder::{Limits, Timeouts},
    credentials::Credentials,
    error::{Error, Result},
    retry::Retries,
    session::{Open, Sessions},
};

/// Most bytes of a problem: one with more is none.
const MAX_PROBLEM_BYTES: usize = 256 * 1024;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the clones of a client share.
pub(crate) struct Inner {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) credentials: Credentials,
    pub(crate) sessions: Option<Sessions>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retries: Retries,
    pub(crate) limits: Limits,
}

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Again {
    /// It changes nothing, or carries an idempotency key.
    Safe,
    /// It might be done twice.
    Never,
}

/// A request, before anybody's credentials are on it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    again: Again,
    /// How much longer than usual the answer may take.
    patience: Duration,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, Again::Safe)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path, Again::Never)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, Again::Never)
    }

    fn new(method: Method, path: impl Into<String>, again: Again) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            again,
            patience: Duration::ZERO,
        }
    }

    /// A query of `console_api::query`.
    pub(crate) fn query(mut self, query: &impl Serialize) -> Result<Self> {
        self.query.extend(pairs(query)?);
        Ok(self)
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Error::Usage(format!("what is to be sent is no JSON: {error}")))?;
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Some(bytes.into());
        Ok(self)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Error::Usage(format!("the header {name} cannot have that value")))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// With the key, the console does it once, however often it is asked.
    pub(crate) fn once(mut self, key: &str) -> Result<Self> {
        self.again = Again::Safe;
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Only if the object is still as the caller saw it.
    pub(crate) fn if_seen(self, resource_version: Option<&str>) -> Result<Self> {
        match resource_version {
            Some(version) => self.header(http::header::IF_MATCH, &format!("\"{version}\"")),
            None => Ok(self),
        }
    }

    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn changes(&self) -> bool {
        self.method != Method::GET
    }
}

/// A query as pairs. Its types are flat: texts, numbers, enums that are texts.
fn pairs(query: &impl Serialize) -> Result<Vec<(String, String)>> {
    let wrong = || Error::Usage("that query cannot be written".to_owned());
    let serde_json::Value::Object(fields) = serde_json::to_value(query).map_err(|_| wrong())?
    else {
        return Err(wrong());
    };
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => Ok((name, text)),
            serde_json::Value::Number(number) => Ok((name, number.to_string())),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => Err(wrong()),
        })
        .collect()
}

impl Inner {
    /// Asks and reads the answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T> {
        let bytes = self.again(ask).await?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Answer {
            path: ask.path.clone(),
            source,
        })
    }

    /// Asks for something that has no answer but that it was done.
    pub(crate) async fn done(&self, ask: &Ask) -> Result<()> {
        self.again(ask).await.map(drop)
    }

    /// Asks and gives the answer as it begins; the caller reads it, within bounds of his own. One try: who goes on where
    /// a stream broke knows better what to ask for then.
    pub(crate) async fn stream(&self, ask: &Ask) -> Result<Response> {
        let within = self.timeouts.request;
        tokio::time::timeout(within, self.with_session(ask, None))
            .await
            .map_err(|_| Error::Timeout(within))?
    }

    /// Tries again where it can do no harm, as often and as late as the console and [`Retries`] say.
    async fn again(&self, ask: &Ask) -> Result<Bytes> {
        let mut pauses = self.retries.pauses().build();
        loop {
            let error = match self.whole(ask).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            if ask.again == Again::Never || !error.retryable() {
                return Err(error);
            }
            let Some(pause) = self.retries.after(&error, pauses.next()) else {
                return Err(error);
            };
            tracing::debug!(%error, ?pause, path = ask.path, "Asking the console again");
            tokio::time::sleep(pause).await;
        }
    }

    /// One try, with the whole answer. The time for both is one: a console that sends a byte now and then is late, too.
    async fn whole(&self, ask: &Ask) -> Result<Bytes> {
        let within = self.timeouts.request.saturating_add(ask.patience);
        let response = self.with_session(ask, Some(within)).await?;
        read(response, self.limits.answer_bytes, within).await
    }

    /// One try; where the session has ended, one more with a new one. The console had not looked at the request by then,
    /// so that is no second time.
    async fn with_session(&self, ask: &Ask, within: Option<Duration>) -> Result<Response> {
        let Some(sessions) = &self.sessions else {
            return self.send(ask, None, within).await;
        };
        let session = self.session(sessions).await?;
        match self.send(ask, Some(&session), within).await {
            Err(error) if error.ends_session() => {
                sessions.ended(session.number).await;
                let session = self.session(sessions).await?;
                self.send(ask, Some(&session), within).await
            }
            outcome => outcome,
        }
    }

    /// The session, made now where there is none.
    async fn session(&self, sessions: &Sessions) -> Result<Open> {
        let mut state = sessions.lock().await;
        if let Some(open) = &state.current {
            return Ok(open.clone());
        }
        let token = self.credentials.current().await?.ok_or_else(|| {
            Error::Credentials("a session takes a token to be made from".to_owned())
        })?;
        let ask = Ask::post(routes::LOGIN).json(&Login {
            token: token.reveal().to_owned(),
        })?;
        let within = self.timeouts.request;
        let response = self.exchange(&ask, HeaderMap::new(), Some(within)).await?;
        let headers = response.headers().clone();
        let bytes = read(response, self.limits.answer_bytes, within).await?;
        let session: Session = serde_json::from_slice(&bytes).map_err(|source| Error::Answer {
            path: ask.path.clone(),
            source,
        })?;
        state.made += 1;
        let open = Open::new(state.made, &headers, session.csrf_token.as_deref())?;
        state.current = Some(open.clone());
        Ok(open)
    }

    /// Puts on who asks, and sends it once.
    async fn send(
        &self,
        ask: &Ask,
        session: Option<&Open>,
        within: Option<Duration>,
    ) -> Result<Response> {
        let mut headers = HeaderMap::new();
        match session {
            Some(open) => open.onto(&mut headers, ask.changes()),
            None => {
                if let Some(token) = self.credentials.current().await? {
                    headers.insert(AUTHORIZATION, token.header()?);
                }
            }
        }
        let outcome = self.exchange(ask, headers, within).await;
        if let (Ok(response), Some(open), Some(sessions)) = (&outcome, session, &self.sessions) {
            sessions.learn(open.number, response.headers()).await;
        }
        outcome
    }

    async fn exchange(
        &self,
        ask: &Ask,
        mut headers: HeaderMap,
        within: Option<Duration>,
    ) -> Result<Response> {
        headers.extend(ask.headers.clone());
        let mut url = self.base.clone();
        url.set_path(&ask.path);
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        let mut request = self.http.request(ask.method.clone(), url).headers(headers);
        if let Some(body) = &ask.body {
            request = request.body(body.clone());
        }
        if let Some(within) = within {
            request = request.timeout(within);
        }
        let reported = within.unwrap_or(self.timeouts.request);
        let response = request
            .send()
            .await
            .map_err(|error| Error::of_transport(error, reported))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response, reported).await)
        }
    }
}

/// What the console says against it.
async fn refusal(response: Response, within: Duration) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    let unknown = Error::Status {
        status,
        retry_after,
    };
    if !json {
        return unknown;
    }
    let Ok(bytes) = read(response, MAX_PROBLEM_BYTES, within).await else {
        return unknown;
    };
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(mut problem) => {
            if let Some(asked) = retry_after {
                problem.retry_after_seconds = u32::try_from(asked.as_secs()).ok();
            }
            Error::Problem(Box::new(problem))
        }
        Err(_) => unknown,
    }
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3). The other form, a date, is for those who trust two clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads an answer, `most` bytes at most. One that says that it is longer is not read at all.
async fn read(mut response: Response, most: usize, within: Duration) -> Result<Bytes> {
    let declared = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > most) {
        return Err(Error::TooLarge(most));
    }
    let mut bytes = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(within, response.chunk())
            .await
            .map_err(|_| Error::Timeout(within))?
            .map_err(|error| Error::of_transport(error, within))?;
        let Some(chunk) = chunk else {
            return Ok(bytes.freeze());
        };
        if bytes.len() + chunk.len() > most {
            return Err(Error::TooLarge(most));
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The status of a partial answer.
pub(crate) const PARTIAL: StatusCode = StatusCode::PARTIAL_CONTENT;

#[cfg(test)]
mod tests {
    use console_api::{inventory::Presence, query::InventoryQuery};

    use super::*;

    #[test]
    fn a_query_has_what_was_asked_for_and_nothing_else() {
        let query = InventoryQuery {
            namespace: Some("workshop".to_owned()),
            presence: Some(Presence::Stale),
            labels: Some("site=harbour,tier!=test".to_owned()),
            limit: Some(20),
            ..InventoryQuery::default()
        };
        let mut pairs = pairs(&query).unwrap();
        pairs.sort();
        let expected = [
            ("labels", "site=harbour,tier!=test"),
            ("limit", "20"),
            ("namespace", "workshop"),
            ("presence", "Stale"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn seconds_are_obeyed_and_dates_are_not() {
        let after = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after(" 0 "), Some(Duration::ZERO));
        for no in ["-1", "1.5", "Sun, 06 Nov 1994 08:49:37 GMT", ""] {
            assert_eq!(after(no), None, "{no}");
        }
    }
}
