//! The cluster, with the rights of the caller's kubeconfig and none beside them.

pub mod patience;

use std::{error::Error, fmt::Debug, iter::successors, path::PathBuf, time::Duration};

use anyhow::Context as _;
use crds::Guarded;
use k8s_openapi::{NamespaceResourceScope, api::authentication::v1::SelfSubjectReview};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PatchParams, PostParams},
    client::AuthError,
    runtime::watcher,
};
use runtime::kubeconfig::{self, Choice};
use serde::de::DeserializeOwned;

use patience::{Unreachable, patient};

/// Field manager of every write: `kubectl get --show-managed-fields` shows which fields this program set.
pub const FIELD_MANAGER: &str = "kubectl-fairlead";

/// Objects that are read at once.
const PAGE: u32 = 500;
/// Most objects that are read of one list: who has more narrows it.
const MAX_OBJECTS: usize = 100_000;

/// Where the program's own objects are.
pub const SYSTEM_NAMESPACE: &str = "fairlead-system";

/// Which cluster, and which of its namespaces. Spelt as kubectl spells it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArgs {
    /// The kubeconfig [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The namespace [default: that of the context].
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// User to impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// Group to impersonate, beside --as; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    as_groups: Vec<String>,
    /// How long a request may wait for an answer: 30s, 1m30s; 0 for no limit [default: no limit].
    #[arg(long, global = true, value_name = "LENGTH", value_parser = kubeconfig::parse_timeout)]
    request_timeout: Option<Duration>,
}

/// A cluster and a namespace of it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub config: Config,
    pub namespace: String,
}

impl ClusterArgs {
    /// Reads the kubeconfig. Nothing is asked yet, but for what a plugin of it asks.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let choice = Choice {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            user: self.as_user.clone(),
            groups: self.as_groups.clone(),
            request_timeout: self.request_timeout,
        };
        let config = tokio::task::spawn_blocking(move || kubeconfig::choose(&choice)).await??;
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config.clone())
            .map_err(told)
            .context("prepare the connection")?;
        let client = patient(&client, &config.cluster_url.to_string());
        Ok(Cluster {
            client,
            config,
            namespace,
        })
    }
}

/// Parameters of a patch by this program.
pub fn patching() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Parameters of a creation by this program.
pub fn posting() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Objects of one namespace, or of all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    One,
    All,
}

impl Cluster {
    /// Objects of the caller's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of that span.
    pub fn span<K>(&self, span: Span) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match span {
            Span::One => self.api(),
            Span::All => Api::all(self.client.clone()),
        }
    }

    /// The user that the API server takes the caller for: policies demand that a decision says who made it.
    pub async fn user(&self) -> anyhow::Result<String> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = reviews
            .create(&posting(), &SelfSubjectReview::default())
            .await
            .context("ask the API server who you are")?;
        review
            .status
            .and_then(|status| status.user_info)
            .and_then(|user| user.username)
            .context("the API server does not say who you are")
    }
}

/// A list as far as it can be read.
#[derive(Debug)]
pub struct Listed<K> {
    pub objects: Vec<K>,
    /// What is wrong with others, each in a line.
    pub unreadable: Vec<String>,
}

/// Which objects of a list are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Select<'a> {
    /// A field selector.
    pub fields: Option<&'a str>,
    /// A label selector.
    pub labels: Option<&'a str>,
}

impl<'a> Select<'a> {
    pub fn fields(fields: &'a str) -> Self {
        Self {
            fields: Some(fields),
            labels: None,
        }
    }
}

/// All selected objects, page by page. One that cannot be read does not hide the others.
pub async fn list<K>(api: &Api<Guarded<K>>, select: Select<'_>) -> kube::Result<Listed<K>>
where
    K: Clone + Debug + DeserializeOwned,
    Guarded<K>: Clone + Debug + DeserializeOwned,
{
    list_trimmed(api, select, |_| {}).await
}

/// As [`list`], with `trim` applied to each object before the next page is read: a list of objects with large parts that
/// nobody shows then fits into memory.
pub async fn list_trimmed<K>(
    api: &Api<Guarded<K>>,
    select: Select<'_>,
    trim: impl Fn(&mut K),
) -> kube::Result<Listed<K>>
where
    K: Clone + Debug + DeserializeOwned,
    Guarded<K>: Clone + Debug + DeserializeOwned,
{
    let mut listed = Listed {
        objects: Vec::new(),
        unreadable: Vec::new(),
    };
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = select.fields.map(str::to_owned);
    params.label_selector = select.labels.map(str::to_owned);
    loop {
        let page = api.list(&params).await?;
        for Guarded(object) in page.items {
            match object {
                Ok(mut object) => {
                    trim(&mut object);
                    listed.objects.push(object);
                }
                Err(invalid) => listed.unreadable.push(format!(
                    "{} cannot be read: {invalid}",
                    invalid.metadata.name.as_deref().unwrap_or("an object")
                )),
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() || listed.objects.len() >= MAX_OBJECTS {
            return Ok(listed);
        }
    }
}

/// Whether the API server says that the caller may not.
pub fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// What to tell a caller who may not watch; `None` for what is tried again by itself.
pub fn forbids_watch(error: watcher::Error) -> Option<anyhow::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => is_forbidden(&error).then(|| told(error)),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// Whether there is no such object, or no such kind.
pub fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What to tell the caller. kube's own words repeat the whole answer of the API server, and all that a plugin for
/// credentials printed: a token may be in that.
pub fn told(error: kube::Error) -> anyhow::Error {
    if let kube::Error::Api(status) = &error
        && !status.message.is_empty()
    {
        return anyhow::anyhow!("{}", status.message);
    }
    if let kube::Error::Service(cause) = &error
        && let Some(unreachable) = cause.downcast_ref::<Unreachable>()
    {
        return anyhow::anyhow!("{unreachable}");
    }
    let mut causes = successors(Some(&error as &(dyn Error + 'static)), |&cause| {
        cause.source()
    });
    match causes.find_map(|cause| cause.downcast_ref::<AuthError>()) {
        // Its command line, as kube tells it, begins with the variables that it is given.
        Some(AuthError::AuthExecRun { cmd: _, out }) => anyhow::anyhow!(
            "the plugin of the kubeconfig ended with {}: run it by itself to see what it says",
            out.status
        ),
        Some(AuthError::AuthExecParse(_)) => {
            anyhow::anyhow!("what the plugin of the kubeconfig printed are no credentials")
        }
        Some(_) | None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;
    use serde_json::json;

    use super::*;

    /// What somebody is told whose kubeconfig names a plugin that runs this.
    fn told_of(script: &str) -> String {
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": {"exec": {
                "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
                "command": "/bin/sh", "args": ["-c", script], "env": [{"name": "A", "value": "SECRET"}],
            }}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }))
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, serde_json::to_vec(&kubeconfig).unwrap()).unwrap();
        let args = ClusterArgs {
            kubeconfig: Some(path),
            ..ClusterArgs::default()
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let error = runtime.block_on(args.connect()).err().unwrap();
        format!("{error:#}")
    }

    #[test]
    fn what_a_plugin_printed_is_not_told() {
        let failed = told_of("echo SECRET; echo SECRET >&2; exit 3");
        assert!(failed.contains("ended with exit status: 3"), "{failed}");
        let unreadable = told_of("echo '{SECRET: ['");
        assert!(unreadable.contains("no credentials"), "{unreadable}");
        for text in [failed, unreadable] {
            assert!(!text.contains("SECRET"), "{text}");
        }
    }
}
