//! What can go wrong, and what is to be done about each kind of it.

use std::time::Duration;

use console_api::problem::{Problem, ProblemCode};
use http::StatusCode;

/// The outcome of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request did not succeed. No variant holds a token, a cookie or a pairing code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client cannot be built, or an argument cannot be sent.
    #[error("{0}")]
    Usage(String),
    /// There are no credentials to send.
    #[error("read the credentials: {0}")]
    Credentials(String),
    /// The console said no, and why.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// Something answered that is not a console: a proxy, a load balancer.
    #[error("HTTP {status} without a problem that can be read: is this the address of a console?")]
    Status {
        /// What it answered.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No connection came about: nobody listens there, or its certificate is not trusted.
    #[error("connect to the console")]
    Connect(#[source] reqwest::Error),
    /// The connection broke.
    #[error("talk to the console")]
    Transport(#[source] reqwest::Error),
    /// No answer, or no more of it, in time. Whether it was done is not known.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is larger than this client takes ([`Limits`](crate::Limits)).
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The answer is not what the API says.
    #[error("read the answer of {path}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The answer misses something that the API promises.
    #[error("the answer has no usable {0}")]
    Incomplete(&'static str),
    /// The console ended an event stream, as one that is about to stop does.
    #[error("the event stream ended")]
    Ended,
    /// The invocation has no artefact: its output is in the invocation itself, or there is none.
    #[error("the invocation has no artefact")]
    NoArtefact,
    /// What was read is not what the invocation names. What was written is to be thrown away.
    #[error("the artefact is not the one that the invocation names: {0}")]
    Corrupt(&'static str),
    /// The artefact cannot be written where the caller wants it.
    #[error("write the artefact")]
    Write(#[source] std::io::Error),
}

/// What kind of failure it is: a label for metrics, and what a program branches on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Category {
    /// The request is wrong: correct it.
    Request,
    /// The credentials are missing or not taken.
    Authentication,
    /// The caller lacks a right, or a policy of the cluster refuses.
    Authorization,
    /// There is no such thing.
    Missing,
    /// Something else has changed meanwhile: read again, then decide.
    Conflict,
    /// Too many requests: later.
    Throttled,
    /// The console or the cluster cannot do it now: later.
    Unavailable,
    /// Nobody knows whether it was done.
    Timeout,
    /// The connection.
    Transport,
    /// The answer cannot be used: another version, or no console at all.
    Answer,
    /// On this side: a file that cannot be written.
    Local,
}

impl Category {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Answer => "answer",
            Self::Local => "local",
        }
    }
}

impl Error {
    /// The console's own words, where it is the console that said no.
    pub fn problem(&self) -> Option<&Problem> {
        if let Self::Problem(problem) = self {
            Some(problem)
        } else {
            None
        }
    }

    /// The console's code, where it is the console that said no.
    pub fn code(&self) -> Option<ProblemCode> {
        self.problem().map(|problem| problem.code)
    }

    /// What kind of failure it is.
    pub fn category(&self) -> Category {
        match self {
            Self::Usage(_) | Self::NoArtefact => Category::Request,
            Self::Credentials(_) => Category::Authentication,
            Self::Problem(problem) => of_problem(problem),
            Self::Status { status, .. } => of_status(*status),
            Self::Connect(_) | Self::Transport(_) => Category::Transport,
            Self::Timeout(_) => Category::Timeout,
            Self::Ended => Category::Unavailable,
            Self::TooLarge(_) | Self::Answer { .. } | Self::Incomplete(_) | Self::Corrupt(_) => {
                Category::Answer
            }
            Self::Write(_) => Category::Local,
        }
    }

    /// Whether the same request may succeed later. That it may be sent again without harm is another question: a GET
    /// may, and a POST that carries an idempotency key; this client sends nothing else twice by itself.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.retryable,
            Self::Status { .. }
            | Self::Connect(_)
            | Self::Transport(_)
            | Self::Timeout(_)
            | Self::Ended => {
                matches!(
                    self.category(),
                    Category::Throttled
                        | Category::Unavailable
                        | Category::Transport
                        | Category::Timeout
                )
            }
            Self::Usage(_)
            | Self::Credentials(_)
            | Self::TooLarge(_)
            | Self::Answer { .. }
            | Self::Incomplete(_)
            | Self::NoArtefact
            | Self::Corrupt(_)
            | Self::Write(_) => false,
        }
    }

    /// When the console wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem
                .retry_after_seconds
                .map(|seconds| Duration::from_secs(seconds.into())),
            Self::Status { retry_after, .. } => *retry_after,
            Self::Usage(_)
            | Self::Credentials(_)
            | Self::Connect(_)
            | Self::Transport(_)
            | Self::Timeout(_)
            | Self::TooLarge(_)
            | Self::Answer { .. }
            | Self::Incomplete(_)
            | Self::Ended
            | Self::NoArtefact
            | Self::Corrupt(_)
            | Self::Write(_) => None,
        }
    }

    /// Whether the session is not taken any more, so that another one may be.
    pub(crate) fn ends_session(&self) -> bool {
        matches!(
            self.code(),
            Some(ProblemCode::SessionExpired | ProblemCode::Unauthenticated)
        )
    }

    pub(crate) fn of_transport(error: reqwest::Error, within: Duration) -> Self {
        // A URL may carry a cursor or a text that somebody searched for, and a log is no place for them.
        let error = error.without_url();
        if error.is_timeout() {
            Self::Timeout(within)
        } else if error.is_connect() {
            Self::Connect(error)
        } else {
            Self::Transport(error)
        }
    }
}

