//! The watches and the four loops of a leader, and who wakes whom.

use std::sync::Arc;

use crds::{
    CapabilityInvocation, Device, PairingCode, PairingRequest, names,
    v1alpha1::capability_invocation::InvocationPhase,
};
use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::{BoxFuture, Shared},
    stream,
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    coordination::v1::Lease,
};
use kube::{
    Api, Resource,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Config,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    authority::trust_bundle::encode,
    context::{Context, now},
    gateways::{Gateways, Wake},
    invocation::{self, backlog::Backlog},
    leader::{Begun, Leader},
    pairing_code::room::Places,
    pairing_request::plan::{Stage, stage},
    policies::{Account, Policies},
    reconcile::drive,
    watch::{Guard, Watch},
};

/// One watch for each kind that anything depends on.
struct Watches {
    codes: Watch<PairingCode>,
    requests: Watch<PairingRequest>,
    devices: Watch<Device>,
    /// Those that have not ended.
    invocations: Watch<CapabilityInvocation>,
    /// Those of gateways.
    leases: Watch<Lease>,
    /// Nobody waits for these but who signs: without the right to see them, all else goes on.
    policies: Watch<ValidatingAdmissionPolicy>,
    bindings: Watch<ValidatingAdmissionPolicyBinding>,
}

/// Runs until the term ends and what was begun is done.
pub async fn run(leader: &Leader, begun: Begun, term: CancellationToken) {
    let mut watches = Watches::new(leader);
    let context = Arc::new(watches.context(leader, begun));
    let departed = Arc::clone(&context.departed);
    watches
        .devices
        .before_delete(move |device| departed.note(device, now()));
    let lease_news = watches.leases.listen();
    let mut wake = Wake::default();
    // Nobody decides before everything was seen once: a Lease that was not read yet is no dead gateway.
    let synced = synced(leader, &context, &watches.leases.store(), &term)
        .boxed()
        .shared();
    let loops = loops(&mut watches, &mut wake, &context, &synced);
    let Watches {
        codes,
        requests,
        devices,
        invocations,
        leases,
        policies,
        bindings,
    } = watches;
    futures::join!(
        codes.run(term.clone()),
        requests.run(term.clone()),
        devices.run(term.clone()),
        invocations.run(term.clone()),
        leases.run(term.clone()),
        policies.run(term.clone()),
        bindings.run(term.clone()),
        wake.run(context.gateways.clone(), lease_news, term.clone()),
        invocation::retention::run(leader.client.clone(), leader.report(), term.clone()),
        loops,
    );
}

impl Watches {
    fn new(leader: &Leader) -> Self {
        let client = || leader.client.clone();
        let gateways = format!("{}={}", names::COMPONENT_LABEL, names::COMPONENT_GATEWAY);
        let leases = Api::namespaced(client(), &leader.app.namespace);
        Self {
            codes: Watch::new(Api::all(client()), Config::default()),
            requests: Watch::new(Api::all(client()), Config::default()),
            devices: Watch::new(Api::all(client()), Config::default()),
            invocations: Watch::new(Api::all(client()), Config::default().fields(&still_open())),
            leases: Watch::new(leases, Config::default().labels(&gateways)),
            policies: Watch::new(Api::all(client()), Config::default()),
            bindings: Watch::new(Api::all(client()), Config::default()),
        }
    }

    fn context(
        &self,
        leader: &Leader,
        Begun {
            authority,
            signed_bundle,
            setup,
            user,
        }: Begun,
    ) -> Context {
        Context {
            client: leader.client.clone(),
            gateway_address: leader.app.gateway_address.clone(),
            authority,
            signed_bundle: encode(&signed_bundle),
            setup,
            user,
            codes: self.codes.store(),
            places: Places::default(),
            requests: self.requests.store(),
            devices: self.devices.store(),
            devices_sight: self.devices.sight(),
            departed: Arc::default(),
            invocations: self.invocations.store(),
            invocations_sight: self.invocations.sight(),
            backlog: Backlog::default(),
            gateways: Gateways::new(
                self.leases.store(),
                self.leases.sight(),
                leader.app.namespace.clone(),
            ),
            policies: Policies::new(
                self.policies.store(),
                self.bindings.store(),
                Account::new(
                    leader.client.clone(),
                    leader.config.clone(),
                    leader.app.namespace.clone(),
                ),
                leader.metrics.clone(),
            ),
            report: leader.report(),
            drawing: tokio::sync::Mutex::default(),
        }
    }
}

/// Ends when every store was filled once; the leader is ready then. Ends with the term, too.
fn synced(
    leader: &Leader,
    context: &Arc<Context>,
    leases: &Store<Guard<Lease>>,
    term: &CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let (context, leases) = (Arc::clone(context), leases.clone());
    let (readiness, term) = (leader.readiness.clone(), term.clone());
    async move {
        let stores = async {
            let _ = futures::join!(
                context.codes.wait_until_ready(),
                context.requests.wait_until_ready(),
                context.devices.wait_until_ready(),
                context.invocations.wait_until_ready(),
                leases.wait_until_ready(),
            );
        };
        if term.run_until_cancelled(stores).await.is_some() && !term.is_cancelled() {
            tracing::info!("Synced");
            readiness.set(true);
        }
    }
}

