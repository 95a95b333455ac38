//! What waits, who is asked and what runs now. In memory: after a restart the journal alone counts.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::order::{Order, Why};
use crate::journal::Uid;

#[derive(Clone, Debug, Default)]
pub struct Jobs {
    waiting: VecDeque<Arc<Order>>,
    /// For the answer of a person.
    asking: VecDeque<Arc<Order>>,
    /// For the end of another with the same idempotency key.
    following: BTreeMap<Uid, Arc<Order>>,
    running: BTreeMap<Uid, Running>,
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
        orders.map(|order| order.reserve()).sum()
    }
}
