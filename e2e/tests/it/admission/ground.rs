//! The control plane of the admission trials: everything installed, nobody but the trials in it, and people with roles.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use e2e::controlplane::{Binaries, ControlPlane};
use e2e::install::install;
use e2e::wait::until;
use http::{Method, Request};
use kube::Client;
use kube::config::Kubeconfig;
use runtime::kubeconfig::{self, Choice};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::objects;
use super::step::{
    ADA, ADMIN, DORA, GATEWAY, HUGO, IRIS, IVAN, NILS, NORA, OLGA, OPERATOR, PAUL, RITA, VERA, Who,
};

const SOON: Duration = Duration::from_secs(30);

/// Namespaces with this label have no mutating policies: there, users write themselves who they are, as they do on a
/// Kubernetes that serves none.
pub const WITHOUT_STAMPS: &str = "admission.test/without-stamps";

/// The namespace in which one user has rights that he has nowhere else.
pub const HOME: &str = "home";

/// Who holds which ClusterRole, everywhere. The `trial-` roles are [`objects::roles`].
const HOLDERS: &[(Who, &[&str])] = &[
    (ADA, &["fairlead-pairing-approver"]),
    (
        RITA,
        &["fairlead-pairing-approver", "fairlead-device-administrator"],
    ),
    (DORA, &["fairlead-device-administrator"]),
    (IVAN, &["fairlead-invoker"]),
    (HUGO, &["fairlead-health-invoker"]),
    (IRIS, &["trial-writer", "trial-kiosk-invoker"]),
    (VERA, &["fairlead-viewer"]),
    (PAUL, &["trial-writer"]),
    (OLGA, &["trial-changer"]),
    (NILS, &["trial-writer"]),
    (NORA, &["trial-writer", "trial-approver-of-one"]),
    // A mistake of an administrator, against which the policies stand.
    (GATEWAY, &["trial-everything"]),
    (OPERATOR, &["trial-writer"]),
];

/// Boots with the first trial that runs, and is gone with the last one.
pub struct Ground {
    folder: PathBuf,
    plane: OnceLock<Result<Plane, String>>,
}

/// A booted control plane.
pub struct Plane {
    kubeconfig: Kubeconfig,
    clients: Mutex<HashMap<Who, Client>>,
    /// There until this is dropped.
    processes: Option<ControlPlane>,
    runtime: Runtime,
}

impl Ground {
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            plane: OnceLock::new(),
        }
    }

    /// Runs a trial on it.
    pub fn run(&self, trial: impl AsyncFnOnce(&Plane) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let booted = self
            .plane
            .get_or_init(|| self.boot().map_err(|error| format!("{error:?}")));
        let plane = booted.as_ref().map_err(|error| anyhow!("boot: {error}"))?;
        plane.runtime.block_on(async {
            tokio::time::timeout(SOON * 2, trial(plane))
                .await
                .context("not done in time")?
        })
    }

    fn boot(&self) -> anyhow::Result<Plane> {
        let runtime = Runtime::new().context("start the runtime")?;
        let binaries = Binaries::find()?;
        let control_plane = runtime.block_on(ControlPlane::start(&binaries, &self.folder))?;
        let kubeconfig = Kubeconfig::read_from(control_plane.cluster().kubeconfig())?;
        let plane = Plane {
            kubeconfig,
            clients: Mutex::new(HashMap::from([(ADMIN, control_plane.client())])),
            processes: Some(control_plane),
            runtime,
        };
        plane.runtime.block_on(plane.furnish())?;
        Ok(plane)
    }
}

impl Drop for Plane {
    /// Stops it in order: the run's folder is removed next, and a process that is still dying would write into it.
    fn drop(&mut self) {
        let Some(mut control_plane) = self.processes.take() else {
            return;
        };
        let stopped = self.runtime.block_on(async {
            // It would wait for the watches of nobody.
            control_plane.kill_api_server().await?;
            control_plane.stop().await
        });
        if let Err(error) = stopped {
            eprintln!("Stopping the control plane of the admission trials failed: {error:#}");
        }
    }
}