/// The four loops, with what wakes each.
fn loops(
    watches: &mut Watches,
    wake: &mut Wake,
    context: &Arc<Context>,
    synced: &Shared<BoxFuture<'static, ()>>,
) -> impl Future<Output = ()> + Send + use<> {
    let Watches {
        codes,
        requests,
        devices,
        invocations,
        ..
    } = watches;
    let shared = || Arc::clone(context);
    // Counted before it is looked at.
    let of_codes = each(codes.listen(), shared(), |context, code| {
        let seen = context.codes.get(code);
        context.places.note(code, seen.as_deref())
    });
    let of_requests = stream::select(
        requests.listen(),
        each(codes.listen(), shared(), |context, code| {
            requests_of(&context.requests, code)
        }),
    );
    let of_devices = stream::select(
        devices.listen(),
        each(wake.listen(), shared(), |context, gateway| {
            devices_at(&context.devices, gateway)
        }),
    );
    let of_invocations = stream::select(
        // Counted before it is looked at.
        each(invocations.listen(), shared(), |context, invocation| {
            let seen = context.invocations.get(invocation);
            context.backlog.note(invocation, seen.as_deref())
        }),
        stream::select(
            each(devices.listen(), shared(), |context, device| {
                invocations_of(&context.invocations, device)
            }),
            each(wake.listen(), shared(), |context, gateway| {
                invocations_at(context, gateway)
            }),
        ),
    );
    let codes = drive(
        context.codes.clone(),
        held(synced.clone(), of_codes),
        shared(),
    );
    let requests = drive(
        context.requests.clone(),
        held(synced.clone(), of_requests),
        shared(),
    );
    let devices = drive(
        context.devices.clone(),
        held(synced.clone(), of_devices),
        shared(),
    );
    let invocations = drive(
        context.invocations.clone(),
        held(synced.clone(), of_invocations),
        shared(),
    );
    async move {
        futures::join!(codes, requests, devices, invocations);
    }
}

/// Selects the invocations that have not ended.
fn still_open() -> String {
    InvocationPhase::TERMINAL
        .map(|phase| format!("status.phase!={}", phase.as_str()))
        .join(",")
}

/// `woken`, but not before `synced`.
fn held<T: Send + 'static>(
    synced: impl Future<Output = ()> + Send + 'static,
    woken: impl Stream<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static {
    async move {
        synced.await;
        woken
    }
    .flatten_stream()
}

/// Those whom each thing that happens wakes.
fn each<T, K>(
    happens: impl Stream<Item = T> + Send + 'static,
    context: Arc<Context>,
    wakes: impl Fn(&Context, &T) -> Vec<ObjectRef<Guard<K>>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<Guard<K>>> + Send + 'static
where
    T: Send + 'static,
    K: Resource<DynamicType = ()> + Send + 'static,
{
    happens.flat_map(move |thing| stream::iter(wakes(&context, &thing)))
}

/// The requests of a code that still wait for something.
fn requests_of(
    requests: &Store<Guard<PairingRequest>>,
    code: &ObjectRef<Guard<PairingCode>>,
) -> Vec<ObjectRef<Guard<PairingRequest>>> {
    matching(requests, |request| {
        request.metadata.namespace == code.namespace
            && request
                .spec
                .pairing_code_ref
                .as_ref()
                .is_some_and(|reference| reference.name == code.name)
            && matches!(stage(request), Stage::Waiting | Stage::Decided)
    })
}

/// The devices whose last stream a gateway held, and that have not ended it.
fn devices_at(devices: &Store<Guard<Device>>, gateway: &str) -> Vec<ObjectRef<Guard<Device>>> {
    matching(devices, |device| {
        let session = device
            .status
            .as_ref()
            .and_then(|status| status.session.as_ref());
        session.is_some_and(|session| session.gateway == gateway && session.ended_at.is_none())
    })
}

/// The open invocations of a device.
fn invocations_of(
    invocations: &Store<Guard<CapabilityInvocation>>,
    device: &ObjectRef<Guard<Device>>,
) -> Vec<ObjectRef<Guard<CapabilityInvocation>>> {
    matching(invocations, |invocation| {
        invocation.metadata.namespace == device.namespace
            && invocation.spec.device_ref.name == device.name
    })
}

/// The open invocations of the devices of a gateway.
fn invocations_at(context: &Context, gateway: &str) -> Vec<ObjectRef<Guard<CapabilityInvocation>>> {
    devices_at(&context.devices, gateway)
        .iter()
        .flat_map(|device| invocations_of(&context.invocations, device))
        .collect()
}

fn matching<K>(store: &Store<Guard<K>>, is_meant: impl Fn(&K) -> bool) -> Vec<ObjectRef<Guard<K>>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .state_filter(|object| object.0.as_ref().is_ok_and(&is_meant))
        .iter()
        .map(|object| ObjectRef::from_obj(&**object))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_that_have_ended_are_not_watched() {
        let selector = still_open();
        assert!(
            selector.starts_with("status.phase!=Succeeded,"),
            "{selector}"
        );
        assert!(
            !selector.contains("Queued") && !selector.contains("Dispatched"),
            "{selector}"
        );
    }
}