fn of_problem(problem: &Problem) -> Category {
    match problem.code {
        ProblemCode::InvalidRequest
        | ProblemCode::UnsupportedMediaType
        | ProblemCode::TooLarge
        | ProblemCode::MethodNotAllowed
        | ProblemCode::RangeNotSatisfiable
        | ProblemCode::Invalid => Category::Request,
        ProblemCode::Unauthenticated | ProblemCode::SessionExpired => Category::Authentication,
        ProblemCode::InvalidCsrf
        | ProblemCode::CrossSite
        | ProblemCode::Forbidden
        | ProblemCode::Refused => Category::Authorization,
        ProblemCode::NotFound => Category::Missing,
        ProblemCode::Conflict | ProblemCode::PreconditionFailed => Category::Conflict,
        ProblemCode::TooManyRequests => Category::Throttled,
        ProblemCode::NotConfigured | ProblemCode::Unavailable | ProblemCode::Internal => {
            Category::Unavailable
        }
        ProblemCode::Timeout => Category::Timeout,
        // What a newer console has more to say is known by its status.
        ProblemCode::Other => {
            StatusCode::from_u16(problem.status).map_or(Category::Answer, of_status)
        }
    }
}

fn of_status(status: StatusCode) -> Category {
    match status.as_u16() {
        401 => Category::Authentication,
        403 => Category::Authorization,
        404 | 410 => Category::Missing,
        409 | 412 => Category::Conflict,
        408 => Category::Timeout,
        429 => Category::Throttled,
        500 | 502..=504 => Category::Unavailable,
        400..=499 => Category::Request,
        _ => Category::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: ProblemCode, status: u16, retryable: bool) -> Error {
        Error::Problem(Box::new(Problem {
            kind: "about:blank".to_owned(),
            title: String::new(),
            status,
            code,
            detail: "why".to_owned(),
            retryable,
            retry_after_seconds: Some(7),
            errors: Vec::new(),
            permission: None,
            rule: None,
        }))
    }

    #[test]
    fn whether_a_problem_may_pass_is_for_the_console_to_say() {
        assert!(problem(ProblemCode::Unavailable, 503, true).retryable());
        assert!(!problem(ProblemCode::Unavailable, 503, false).retryable());
        assert_eq!(
            problem(ProblemCode::Unavailable, 503, true).retry_after(),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn a_code_of_a_newer_console_is_sorted_by_its_status() {
        for (status, category) in [
            (401, Category::Authentication),
            (403, Category::Authorization),
            (404, Category::Missing),
            (409, Category::Conflict),
            (429, Category::Throttled),
            (503, Category::Unavailable),
            (418, Category::Request),
        ] {
            assert_eq!(
                problem(ProblemCode::Other, status, false).category(),
                category,
                "{status}"
            );
        }
    }

    #[test]
    fn what_is_no_console_may_be_asked_again_where_it_is_a_passing_thing() {
        let status = |code: u16| Error::Status {
            status: StatusCode::from_u16(code).unwrap(),
            retry_after: None,
        };
        for (code, retryable) in [
            (502, true),
            (503, true),
            (429, true),
            (404, false),
            (200, false),
        ] {
            assert_eq!(status(code).retryable(), retryable, "{code}");
        }
    }
}
