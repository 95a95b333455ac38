//! What the gateway decides about devices and invocations: types and pure functions.
//!
//! In the order of a device's day:
//!
//! - [`device`]: a Device as the gateway knows it, and whether it is let in;
//! - [`register`]: what a device says about itself, read and bounded;
//! - [`grants`]: what it may run of what it declares;
//! - [`session`]: what the start, a change and the end of a stream write on its Device;
//! - [`invocation`]: an open invocation as the gateway knows it;
//! - [`dispatch`]: what to do with an invocation now; [`fit`]: whether its input is what was granted;
//! - [`underway`]: its status while its device has it;
//! - [`result`]: how an invocation ended, and its status from then on;
//! - [`repeated`]: how one ended that another with its key ran for;
//! - [`late`]: what is kept of an answer that came after that;
//! - [`artefact`]: an output that is too large for it, and its way into the store; [`retention`]: until when it stays;
//! - [`names`]: what a name and a uid look like; [`words`]: and what a text of a device may have in it.
//!
//! No I/O, no clock, no Kubernetes client, no gRPC: messages of the protocol are read here and nowhere else.

pub mod artefact;
pub mod device;
pub mod dispatch;
pub mod fit;
pub mod grants;
pub mod invocation;
pub mod late;
pub mod names;
pub mod register;
pub mod repeated;
pub mod result;
pub mod retention;
pub mod session;
pub mod underway;
pub mod words;

#[cfg(test)]
pub(crate) mod fixtures;
