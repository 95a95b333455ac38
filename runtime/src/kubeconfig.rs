//! How a program finds the API server: kubeconfigs, impersonation, timeouts and proxies, as kubectl reads them.
//!
//! kube parses the files. This module chooses and merges them, because kube 5.0 differs from kubectl:
//!
//! - a missing file of several in `KUBECONFIG` is an error;
//! - `NO_PROXY` is held against the proxy, not against the API server, and an empty entry is an error.

use std::{env, io, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use kube::{
    Config,
    config::{ExecAuthCluster, Kubeconfig, KubeconfigError},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::proxy::{Proxies, ProxyUrl, variable};

/// What kubectl takes on its command line. The default is what it does without.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The one kubeconfig. `None`: the files of `KUBECONFIG`, or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// `None`: the current context.
    pub context: Option<String>,
    /// User to impersonate.
    pub user: Option<String>,
    /// Groups to impersonate; only beside a user.
    pub groups: Vec<String>,
    /// How long a request may wait for bytes; zero for no limit.
    pub request_timeout: Option<Duration>,
}

/// Reads `--request-timeout` as kubectl does: `0` for no limit, a number of seconds, or lengths such as `1m30s`.
///
/// # Errors
/// Where it is neither.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|length| Duration::try_from(length).ok())
        .ok_or_else(|| {
            "not a valid timeout; give seconds, or a length such as 30s or 1m30s".to_owned()
        })
}

/// The API server of the kubeconfig; where there is no kubeconfig, that of the pod that this program runs in.
///
/// # Errors
/// Where a kubeconfig cannot be used, or there is neither.
pub fn infer() -> anyhow::Result<Config> {
    let Some(kubeconfig) = read(None)? else {
        return Config::incluster().context(
            "find the API server: there is no kubeconfig, and this is not a pod with a ServiceAccount; set KUBECONFIG",
        );
    };
    let mut config = of(kubeconfig, &Choice::default())?;
    config.apply_debug_overrides();
    Ok(config)
}

/// The API server that a caller of a command line chooses.
///
/// # Errors
/// Where there is no kubeconfig, or it cannot be used.
pub fn choose(choice: &Choice) -> anyhow::Result<Config> {
    let kubeconfig = read(choice.kubeconfig.as_ref())?.with_context(|| {
        format!(
            "find a kubeconfig: {}; set KUBECONFIG or give --kubeconfig",
            match env::var(KUBECONFIG) {
                Ok(paths) if !paths.is_empty() =>
                    format!("no file of KUBECONFIG={paths} exists or has contents"),
                Ok(_) | Err(_) => "there is no ~/.kube/config".to_owned(),
            }
        )
    })?;
    of(kubeconfig, choice)
}

/// The API server of a kubeconfig that was read already. `choice.kubeconfig` is not looked at.
///
/// # Errors
/// Where the kubeconfig or the environment's proxy cannot be used.
pub fn of(kubeconfig: Kubeconfig, choice: &Choice) -> anyhow::Result<Config> {
    let Choice {
        kubeconfig: _,
        context,
        user,
        groups,
        request_timeout,
    } = choice;
    if user.is_none() && !groups.is_empty() {
        bail!("impersonate a group: no user was given; add --as USER");
    }
    let Chosen { mut config, proxy } = chosen(kubeconfig, context.as_deref())?;
    config.proxy_url = proxy_towards(proxy, &config, variable)?;
    if let Some(user) = user {
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups = Some(groups.clone());
        config.auth_info.impersonate_uid = None;
        config.auth_info.impersonate_user_extra = None;
    }
    if let Some(timeout) = request_timeout.filter(|timeout| !timeout.is_zero()) {
        config.connect_timeout = Some(timeout);
        config.read_timeout = Some(timeout);
        config.write_timeout = Some(timeout);
        // Else a connection that was idle for that long counts as silent.
        config.reset_reader_on_write = true;
    }
    Ok(config)
}

const KUBECONFIG: &str = "KUBECONFIG";

/// `None` where no file exists.
fn read(path: Option<&PathBuf>) -> anyhow::Result<Option<Kubeconfig>> {
    if let Some(path) = path {
        let read =
            Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
        return Ok(Some(read));
    }
    let named = env::var_os(KUBECONFIG).filter(|paths| !paths.is_empty());
    match named {
        Some(paths) => merge(env::split_paths(&paths)),
        None => merge(env::home_dir().map(|home| home.join(".kube/config"))),
    }
}

