//! Every pairing request.

use std::sync::{Arc, atomic::Ordering};

use console_api::event::{ConsoleEvent, Gone};
use crds::{Guarded, PairingRequest};

use super::{
    Index,
    device_feed::MAX_FOUND,
    requests::{Known, Requests},
    watch::{Feed, valid},
    write,
};
use crate::{
    changes::{Change, Kind},
    inventory::Name,
    record,
};

/// Feeds the requests.
pub struct RequestFeed {
    index: Arc<Index>,
    listed: Requests,
}

impl RequestFeed {
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            listed: Requests::default(),
        }
    }
}

impl Feed for RequestFeed {
    type Object = Guarded<PairingRequest>;

    const KIND: &'static str = "PairingRequest";

    fn begin_list(&mut self) {
        self.listed = Requests::default();
    }

    fn listed(&mut self, object: Self::Object) {
        if let Some(request) = valid(object).and_then(|request| Known::read(&request)) {
            self.listed.insert(Arc::new(request));
        }
    }

    fn end_list(&mut self, version: u64) {
        let next = std::mem::take(&mut self.listed);
        let is_first = !self.index.filled.requests.swap(true, Ordering::AcqRel);
        let went_back = version < self.index.changes.head().of(Kind::Request);
        let (found, before) = {
            let mut requests = write(&self.index.requests);
            let is_whole =
                !is_first && !went_back && !requests.has_left_out() && !next.has_left_out();
            let found = is_whole.then(|| compare(&requests, &next));
            (found, std::mem::replace(&mut *requests, next))
        };
        drop(before);
        match found.filter(|found| found.len() <= MAX_FOUND) {
            Some(found) => self.index.changes.tell_found(Kind::Request, version, found),
            None => self.index.changes.begin(Kind::Request, version),
        }
    }

    fn applied(&mut self, object: Self::Object, version: u64) {
        if object.0.is_err() {
            self.gone(&object, version);
        }
        let Some(request) = valid(object).and_then(|request| Known::read(&request)) else {
            return;
        };
        let request = Arc::new(request);
        write(&self.index.requests).insert(Arc::clone(&request));
        self.index
            .changes
            .tell(Kind::Request, version, changed(&request));
    }

    /// Told of whether it was kept or not: who follows knows it perhaps.
    fn gone(&mut self, object: &Self::Object, version: u64) {
        let Some(id) = record::id(kube::Resource::meta(object)) else {
            return;
        };
        write(&self.index.requests).remove(&Name::from(&id));
        self.index.changes.tell(Kind::Request, version, gone(id));
    }

    fn reached(&mut self, version: u64) {
        self.index.changes.reached(Kind::Request, version);
    }
}

fn changed(request: &Known) -> Change {
    Change {
        namespace: Arc::clone(&request.name.namespace),
        event: ConsoleEvent::PairingChanged(Box::new(request.summary.clone())),
    }
}

fn gone(id: console_api::ObjectId) -> Change {
    Change {
        namespace: id.namespace().into(),
        event: ConsoleEvent::PairingDeleted(Gone { id }),
    }
}

fn compare(before: &Requests, now: &Requests) -> Vec<Change> {
    let mut new: Vec<_> = now
        .all()
        .filter(|request| {
            let before = before.get(&request.name);
            before.is_none_or(|before| before.version != request.version)
        })
        .collect();
    new.sort_by_key(|request| request.version);
    let gone_ones = before
        .all()
        .filter(|request| now.get(&request.name).is_none())
        .map(|request| gone(request.summary.id.clone()));
    new.into_iter()
        .map(|request| changed(request))
        .chain(gone_ones)
        .collect()
}
