//! What a gateway sends to an agent: every input is tried as one message, and as some in a row.

#![no_main]

#[path = "../../node-agent/tests/it/fuzz/decision.rs"]
mod decision;

use decision::{Known, decide, in_a_row};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::node::GatewayEvent;

thread_local! {
    static KNOWN: Known = Known::new();
}

fuzz_target!(|bytes: &[u8]| {
    let one = GatewayEvent::decode(bytes)
        .ok()
        .and_then(|message| message.event);
    KNOWN.with(|known| {
        decide(known, one.as_slice());
        decide(known, &in_a_row(bytes));
    });
});
