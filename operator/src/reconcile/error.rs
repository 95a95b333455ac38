//! What can go wrong while observing and applying, and when it is tried again. Bad input is no error: it is planned for.

use std::time::Duration;

use kube::runtime::controller::Action;

use crate::authority;

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("{action}")]
    Api {
        /// What was asked for.
        action: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("sign the certificate")]
    Sign(#[source] authority::Error),
    #[error("make the password file")]
    PasswordFile(#[source] pairing::opaque::Error),
    #[error("draw the QR code")]
    Qr(#[source] qrcode::types::QrError),
    #[error("write the status as JSON")]
    Json(#[source] serde_json::Error),
    /// Another live code has this id. The next try draws another one.
    #[error("another live code has the id that was drawn")]
    IdTaken,
    /// A request of it hung.
    #[error("not done within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// What the plan was made for is no longer there.
    #[error("{0} changed meanwhile")]
    Changed(&'static str),
}

/// Says what was asked for: `.map_err(api("get the Device"))`.
pub fn api(action: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Api {
        action,
        source: Box::new(source),
    }
}

/// Classes of errors, by what helps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Class {
    /// Somebody was quicker: look again.
    Race,
    /// The API server refuses for good.
    Refusal,
    /// It may pass.
    Transient,
}

impl Error {
    /// For metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => match self.class() {
                Class::Race => "conflict",
                Class::Refusal => "refused",
                Class::Transient => "api",
            },
            Self::Sign(_) => "sign",
            Self::PasswordFile(_) => "password_file",
            Self::Qr(_) => "qr",
            Self::Json(_) => "json",
            Self::IdTaken => "id_taken",
            Self::TimedOut(_) => "timeout",
            Self::Changed(_) => "conflict",
        }
    }

    pub(super) fn retry(&self) -> Action {
        Action::requeue(match self.class() {
            Class::Race => Duration::from_millis(250),
            Class::Transient => Duration::from_secs(5),
            Class::Refusal => Duration::from_mins(5),
        })
    }

    pub(super) fn is_race(&self) -> bool {
        self.class() == Class::Race
    }

    pub(super) fn is_refusal(&self) -> bool {
        self.class() == Class::Refusal
    }

    fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => {
                let kube::Error::Api(status) = &**source else {
                    return Class::Transient;
                };
                match status.code {
                    // Not found: deleted between the look and the write.
                    404 | 409 => Class::Race,
                    400 | 403 | 405 | 413 | 422 => Class::Refusal,
                    _ => Class::Transient,
                }
            }
            Self::IdTaken | Self::Changed(_) => Class::Race,
            Self::TimedOut(_) => Class::Transient,
            Self::Sign(_) | Self::PasswordFile(_) | Self::Qr(_) | Self::Json(_) => Class::Refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16) -> Error {
        let status = Status {
            code,
            ..Status::failure("no", "No")
        };
        api("write the status")(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn only_what_may_pass_is_tried_again_soon() {
        for (code, category, again) in [
            (409, "conflict", Duration::from_millis(250)),
            (404, "conflict", Duration::from_millis(250)),
            (403, "refused", Duration::from_mins(5)),
            (422, "refused", Duration::from_mins(5)),
            (500, "api", Duration::from_secs(5)),
            (429, "api", Duration::from_secs(5)),
        ] {
            assert_eq!(error(code).category(), category, "{code}");
            assert_eq!(error(code).retry(), Action::requeue(again), "{code}");
        }
    }
}
