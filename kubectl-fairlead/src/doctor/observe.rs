//! What can be seen of an installation. Everything is bounded in time; what the caller may not see is a fact, too.

use std::time::Duration;

use crds::{
    lease,
    names::{
        ADVERTISE_ANNOTATION, COMPONENT_GATEWAY, COMPONENT_LABEL, GATEWAY_LEASE_SECONDS,
        GATEWAY_TLS_SECRET, GROUP, OPERATOR_LEASE, TRUST_BUNDLE,
    },
};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};
use x509_parser::prelude::{FromDer as _, Pem, X509Certificate};

use crate::{
    clock::now,
    cluster::{Cluster, SYSTEM_NAMESPACE, is_forbidden, is_missing, told},
};

/// How long one question to the API server may take.
const ASK: Duration = Duration::from_secs(15);
/// How long a connection to a gateway may take.
const CONNECT: Duration = Duration::from_secs(3);
/// Most gateways that are connected to.
const MAX_GATEWAYS: usize = 32;

/// Why something was not seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unseen {
    /// The caller may not; the API server's words.
    Forbidden(String),
    /// There is none.
    Missing,
    Failed(String),
}

pub type Look<T> = Result<T, Unseen>;

/// A Lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Beat {
    pub name: String,
    pub holder: Option<String>,
    pub renewed_at: Option<Timestamp>,
    /// How long it counts after a renewal, whatever it says.
    pub seconds: i64,
    /// Why it cannot be taken at its word.
    pub not_credible: Option<String>,
    /// Whether it was renewed between two looks. `None`: there was no second look.
    pub beats: Option<bool>,
    /// Where it is reached, and whether it can be from here.
    pub address: Option<String>,
    pub reached: Option<Result<(), String>>,
}

/// All that was seen.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Minor version of Kubernetes 1.
    pub minor: Look<u32>,
    /// Resources of our group that are served.
    pub resources: Look<Vec<String>>,
    pub policies: Look<Vec<String>>,
    /// Names of the policies that are bound so that they deny.
    pub bindings: Look<Vec<String>>,
    /// Mutating policies with their bindings, where they are served.
    pub mutating: Look<(Vec<String>, Vec<String>)>,
    pub roles: Look<Vec<String>>,
    pub role_bindings: Look<Vec<String>>,
    pub operator: Look<Beat>,
    pub gateways: Look<Vec<Beat>>,
    /// Ends of the authorities' certificates.
    pub authorities: Look<Vec<Timestamp>>,
    /// End of the certificate that gateways serve with.
    pub serving: Look<Timestamp>,
}

pub async fn observe(cluster: &Cluster) -> anyhow::Result<Observed> {
    let client = &cluster.client;
    let validating = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let (roles, role_bindings) = (
        Api::<ClusterRole>::all(client.clone()),
        Api::<ClusterRoleBinding>::all(client.clone()),
    );
    let (minor, resources, policies, bindings, mutating, roles, role_bindings) = tokio::join!(
        minor(client),
        resources(client),
        names(&validating, |_| true),
        names(&bindings, denies),
        mutating(client),
        names(&roles, |_| true),
        names(&role_bindings, |_| true),
    );
    // Without any answer there is nothing to say but that.
    if let Err(Unseen::Failed(why)) = &minor {
        anyhow::bail!("the API server does not answer: {why}");
    }
    let (leases, authorities, serving) =
        tokio::join!(leases(client), authorities(client), serving(client));
    let (operator, gateways) = leases;
    Ok(Observed {
        minor,
        resources,
        policies,
        bindings,
        mutating,
        roles,
        role_bindings,
        operator,
        gateways,
        authorities,
        serving,
    })
}

/// Within the time.
async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Look<T> {
    match timeout(ASK, request).await {
        Err(_) => Err(Unseen::Failed(format!(
            "no answer within {} s",
            ASK.as_secs()
        ))),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) if is_forbidden(&error) => {
            Err(Unseen::Forbidden(format!("{:#}", told(error))))
        }
        Ok(Err(error)) if is_missing(&error) => Err(Unseen::Missing),
        Ok(Err(error)) => Err(Unseen::Failed(format!("{:#}", told(error)))),
    }
}

async fn minor(client: &Client) -> Look<u32> {
    let version = ask(client.apiserver_version()).await?;
    // Some distributions write `34+`.
    let digits: String = version
        .minor
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().map_err(|_| {
        Unseen::Failed(format!(
            "its version is {}.{}",
            version.major, version.minor
        ))
    })
}

/// By discovery, which everybody may ask: what is served is established.
async fn resources(client: &Client) -> Look<Vec<String>> {
    let list = ask(client.list_api_group_resources(&format!("{GROUP}/v1alpha1"))).await?;
    Ok(list
        .resources
        .into_iter()
        .map(|resource| resource.name)
        .collect())
}

async fn names<K>(api: &Api<K>, wanted: impl Fn(&K) -> bool) -> Look<Vec<String>>
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let list = ask(api.list(&ListParams::default().limit(5000))).await?;
    Ok(list
        .items
        .iter()
        .filter(|object| wanted(object))
        .map(ResourceExt::name_any)
        .collect())
}

