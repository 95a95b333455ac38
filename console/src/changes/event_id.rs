//! Up to where a client has been told.

use std::{fmt, str::FromStr};

/// Kinds of which changes are told. Each has its own order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Device,
    Invocation,
    Request,
}

/// For each kind, the version up to which changes have been told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EventId {
    device: u64,
    invocation: u64,
    request: u64,
}

/// What no gateway has sent as an id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is no id of an event of this API")]
pub struct BadEventId;

impl EventId {
    /// Of who has been told nothing: it resyncs first.
    pub const NOTHING: Self = Self {
        device: 0,
        invocation: 0,
        request: 0,
    };

    pub fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Device => self.device,
            Kind::Invocation => self.invocation,
            Kind::Request => self.request,
        }
    }

    /// Never back.
    pub(super) fn reach(&mut self, kind: Kind, version: u64) {
        let reached = match kind {
            Kind::Device => &mut self.device,
            Kind::Invocation => &mut self.invocation,
            Kind::Request => &mut self.request,
        };
        *reached = version.max(*reached);
    }

    pub(super) fn reach_all(&mut self, other: Self) {
        for kind in Kind::ALL {
            self.reach(kind, other.of(kind));
        }
    }
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Device, Self::Invocation, Self::Request];
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1-{}-{}-{}", self.device, self.invocation, self.request)
    }
}

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let number = |part: Option<&str>| {
            let part = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
            part.and_then(|part| part.parse().ok()).ok_or(BadEventId)
        };
        let mut parts = text.strip_prefix("1-").ok_or(BadEventId)?.split('-');
        let id = Self {
            device: number(parts.next())?,
            invocation: number(parts.next())?,
            request: number(parts.next())?,
        };
        parts.next().is_none().then_some(id).ok_or(BadEventId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut id = EventId::NOTHING;
        id.reach(Kind::Device, u64::MAX);
        id.reach(Kind::Request, 7);
        id.reach(Kind::Request, 6);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "1",
            "1-1-2",
            "1-1-2-3-4",
            "2-1-2-3",
            "1-+1-2-3",
            "1--2-3",
            "1-18446744073709551616-0-0",
            " 1-1-2-3",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(BadEventId), "{bad}");
        }
    }
}
