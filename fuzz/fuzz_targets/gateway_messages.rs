//! What devices and strangers send to a gateway. Every input is tried as each kind of message.

#![no_main]

#[path = "../../gateway/tests/it/fuzz/event.rs"]
mod event;
#[path = "../../gateway/tests/it/fuzz/registration.rs"]
mod registration;
#[path = "../../gateway/tests/it/fuzz/stranger.rs"]
mod stranger;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::node::{DeviceEvent, EnrollRequest, RegisterRequest};
use stranger::Stranger;

static STRANGER: LazyLock<Stranger> = LazyLock::new(Stranger::new);

fuzz_target!(|bytes: &[u8]| {
    let event = DeviceEvent::decode(bytes).ok();
    if let Some(event) = event.and_then(|event| event.event) {
        event::hear(event);
    }
    if let Ok(request) = RegisterRequest::decode(bytes) {
        registration::registers(request);
    }
    let request = EnrollRequest::decode(bytes).ok();
    if let Some(step) = request.and_then(|request| request.step) {
        STRANGER.says(step);
    }
});
