//! How a program finds the API server: kubeconfigs, impersonation, timeouts and proxies, as kubectl reads them.
//!
//! kube reads a kubeconfig alike, but for what this module changes:
//!
//! - of the files in `KUBECONFIG`, those that are missing are passed over;
//! - `NO_PROXY` is held against the API server. kube 5.0 holds it against the proxy;
//! - the rules of `NO_PROXY` are those of Go ([`crate::proxy`]).

use std::{env, io, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

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
pub async fn infer() -> anyhow::Result<Config> {
    let Some(kubeconfig) = read(None)? else {
        return Config::incluster().context(
            "find the API server: there is no kubeconfig, and this is not a pod with a ServiceAccount; set KUBECONFIG",
        );
    };
    let mut config = of(kubeconfig, &Choice::default()).await?;
    config.apply_debug_overrides();
    Ok(config)
}

/// The API server that a caller of a command line chooses.
///
/// # Errors
/// Where there is no kubeconfig, or it cannot be used.
pub async fn choose(choice: &Choice) -> anyhow::Result<Config> {
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
    of(kubeconfig, choice).await
}

/// The API server of a kubeconfig that was read already. `choice.kubeconfig` is not looked at.
///
/// # Errors
/// Where the kubeconfig or the environment's proxy cannot be used.
pub async fn of(kubeconfig: Kubeconfig, choice: &Choice) -> anyhow::Result<Config> {
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
    let named = proxy_of(&kubeconfig, context.as_deref());
    let options = KubeConfigOptions {
        context: context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(with_remedy)?;
    config.proxy_url = proxy_towards(named, &config, variable)?;
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

/// The proxy that the kubeconfig names for the cluster of a context.
fn proxy_of(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let context = context.or(kubeconfig.current_context.as_deref())?;
    let contexts = &mut kubeconfig.contexts.iter();
    let context = contexts.find(|named| named.name == context)?;
    let cluster = &context.context.as_ref()?.cluster;
    let clusters = &mut kubeconfig.clusters.iter();
    let cluster = clusters.find(|named| named.name == *cluster)?;
    let proxy = cluster.cluster.as_ref()?.proxy_url.clone();
    proxy.filter(|url| !url.is_empty())
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

fn with_remedy(error: KubeconfigError) -> anyhow::Error {
    if matches!(error, KubeconfigError::ParseProxyUrl(_)) {
        // kube's text shows the URL, which may hold a password.
        return anyhow::anyhow!("use the proxy: its URL cannot be read; give http://HOST:PORT");
    }
    let action = if matches!(error, KubeconfigError::ParseNoProxy(_)) {
        "use NO_PROXY: an entry is empty or cannot be read; take it out"
    } else if matches!(error, KubeconfigError::CurrentContextNotSet) {
        "use the kubeconfig: it has no current context; give --context, or run kubectl config use-context"
    } else {
        "use the kubeconfig"
    };
    anyhow::Error::new(error).context(action)
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

    #[tokio::test]
    async fn a_missing_file_of_several_is_passed_over_and_the_first_value_counts() {
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
        let config = of(merged, &choice).await.unwrap();
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

    #[tokio::test]
    async fn impersonation_and_the_timeout_are_those_of_the_choice() {
        let read = || serde_json::from_value::<Kubeconfig>(kubeconfig("a")).unwrap();
        let choice = Choice {
            user: Some("ada".to_owned()),
            groups: vec!["x".to_owned(), "y".to_owned()],
            request_timeout: Some(Duration::from_secs(7)),
            ..Choice::default()
        };
        let config = of(read(), &choice).await.unwrap();
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("ada"));
        let groups = config.auth_info.impersonate_groups.unwrap();
        assert_eq!(groups, ["x", "y"]);
        assert_eq!(config.read_timeout, Some(Duration::from_secs(7)));

        let unlimited = Choice {
            request_timeout: Some(Duration::ZERO),
            ..Choice::default()
        };
        assert_eq!(of(read(), &unlimited).await.unwrap().read_timeout, None);

        let nobody = Choice {
            groups: vec!["x".to_owned()],
            ..Choice::default()
        };
        let error = of(read(), &nobody).await.unwrap_err();
        assert!(error.to_string().contains("--as"), "{error}");
    }

    #[tokio::test]
    async fn the_proxy_of_the_kubeconfig_counts_and_its_password_is_in_no_error() {
        let mut value = kubeconfig("a");
        value["clusters"][0]["cluster"]["proxy-url"] = json!("http://u:s3cret@proxy.example:3128");
        let config = of(
            serde_json::from_value(value.clone()).unwrap(),
            &Choice::default(),
        )
        .await
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
            .await
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
        let config = of(serde_json::from_value(value).unwrap(), &choice)
            .await
            .unwrap();
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