impl Plane {
    /// A client that speaks as that user. `admin` is the administrator, the others are impersonated by him.
    pub fn client(&self, who: Who) -> anyhow::Result<Client> {
        let known = self.clients().get(&who).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let mut config = kubeconfig::of(self.kubeconfig.clone(), &Choice::default())?;
        config.auth_info.impersonate = Some(who.0.to_owned());
        let client = Client::try_from(config)?;
        self.clients().insert(who, client.clone());
        Ok(client)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<Who, Client>> {
        self.clients.lock().expect("nobody panics while holding it")
    }

    /// Asks the API server something as that user, with the token of a pod where one is named. The body is JSON.
    pub async fn ask(
        &self,
        who: Who,
        pod: Option<&str>,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> anyhow::Result<kube::Result<Value>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content_type);
        let mut speaker = who;
        if let Some(pod) = pod {
            // The claim that the API server reads from a token that is bound to a pod.
            let claim = "Impersonate-Extra-Authentication.kubernetes.io%2fpod-Name";
            request = request.header("Impersonate-User", who.0).header(claim, pod);
            speaker = ADMIN;
        }
        let request = request.body(serde_json::to_vec(body)?)?;
        Ok(self.client(speaker)?.request(request).await)
    }

    pub async fn make(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let made = self
            .ask(ADMIN, None, Method::POST, path, "application/json", object)
            .await?;
        made.with_context(|| format!("make {} {}", object["kind"], object["metadata"]["name"]))?;
        Ok(())
    }

    /// Whether the user may, by roles alone.
    pub async fn may(&self, who: Who, attributes: &Value) -> anyhow::Result<bool> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": { "user": who.0, "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let review = self
            .ask(ADMIN, None, Method::POST, path, "application/json", &review)
            .await??;
        Ok(review["status"]["allowed"] == true)
    }

    async fn furnish(&self) -> anyhow::Result<()> {
        let installed = install(&self.client(ADMIN)?).await?;
        for role in objects::roles() {
            self.make(&format!("{RBAC}/clusterroles"), &role).await?;
        }
        for (who, roles) in HOLDERS {
            for role in *roles {
                let binding = objects::binding("ClusterRoleBinding", *who, role);
                self.make(&format!("{RBAC}/clusterrolebindings"), &binding)
                    .await?;
            }
        }
        self.make("/api/v1/namespaces", &objects::namespace(HOME, true))
            .await?;
        let at_home = objects::binding("RoleBinding", NILS, "fairlead-invoker");
        self.make(&format!("{RBAC}/namespaces/{HOME}/rolebindings"), &at_home)
            .await?;
        // The API server learns of roles and bindings in the order in which they were made.
        let last = json!({
            "group": "fairlead.dev", "resource": "capabilities", "verb": "invoke", "namespace": HOME, "name": "echo",
        });
        until("roles are in force", SOON, async || {
            Ok(self.may(NILS, &last).await?.then_some(()))
        })
        .await?;

        ensure!(
            installed.skipped.is_empty(),
            "not served here: {:?}",
            installed.skipped
        );
        self.take_stamps_away().await
    }

    async fn take_stamps_away(&self) -> anyhow::Result<()> {
        let bindings = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
        let listed = self
            .ask(
                ADMIN,
                None,
                Method::GET,
                bindings,
                "application/json",
                &Value::Null,
            )
            .await??;
        let names: Vec<String> = listed["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|binding| binding["metadata"]["name"].as_str())
            .filter(|name| name.ends_with(".fairlead.dev"))
            .map(str::to_owned)
            .collect();
        ensure!(names.len() == 3, "mutating policies: {names:?}");
        let elsewhere = json!({ "spec": { "matchResources": { "namespaceSelector": { "matchExpressions": [
            { "key": WITHOUT_STAMPS, "operator": "DoesNotExist" },
        ] } } } });
        for name in names {
            let path = format!("{bindings}/{name}");
            self.ask(ADMIN, None, Method::PATCH, &path, MERGE_PATCH, &elsewhere)
                .await??;
        }
        let unstamped = "unstamped";
        self.make("/api/v1/namespaces", &objects::namespace(unstamped, false))
            .await?;
        for object in [
            objects::request("x"),
            objects::invocation("x", "kiosk", "echo"),
        ] {
            let path = format!("{}?dryRun=All", objects::path_of(unstamped, &object));
            until("no stamps are made there", SOON, async || {
                let made = self
                    .ask(
                        ADMIN,
                        None,
                        Method::POST,
                        &path,
                        "application/json",
                        &object,
                    )
                    .await?;
                Ok(made.is_err().then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

pub const MERGE_PATCH: &str = "application/merge-patch+json";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