/// Merges the files that exist; `None` where none does.
fn merge(paths: impl IntoIterator<Item = PathBuf>) -> anyhow::Result<Option<Kubeconfig>> {
    let mut merged: Option<Kubeconfig> = None;
    for path in paths {
        if path.as_os_str().is_empty() {
            continue;
        }
        let next = match Kubeconfig::read_from(&path) {
            Ok(next) => next,
            Err(KubeconfigError::ReadConfig(error, _))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                continue;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", path.display()));
            }
        };
        merged = Some(match merged {
            None => next,
            Some(merged) => merged
                .merge(next)
                .with_context(|| format!("merge {}", path.display()))?,
        });
    }
    Ok(merged)
}

/// What a context comes to.
struct Chosen {
    /// Without a proxy.
    config: Config,
    /// The proxy that the kubeconfig names for the cluster.
    proxy: Option<String>,
}

fn chosen(kubeconfig: Kubeconfig, context: Option<&str>) -> anyhow::Result<Chosen> {
    let Kubeconfig {
        clusters,
        contexts,
        auth_infos,
        current_context,
        ..
    } = kubeconfig;
    let name = context
        .or(current_context.as_deref())
        .context("use the kubeconfig: it has no current context; give --context, or run kubectl config use-context")?;
    let context = contexts
        .iter()
        .find(|one| one.name == name)
        .and_then(|one| one.context.clone())
        .with_context(|| {
            format!("use the kubeconfig: it has no context {name}; list them with kubectl config get-contexts")
        })?;
    let cluster = clusters
        .into_iter()
        .find(|one| one.name == context.cluster)
        .and_then(|one| one.cluster)
        .with_context(|| {
            format!(
                "use context {name} of the kubeconfig: there is no cluster {}",
                context.cluster
            )
        })?;
    // As kubectl: a context without a user, or with one that is missing, has no credentials.
    let mut user = auth_infos
        .into_iter()
        .find(|one| Some(&one.name) == context.user.as_ref())
        .and_then(|one| one.auth_info)
        .unwrap_or_default();
    let shown = ExecAuthCluster::try_from(&cluster).context("use the kubeconfig")?;
    let authorities = shown.certificate_authority_data.clone();
    if let Some(exec) = &mut user.exec
        && exec.provide_cluster_info
    {
        exec.cluster = Some(shown);
    }
    let server = cluster.server.with_context(|| {
        format!("use context {name} of the kubeconfig: its cluster has no server")
    })?;
    let server = server
        .parse()
        .with_context(|| format!("use the server of context {name} of the kubeconfig"))?;
    let mut config = Config::new(server);
    if let Some(namespace) = context.namespace.filter(|namespace| !namespace.is_empty()) {
        config.default_namespace = namespace;
    }
    config.root_cert = authorities.map(|pem| certificates(&pem)).transpose()?;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
    config.disable_compression = cluster.disable_compression.unwrap_or_default();
    config.tls_server_name = cluster.tls_server_name;
    config.auth_info = user;
    Ok(Chosen {
        config,
        proxy: cluster.proxy_url.filter(|url| !url.is_empty()),
    })
}

/// DER of each certificate.
fn certificates(pem: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let read = CertificateDer::pem_slice_iter(pem);
    let ders = read.map(|der| der.map(|der| der.to_vec()));
    ders.collect::<Result<_, _>>().map_err(|error| {
        anyhow::anyhow!("read the certificate authority of the kubeconfig: {error}")
    })
}

