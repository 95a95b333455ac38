//! One connection between a device and a gateway: two ways, each in order, each with its delay, until it breaks.

use std::collections::VecDeque;

use gateway::node::outbox::Outgoing;
use proto::node::{DeviceEvent, GatewayEvent};

/// Messages that are on their way at once: what the windows of a connection take.
pub const WINDOW: usize = 8;

pub struct Link {
    pub agent: usize,
    pub agent_life: u32,
    pub gateway: usize,
    pub gateway_life: u32,
    pub up: VecDeque<DeviceEvent>,
    pub down: VecDeque<GatewayEvent>,
    /// When the last message that was sent arrives.
    pub up_at: u64,
    pub down_at: u64,
    /// What arrived at the gateway and is not read.
    pub heard: VecDeque<DeviceEvent>,
    /// Where the gateway writes.
    pub outgoing: Option<Outgoing>,
    /// Shortest and longest way, in milliseconds.
    pub delay: (u64, u64),
    pub stalled_until: u64,
    /// Nothing that is sent from now on arrives.
    pub dead: bool,
    pub welcomed: bool,
    /// Heartbeats that were not answered.
    pub unanswered: u32,
}

impl Link {
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.up.len())
    }

    /// It breaks: of what is on its way, so much still arrives.
    pub fn cut(&mut self, up: usize, down: usize) {
        self.dead = true;
        self.up.truncate(up);
        self.down.truncate(down);
    }
}
