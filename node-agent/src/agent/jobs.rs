//! What waits, who is asked and what runs now. In memory: after a restart the journal alone counts.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proto::node;

use super::order::{Order, Why};
use crate::{
    host::clock::Moment,
    journal::{Uid, ledger::FRAME_BYTES},
};

#[derive(Clone, Debug, Default)]
pub struct Jobs {
    waiting: VecDeque<Arc<Order>>,
    /// For the answer of a person.
    asking: VecDeque<Arc<Order>>,
    /// For the end of another with the same idempotency key.
    following: BTreeMap<Uid, Arc<Order>>,
    running: BTreeMap<Uid, Running>,
    /// They ran, and their outputs wait to be stored.
    storing: BTreeMap<Uid, Storing>,
}

/// One whose output waits to be stored.
#[derive(Clone, Debug)]
pub struct Storing {
    /// What is told once it is.
    pub result: node::Result,
    /// `None` after a restart, until a gateway says it again.
    pub deadline: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Running {
    order: Arc<Order>,
    stopping: Option<Why>,
}

impl Jobs {
    pub fn wait(&mut self, order: Arc<Order>) {
        self.asking.retain(|other| other.uid != order.uid);
        self.waiting.push_back(order);
    }

    pub fn ask(&mut self, order: Arc<Order>) {
        self.waiting.retain(|other| other.uid != order.uid);
        self.asking.push_back(order);
    }

    pub fn follow(&mut self, order: Arc<Order>) {
        self.following.insert(order.uid.clone(), order);
    }

    pub fn start(&mut self, order: &Arc<Order>) {
        self.waiting.retain(|other| other.uid != order.uid);
        self.asking.retain(|other| other.uid != order.uid);
        let running = Running {
            order: Arc::clone(order),
            stopping: None,
        };
        self.running.insert(order.uid.clone(), running);
    }

    pub fn stop(&mut self, uid: &Uid, why: Why) {
        if let Some(running) = self.running.get_mut(uid) {
            running.stopping = Some(why);
        }
    }

    pub fn leave(&mut self, uid: &Uid) {
        self.waiting.retain(|order| &order.uid != uid);
        self.asking.retain(|order| &order.uid != uid);
        self.following.remove(uid);
        self.running.remove(uid);
        self.storing.remove(uid);
    }

    pub fn store(&mut self, uid: Uid, storing: Storing) {
        self.storing.insert(uid, storing);
    }

    /// Until when it is to be stored.
    pub fn expect(&mut self, uid: &Uid, deadline: Moment) {
        if let Some(storing) = self.storing.get_mut(uid) {
            storing.deadline = Some(deadline);
        }
    }

    pub fn storing(&self) -> impl Iterator<Item = (&Uid, &Storing)> {
        self.storing.iter()
    }

    pub fn get_storing(&self, uid: &Uid) -> Option<&Storing> {
        self.storing.get(uid)
    }

    /// In the order in which they came.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.waiting.iter()
    }

    /// In the order in which they came.
    pub fn asking(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.asking.iter()
    }

    pub fn following(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.following.values()
    }

    pub fn running(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.running.values().map(|running| &running.order)
    }

    pub fn get_running(&self, uid: &Uid) -> Option<&Arc<Order>> {
        self.running.get(uid).map(|running| &running.order)
    }

    /// Why it was asked to end, if it was.
    pub fn stopping(&self, uid: &Uid) -> Option<Why> {
        self.running.get(uid).and_then(|running| running.stopping)
    }

    /// Whether nothing is left that ends by itself. What waits to be stored does so after a restart, too.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.asking.is_empty()
            && self.following.is_empty()
            && self.running.is_empty()
    }

    /// Bytes that their results may take. Not of those that follow: the ledger knows them, across restarts too.
    pub fn reserved(&self) -> u64 {
        let held = self.waiting.iter().chain(&self.asking);
        let orders = held.chain(self.running());
        let ends = orders.map(|order| order.reserve()).sum::<u64>();
        ends + self.storing.len() as u64 * FRAME_BYTES
    }
}
