//! The agent on a device. It talks to one gateway at a time and to nothing else of the cluster: never to the API server.
//!
//! In the order of the story:
//!
//! - [`args`], [`exit`]: what a person types, and what the process says when it ends;
//! - [`config`]: what this device's administrator says;
//! - [`app`]: one function per command; the only place that starts tasks for the life of the process;
//! - [`terminal`]: what is said to the person, and asked; [`status`]: what `status` shows;
//! - [`state`]: the folder: key, identity, pairing in progress, session; each file whole or absent after a power cut;
//! - [`enrol`]: from a pairing code to an identity;
//! - [`upstream`]: the connection to a gateway: whom to believe, where to go next, when;
//! - [`renewal`]: another certificate before the one at hand ends;
//! - [`journal`]: what makes an effect happen at most once;
//! - [`agent`]: the loop: observe, plan (pure), apply;
//! - [`doctor`]: what is wrong, and what to do about it;
//! - [`install`]: the agent as a service of its host;
//! - [`capability`]: what this device can do;
//! - [`mediation`]: asking the person at the device first;
//! - [`host`]: facts about the machine, its clock among them.

pub mod agent;
pub mod app;
pub mod args;
pub mod capability;
pub mod config;
pub mod doctor;
pub mod enrol;
pub mod exit;
pub mod host;
pub mod install;
pub mod journal;
pub mod mediation;
pub mod renewal;
pub mod state;
pub mod status;
pub mod terminal;
pub mod upstream;