fn denies(binding: &ValidatingAdmissionPolicyBinding) -> bool {
    binding.spec.as_ref().is_some_and(|spec| {
        let actions = spec.validation_actions.as_deref().unwrap_or_default();
        spec.policy_name.as_deref() == binding.metadata.name.as_deref()
            && actions.iter().any(|action| action == "Deny")
    })
}

async fn mutating(client: &Client) -> Look<(Vec<String>, Vec<String>)> {
    let of = |kind: &str| {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&kind))
    };
    let named = |list: kube::core::ObjectList<DynamicObject>| {
        list.items
            .iter()
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>()
    };
    let params = ListParams::default().limit(5000);
    let policies = ask(of("MutatingAdmissionPolicy").list(&params)).await?;
    let bindings = ask(of("MutatingAdmissionPolicyBinding").list(&params)).await?;
    Ok((named(policies), named(bindings)))
}

/// The Leases of operator and gateways. One that looks as if nobody renewed it is looked at again after the time in which
/// it must be: clocks of two machines differ, and a Lease that beats is alive whatever this one says.
async fn leases(client: &Client) -> (Look<Beat>, Look<Vec<Beat>>) {
    let api: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let gateways = ListParams::default().labels(&format!("{COMPONENT_LABEL}={COMPONENT_GATEWAY}"));
    let look = || async {
        let (operator, gateways) =
            tokio::join!(ask(api.get(OPERATOR_LEASE)), ask(api.list(&gateways)));
        (
            operator.map(|lease| beat(&lease, now())),
            gateways.map(|list| {
                let beats = list.items.iter().map(|lease| beat(lease, now()));
                beats.collect::<Vec<_>>()
            }),
        )
    };
    let (mut operator, mut gateways) = look().await;
    let now = now();
    let doubted = operator
        .iter()
        .chain(gateways.iter().flatten())
        .any(|beat| looks_dead(beat, now));
    if doubted {
        tokio::time::sleep(Duration::from_secs(
            GATEWAY_LEASE_SECONDS.unsigned_abs().into(),
        ))
        .await;
        let (operator_again, gateways_again) = look().await;
        if let (Ok(before), Ok(after)) = (&mut operator, &operator_again) {
            before.beats = Some(before.renewed_at != after.renewed_at);
        }
        if let (Ok(before), Ok(after)) = (&mut gateways, &gateways_again) {
            for beat in before {
                let after = after.iter().find(|after| after.name == beat.name);
                beat.beats = Some(after.is_some_and(|after| after.renewed_at != beat.renewed_at));
            }
        }
    }
    if let Ok(gateways) = &mut gateways {
        let dials = gateways
            .iter()
            .take(MAX_GATEWAYS)
            .map(|beat| dial(beat.address.clone()));
        let reached = join_all(dials).await;
        for (beat, reached) in gateways.iter_mut().zip(reached) {
            beat.reached = reached;
        }
    }
    (operator, gateways)
}

/// By this machine's clock. A renewal in the future vouches for nobody.
pub fn looks_dead(beat: &Beat, now: Timestamp) -> bool {
    beat.renewed_at.is_none_or(|at| {
        now.duration_since(at).as_secs() > beat.seconds || lease::is_ahead(at, now)
    })
}

fn beat(lease: &Lease, now: Timestamp) -> Beat {
    let (seconds, not_credible) = (
        lease::lasts(lease).as_secs(),
        lease::not_credible(lease, now),
    );
    let spec = lease.spec.clone().unwrap_or_default();
    Beat {
        name: lease.name_any(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        renewed_at: spec.renew_time.map(|time| time.0),
        seconds,
        not_credible,
        beats: None,
        address: lease.annotations().get(ADVERTISE_ANNOTATION).cloned(),
        reached: None,
    }
}

/// Whether the port can be reached from here. Nothing is said on it: to speak there takes a device's certificate.
async fn dial(address: Option<String>) -> Option<Result<(), String>> {
    let address = address?;
    Some(match timeout(CONNECT, TcpStream::connect(&address)).await {
        Err(_) => Err(format!("no answer within {} s", CONNECT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(_)) => Ok(()),
    })
}

async fn authorities(client: &Client) -> Look<Vec<Timestamp>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let map = ask(maps.get(TRUST_BUNDLE)).await?;
    let pem = map
        .data
        .and_then(|data| data.get("ca.crt").cloned())
        .unwrap_or_default();
    ends(pem.as_bytes())
}

async fn serving(client: &Client) -> Look<Timestamp> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let secret = ask(secrets.get(GATEWAY_TLS_SECRET)).await?;
    let ByteString(pem) = secret
        .data
        .and_then(|data| data.get("tls.crt").cloned())
        .unwrap_or_default();
    // The leaf is the first.
    ends(&pem)?
        .first()
        .copied()
        .ok_or_else(|| Unseen::Failed("the Secret holds no certificate".to_owned()))
}

/// When the certificates of a PEM text end.
pub fn ends(pem: &[u8]) -> Look<Vec<Timestamp>> {
    let unreadable = || Unseen::Failed("a certificate cannot be read".to_owned());
    Pem::iter_from_buffer(pem)
        .map(|pem| {
            let pem = pem.map_err(|_| unreadable())?;
            let (_, certificate) =
                X509Certificate::from_der(&pem.contents).map_err(|_| unreadable())?;
            Timestamp::from_second(certificate.validity().not_after.timestamp())
                .map_err(|_| unreadable())
        })
        .collect()
}
