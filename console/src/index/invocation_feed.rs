//! Invocations: the newest of each device, and everything that happens to any of them.

use std::sync::{Arc, atomic::Ordering};

use console_api::{
    ObjectId,
    event::{ConsoleEvent, Gone},
    invocation::{InvocationSummary, Progress},
};
use crds::{
    CapabilityInvocation, Guarded,
    v1alpha1::capability_invocation::{ErrorCode, InvocationPhase},
};
use jiff::Timestamp;

use super::{
    Index,
    device_feed::MAX_FOUND,
    recent::{Belongs, Recent},
    watch::{Feed, valid},
    write,
};
use crate::{
    changes::{Change, Kind},
    inventory::{Interner, Name},
    record,
};

/// An invocation as lists show it. What many have alike is shared.
#[derive(Debug)]
pub struct RecentInvocation {
    name: Name,
    version: u64,
    device: Arc<str>,
    capability: Arc<str>,
    phase: InvocationPhase,
    requested_by: Option<Arc<str>>,
    error: Option<ErrorCode>,
    progress: Option<Box<Progress>>,
    created_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl RecentInvocation {
    /// `None` for an object that no API server made.
    fn read(invocation: &CapabilityInvocation, interner: &mut Interner) -> Option<Self> {
        let metadata = &invocation.metadata;
        let id = record::id(metadata)?;
        // It can be shown ever after.
        ObjectId::new(id.namespace(), &invocation.spec.device_ref.name).ok()?;
        let status = invocation.status.as_ref();
        let error = status.and_then(|status| status.error.as_ref());
        let progress = status.and_then(|status| status.progress.as_ref());
        let finished_at = status.and_then(|status| status.finished_at.as_ref());
        Some(Self {
            name: Name::new(interner.text(id.namespace()), id.name()),
            version: metadata.resource_version.as_ref()?.parse().ok()?,
            device: interner.text(&invocation.spec.device_ref.name),
            capability: interner.text(&invocation.spec.capability),
            phase: status.map(|status| status.phase).unwrap_or_default(),
            requested_by: invocation
                .spec
                .requested_by
                .as_deref()
                .map(|by| interner.text(by)),
            error: error.map(|error| error.code),
            progress: progress.map(|progress| Box::new(record::progress(progress))),
            created_at: metadata.creation_timestamp.as_ref().map(|time| time.0),
            finished_at: finished_at.map(|time| time.0),
        })
    }

    pub fn summary(&self) -> InvocationSummary {
        InvocationSummary {
            id: id(&self.name),
            device: id(&self.device()),
            capability: self.capability.to_string(),
            phase: record::phase(self.phase),
            requested_by: self.requested_by.as_deref().map(str::to_owned),
            error_code: self.error.map(|code| record::error_code(code).to_owned()),
            progress: self.progress.as_deref().cloned(),
            created_at: self.created_at,
            finished_at: self.finished_at,
        }
    }
}

fn id(name: &Name) -> ObjectId {
    ObjectId::new(&*name.namespace, &*name.name).expect("it is made of ids, when it is read")
}

impl Belongs for RecentInvocation {
    fn name(&self) -> &Name {
        &self.name
    }

    fn device(&self) -> Name {
        Name::new(Arc::clone(&self.name.namespace), Arc::clone(&self.device))
    }

    fn at(&self) -> Option<Timestamp> {
        self.created_at
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// Feeds the invocations.
pub struct InvocationFeed {
    index: Arc<Index>,
    interner: Interner,
    listed: Recent<RecentInvocation>,
}

impl InvocationFeed {
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            interner: Interner::default(),
            listed: Recent::default(),
        }
    }

    fn tell(&self, version: u64, change: Change, name: &Name) {
        self.index.changes.tell(Kind::Invocation, version, change);
        self.index.followers.heard(name);
    }
}

impl Feed for InvocationFeed {
    type Object = Guarded<CapabilityInvocation>;

    const KIND: &'static str = "CapabilityInvocation";

    fn begin_list(&mut self) {
        self.listed = Recent::default();
    }

    fn listed(&mut self, object: Self::Object) {
        let invocation = valid(object);
        let invocation = invocation
            .and_then(|invocation| RecentInvocation::read(&invocation, &mut self.interner));
        if let Some(invocation) = invocation {
            self.listed.insert(Arc::new(invocation));
        }
    }

    fn end_list(&mut self, version: u64) {
        let next = std::mem::take(&mut self.listed);
        let is_first = !self.index.filled.invocations.swap(true, Ordering::AcqRel);
        let went_back = version < self.index.changes.head().of(Kind::Invocation);
        let (found, before) = {
            let mut invocations = write(&self.index.invocations);
            let is_whole =
                !is_first && !went_back && !invocations.has_left_out() && !next.has_left_out();
            let found = is_whole.then(|| compare(&invocations, &next));
            (found, std::mem::replace(&mut *invocations, next))
        };
        drop(before);
        match found.filter(|found| found.len() <= MAX_FOUND) {
            Some(found) => self
                .index
                .changes
                .tell_found(Kind::Invocation, version, found),
            None => self.index.changes.begin(Kind::Invocation, version),
        }
        self.index.followers.heard_of_all();
    }

    fn applied(&mut self, object: Self::Object, version: u64) {
        if object.0.is_err() {
            self.gone(&object, version);
        }
        let Some(invocation) = valid(object)
            .and_then(|invocation| RecentInvocation::read(&invocation, &mut self.interner))
        else {
            return;
        };
        let invocation = Arc::new(invocation);
        write(&self.index.invocations).insert(Arc::clone(&invocation));
        self.tell(version, changed(&invocation), &invocation.name);
    }

    /// Told of whether it was kept or not: who follows knows it perhaps.
    fn gone(&mut self, object: &Self::Object, version: u64) {
        let Some(id) = record::id(kube::Resource::meta(object)) else {
            return;
        };
        let name = Name::new(self.interner.text(id.namespace()), id.name());
        write(&self.index.invocations).remove(&name);
        self.tell(version, gone(&name), &name);
    }

    fn reached(&mut self, version: u64) {
        self.index.changes.reached(Kind::Invocation, version);
    }
}

fn changed(invocation: &RecentInvocation) -> Change {
    Change {
        namespace: Arc::clone(&invocation.name.namespace),
        event: ConsoleEvent::InvocationChanged(Box::new(invocation.summary())),
    }
}

fn gone(name: &Name) -> Change {
    Change {
        namespace: Arc::clone(&name.namespace),
        event: ConsoleEvent::InvocationDeleted(Gone { id: id(name) }),
    }
}

fn compare(before: &Recent<RecentInvocation>, now: &Recent<RecentInvocation>) -> Vec<Change> {
    let mut new: Vec<_> = now
        .all()
        .filter(|invocation| {
            let before = before.get(&invocation.name);
            before.is_none_or(|before| before.version() != invocation.version())
        })
        .collect();
    new.sort_by_key(|invocation| invocation.version);
    let gone_ones = before
        .all()
        .filter(|invocation| now.get(&invocation.name).is_none())
        .map(|invocation| gone(&invocation.name));
    new.into_iter()
        .map(|invocation| changed(invocation))
        .chain(gone_ones)
        .collect()
}
