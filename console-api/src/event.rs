//! What changes, as server-sent events.
//!
//! The stream begins with `hello`. `id` says where in the stream a client is; sent back as `Last-Event-ID`, to any
//! gateway, the stream goes on after it. Where a gateway does not know any more what came after it, and where a client
//! reads more slowly than things change, it says `resync`: read the inventory again, then go on.

use serde::{Deserialize, Serialize};

use crate::{
    ObjectId, inventory::DeviceRecord, invocation::InvocationSummary, pairing::RequestSummary,
};

/// Header by which a client says where it was (WHATWG HTML, server-sent events).
pub const LAST_EVENT_ID: &str = "last-event-id";

/// An event. `event` on the wire is the name of the variant in lower case with dots, `data` what is in it.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsoleEvent {
    /// `hello`: the stream begins here.
    Hello,
    /// `resync`: something may have been missed.
    Resync,
    /// `device.changed`: it is new, or looks like this now.
    DeviceChanged(Box<DeviceRecord>),
    /// `device.deleted`.
    DeviceDeleted(Gone),
    /// `invocation.changed`.
    InvocationChanged(Box<InvocationSummary>),
    /// `invocation.deleted`.
    InvocationDeleted(Gone),
    /// `pairing.changed`: a request is new, or looks like this now.
    PairingChanged(Box<RequestSummary>),
    /// `pairing.deleted`.
    PairingDeleted(Gone),
    /// `denied`: the caller may not see this any more, and the stream ends.
    Denied,
}

/// What is gone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gone {
    pub id: ObjectId,
}

impl ConsoleEvent {
    /// `event` on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Resync => "resync",
            Self::DeviceChanged(_) => "device.changed",
            Self::DeviceDeleted(_) => "device.deleted",
            Self::InvocationChanged(_) => "invocation.changed",
            Self::InvocationDeleted(_) => "invocation.deleted",
            Self::PairingChanged(_) => "pairing.changed",
            Self::PairingDeleted(_) => "pairing.deleted",
            Self::Denied => "denied",
        }
    }

    /// `data` on the wire.
    ///
    /// # Errors
    /// Never for events that this crate made: what they hold can be written.
    pub fn data(&self) -> serde_json::Result<String> {
        match self {
            Self::Hello | Self::Resync | Self::Denied => Ok("{}".to_owned()),
            Self::DeviceChanged(device) => serde_json::to_string(device),
            Self::InvocationChanged(invocation) => serde_json::to_string(invocation),
            Self::PairingChanged(request) => serde_json::to_string(request),
            Self::DeviceDeleted(gone)
            | Self::InvocationDeleted(gone)
            | Self::PairingDeleted(gone) => serde_json::to_string(gone),
        }
    }

    /// Reads an event; `None` for one that this version does not know.
    ///
    /// # Errors
    /// When `data` is not what events of that name have.
    pub fn read(name: &str, data: &str) -> serde_json::Result<Option<Self>> {
        Ok(Some(match name {
            "hello" => Self::Hello,
            "resync" => Self::Resync,
            "denied" => Self::Denied,
            "device.changed" => Self::DeviceChanged(serde_json::from_str(data)?),
            "device.deleted" => Self::DeviceDeleted(serde_json::from_str(data)?),
            "invocation.changed" => Self::InvocationChanged(serde_json::from_str(data)?),
            "invocation.deleted" => Self::InvocationDeleted(serde_json::from_str(data)?),
            "pairing.changed" => Self::PairingChanged(serde_json::from_str(data)?),
            "pairing.deleted" => Self::PairingDeleted(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let id: ObjectId = "workshop.kiosk-7".parse().unwrap();
        for event in [
            ConsoleEvent::Hello,
            ConsoleEvent::Resync,
            ConsoleEvent::Denied,
            ConsoleEvent::DeviceDeleted(Gone { id: id.clone() }),
            ConsoleEvent::InvocationDeleted(Gone { id: id.clone() }),
            ConsoleEvent::PairingDeleted(Gone { id }),
        ] {
            let data = event.data().unwrap();
            assert_eq!(
                ConsoleEvent::read(event.name(), &data).unwrap(),
                Some(event)
            );
        }
        assert_eq!(ConsoleEvent::read("from.the.future", "?").unwrap(), None);
    }
}
