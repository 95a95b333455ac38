//! What can be seen of an installation. Everything is bounded in time; what the caller may not see is a fact, too.

use std::time::Duration;

use crds::{
    lease,
    names::{
        ADVERTISE_ANNOTATION, COMPONENT_GATEWAY, COMPONENT_LABEL, GATEWAY_LEASE_SECONDS,
        GATEWAY_TLS_SECRET, GROUP, OPERATOR_LEASE, TRUST_BUNDLE,
    },
    policies,
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
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectList},
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
/// How long after the first look at Leases the second one is.
const LOOK_AGAIN: Duration = Duration::from_secs(GATEWAY_LEASE_SECONDS.unsigned_abs() as u64);
/// By how many seconds the clock of another machine may be ahead before a Lease is in doubt: the Lease of a dead program
/// would look fresh for so much longer.
const AHEAD: i64 = 5;
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
    /// As the last look saw it.
    pub renewed_at: Option<Timestamp>,
    /// When the last look was.
    pub seen_at: Timestamp,
    /// How long it counts after a renewal, whatever it says.
    pub seconds: i64,
    /// Why it cannot be taken at its word.
    pub not_credible: Option<String>,
    /// Whether it was renewed between two looks. `None`: no Lease was in doubt, so there was no second look.
    pub renewed: Option<bool>,
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
    /// Those that refuse what they cannot evaluate.
    pub policies: Look<Vec<String>>,
    /// Names of the policies that are bound so that they deny, everywhere.
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
        names(&validating, policies::fails_closed),
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
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    // Those that are shipped hold everywhere: a narrowed one lets pass what it does not match.
    let is_narrowed = binding
        .spec
        .as_ref()
        .is_some_and(|spec| spec.match_resources.is_some());
    policies::of(name, [binding]).next().is_some() && policies::denies(binding) && !is_narrowed
}

async fn mutating(client: &Client) -> Look<(Vec<String>, Vec<String>)> {
    let of = |kind: &str| {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&kind))
    };
    let named = |list: ObjectList<DynamicObject>| {
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

/// The Leases of operator and gateways. Where one is in doubt, all are looked at again after the time within which each
/// must be renewed. Each is then judged by its own two looks, and by its age at the second one: an age counted from the
/// first look would make every Lease look old by then.
async fn leases(client: &Client) -> (Look<Beat>, Look<Vec<Beat>>) {
    let api: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let gateways = ListParams::default().labels(&format!("{COMPONENT_LABEL}={COMPONENT_GATEWAY}"));
    let look = || async {
        let (operator, gateways) =
            tokio::join!(ask(api.get(OPERATOR_LEASE)), ask(api.list(&gateways)));
        let seen_at = now();
        let beats = |list: ObjectList<Lease>| {
            let beats = list.items.iter().map(|lease| beat(lease, seen_at));
            beats.collect::<Vec<_>>()
        };
        (
            operator.map(|lease| beat(&lease, seen_at)),
            gateways.map(beats),
        )
    };
    let (mut operator, mut gateways) = look().await;
    let mut beats = operator.iter().chain(gateways.iter().flatten());
    if beats.any(Beat::is_in_doubt) {
        tokio::time::sleep(LOOK_AGAIN).await;
        let (operator_again, gateways_again) = look().await;
        operator = operator_again.map(|beat| beat.after(operator.iter()));
        let before: Vec<Beat> = gateways.into_iter().flatten().collect();
        gateways = gateways_again.map(|beats| {
            let beats = beats.into_iter().map(|beat| beat.after(before.iter()));
            beats.collect()
        });
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

impl Beat {
    /// Whether its age, by the clock here, is that of a dead one, or lies in the future. The clocks of the two machines may
    /// differ as well.
    pub fn is_in_doubt(&self) -> bool {
        let Some(renewed_at) = self.renewed_at else {
            return true;
        };
        let age = self.seen_at.duration_since(renewed_at).as_secs();
        age > self.seconds || age < -AHEAD
    }

    /// The same, compared with what was seen before. One that is new has been made since, which is as good as a renewal.
    fn after<'a>(mut self, mut before: impl Iterator<Item = &'a Self>) -> Self {
        let before = before.find(|before| before.name == self.name);
        self.renewed = Some(before.is_none_or(|before| before.renewed_at != self.renewed_at));
        self
    }
}

fn beat(lease: &Lease, seen_at: Timestamp) -> Beat {
    let spec = lease.spec.clone().unwrap_or_default();
    Beat {
        name: lease.name_any(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        renewed_at: spec.renew_time.map(|time| time.0),
        seen_at,
        seconds: lease::lasts(lease).as_secs(),
        not_credible: lease::not_credible(lease, seen_at),
        renewed: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn beat(name: &str, renewed_at: i64, seen_at: i64) -> Beat {
        Beat {
            name: name.to_owned(),
            holder: None,
            renewed_at: Some(at(renewed_at)),
            seen_at: at(seen_at),
            seconds: 15,
            not_credible: None,
            renewed: None,
            address: None,
            reached: None,
        }
    }

    #[test]
    fn each_is_judged_by_its_own_two_looks() {
        // One is dead, so all were looked at again: the other one was renewed meanwhile, and is young at the second look.
        let before = [beat("alive", 95, 100), beat("dead", 70, 100)];
        assert!(!before[0].is_in_doubt() && before[1].is_in_doubt());
        let alive = beat("alive", 112, 115).after(before.iter());
        assert_eq!((alive.renewed, alive.is_in_doubt()), (Some(true), false));
        let dead = beat("dead", 70, 115).after(before.iter());
        assert_eq!((dead.renewed, dead.is_in_doubt()), (Some(false), true));
        let new = beat("new", 114, 115).after(before.iter());
        assert_eq!(new.renewed, Some(true));
    }

    #[test]
    fn a_renewal_in_the_future_is_in_doubt_too() {
        assert!(beat("a", 3000, 100).is_in_doubt());
        assert!(!beat("a", 103, 100).is_in_doubt());
    }
}