/// What the kubeconfig names counts for every destination; `NO_PROXY` is for proxies of the environment.
fn proxy_towards(
    named: Option<String>,
    config: &Config,
    variables: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<http::Uri>> {
    let url = &config.cluster_url;
    let is_tls = url.scheme_str() != Some("http");
    let (host, port) = (
        url.host().unwrap_or_default().trim_matches(['[', ']']),
        url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
    );
    let proxy: Option<ProxyUrl> = match named {
        Some(named) => Some(named.parse().context("read proxy-url of the kubeconfig")?),
        None if is_tls => Proxies::for_tls(variables)?.towards(host, port).cloned(),
        None => Proxies::for_plaintext(variables)?
            .towards(host, port)
            .cloned(),
    };
    // kube's errors about a proxy show its URL: the text is one that it can read.
    proxy
        .map(|proxy| {
            let url = proxy.expose();
            url.parse()
                .map_err(|_| anyhow::anyhow!("use the proxy {proxy}: its URL is not valid"))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn kubeconfig(name: &str) -> serde_json::Value {
        json!({
            "clusters": [{"name": name, "cluster": {"server": format!("https://{name}.example:6443")}}],
            "users": [{"name": name, "user": {"token": name}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        })
    }

    #[test]
    fn a_missing_file_of_several_is_passed_over_and_the_first_value_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            std::fs::write(path(name), kubeconfig(name).to_string()).unwrap();
        }
        let merged = merge([path("missing"), PathBuf::new(), path("a"), path("b")])
            .unwrap()
            .unwrap();
        assert_eq!(merged.current_context.as_deref(), Some("a"));
        assert_eq!(merged.contexts.len(), 2);
        assert!(merge([path("missing")]).unwrap().is_none());

        let choice = Choice {
            context: Some("b".to_owned()),
            ..Choice::default()
        };
        let config = of(merged, &choice).unwrap();
        assert_eq!(config.cluster_url.host(), Some("b.example"));

        std::fs::write(path("broken"), "[").unwrap();
        let error = merge([path("a"), path("broken")]).unwrap_err();
        assert!(format!("{error:#}").contains("broken"), "{error:#}");
    }

    #[test]
    fn a_timeout_is_seconds_or_a_length() {
        for (text, expected) in [
            ("0", Some(0)),
            ("30", Some(30)),
            ("30s", Some(30)),
            ("1m30s", Some(90)),
            ("2h", Some(7200)),
            ("-1", None),
            ("-1s", None),
            ("soon", None),
            ("", None),
        ] {
            let read = parse_timeout(text).ok();
            assert_eq!(read, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn what_a_context_names_is_used_as_kube_uses_it() {
        let mut value = kubeconfig("a");
        let issuer =
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmFHVnNiRzhLCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";
        value["clusters"][0]["cluster"]["certificate-authority-data"] = json!(issuer);
        value["clusters"][0]["cluster"]["tls-server-name"] = json!("kubernetes");
        value["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = json!(true);
        value["contexts"][0]["context"]["namespace"] = json!("kitchen");
        let read: Kubeconfig = serde_json::from_value(value.clone()).unwrap();
        let ours = of(read.clone(), &Choice::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let theirs = Config::from_custom_kubeconfig(read, &options);
        let mut theirs = runtime.block_on(theirs).unwrap();
        // Of the environment of whoever runs this.
        theirs.proxy_url.clone_from(&ours.proxy_url);
        // It shows no secrets, but all that counts.
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(ours.root_cert, Some(vec![b"hello\n".to_vec()]));
        assert_eq!(ours.default_namespace, "kitchen");

        for (pointer, says) in [
            ("/current-context", "use-context"),
            ("/contexts/0/name", "no context a"),
            ("/clusters/0/name", "no cluster a"),
            ("/clusters/0/cluster/server", "no server"),
        ] {
            let mut value = value.clone();
            let other = if pointer.ends_with("name") {
                json!("b")
            } else {
                json!(null)
            };
            *value.pointer_mut(pointer).unwrap() = other;
            let error = of(serde_json::from_value(value).unwrap(), &Choice::default()).unwrap_err();
            assert!(error.to_string().contains(says), "{error:#}");
        }
    }

    #[test]
    fn impersonation_and_the_timeout_are_those_of_the_choice() {
        let read = || serde_json::from_value::<Kubeconfig>(kubeconfig("a")).unwrap();
        let choice = Choice {
            user: Some("ada".to_owned()),
            groups: vec!["x".to_owned(), "y".to_owned()],
            request_timeout: Some(Duration::from_secs(7)),
            ..Choice::default()
        };
        let config = of(read(), &choice).unwrap();
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("ada"));
        let groups = config.auth_info.impersonate_groups.unwrap();
        assert_eq!(groups, ["x", "y"]);
        assert_eq!(config.read_timeout, Some(Duration::from_secs(7)));

        let unlimited = Choice {
            request_timeout: Some(Duration::ZERO),
            ..Choice::default()
        };
        assert_eq!(of(read(), &unlimited).unwrap().read_timeout, None);

        let nobody = Choice {
            groups: vec!["x".to_owned()],
            ..Choice::default()
        };
        let error = of(read(), &nobody).unwrap_err();
        assert!(error.to_string().contains("--as"), "{error}");
    }

    #[test]
    fn the_proxy_of_the_kubeconfig_counts_and_its_password_is_in_no_error() {
        let mut value = kubeconfig("a");
        value["clusters"][0]["cluster"]["proxy-url"] = json!("http://u:s3cret@proxy.example:3128");
        let config = of(
            serde_json::from_value(value.clone()).unwrap(),
            &Choice::default(),
        )
        .unwrap();
        let proxy = config.proxy_url.unwrap();
        assert_eq!(proxy.host(), Some("proxy.example"));
        assert_eq!(proxy.port_u16(), Some(3128));

        // `NO_PROXY` is for proxies of the environment.
        let named = Some("http://proxy.example:3128".to_owned());
        let variables = |_: &str| Some("*".to_owned());
        let config = Config::new("https://a.example".parse().unwrap());
        assert!(proxy_towards(named, &config, variables).unwrap().is_some());

        for bad in ["ftp://u:s3cret@proxy.example", "http://u:s3cret@a b"] {
            value["clusters"][0]["cluster"]["proxy-url"] = json!(bad);
            let error = of(
                serde_json::from_value(value.clone()).unwrap(),
                &Choice::default(),
            )
            .unwrap_err();
            assert!(
                !format!("{error:#} {error:?}").contains("s3cret"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn no_proxy_is_held_against_the_api_server_and_not_against_the_proxy() {
        for (server, no_proxy, expected) in [
            ("https://10.0.0.1:6443", "", Some("proxy.example:3128")),
            ("https://10.0.0.1:6443", "10.0.0.0/8", None),
            (
                "https://10.0.0.1:6443",
                "proxy.example",
                Some("proxy.example:3128"),
            ),
            ("https://api.example", ".example,", None),
            ("https://a.api.example", "api.example,", None),
            ("https://[fd00::1]:6443", "fd00::/8", None),
            ("https://127.0.0.1:6443", "", None),
            ("http://10.0.0.1:8080", "", Some("plain.example:80")),
        ] {
            let config = Config::new(server.parse().unwrap());
            let variables = |name: &str| match name {
                "HTTPS_PROXY" => Some("http://proxy.example:3128".to_owned()),
                "http_proxy" => Some("plain.example".to_owned()),
                "NO_PROXY" => Some(no_proxy.to_owned()).filter(|value| !value.is_empty()),
                _ => None,
            };
            let proxy = proxy_towards(None, &config, variables).unwrap();
            let address = proxy.map(|proxy| proxy.authority().unwrap().to_string());
            assert_eq!(address.as_deref(), expected, "{server} {no_proxy}");
        }
    }

    /// A proxy that has looked `api.test` up, and the API server behind it; gives back what each was sent.
    async fn serve_one(listener: TcpListener) -> io::Result<(String, String)> {
        let (mut stream, _) = listener.accept().await?;
        let connect = read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let request = read_head(&mut stream).await?;
        let version = json!({
            "major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        });
        let body = version.to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        Ok((connect, request))
    }

    async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    #[tokio::test]
    async fn a_client_reaches_an_api_server_that_only_the_proxy_can_find() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut value = kubeconfig("a");
        value["clusters"][0]["cluster"] = json!({
            "server": "http://api.test:8080",
            "proxy-url": format!("http://ada:p%40ss@{address}"),
        });
        let choice = Choice {
            user: Some("bob".to_owned()),
            ..Choice::default()
        };
        let config = of(serde_json::from_value(value).unwrap(), &choice).unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let (version, seen) = tokio::join!(client.apiserver_version(), serve_one(listener));
        assert_eq!(version.unwrap().minor, "37");
        let (connect, request) = seen.unwrap();
        assert!(connect.starts_with("CONNECT api.test:8080 "), "{connect}");
        // ada:p@ss
        assert!(connect.contains("Basic YWRhOnBAc3M="), "{connect}");
        assert!(request.contains("impersonate-user: bob"), "{request}");
    }
}
