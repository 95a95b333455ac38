//! Credentials by kube's own rules: kubeconfigs with tokens, token files and exec plugins, and the ServiceAccount of a pod.
//!
//! kube keeps its tokens to itself, behind a layer that puts `Authorization` on requests. So that its rules hold, and
//! none of ours, an empty request is sent through that layer, to a service that gives its headers back.

use std::future::{Ready, ready};

use http::{Request, Response, header::AUTHORIZATION};
use kube::client::{AuthError, Body, ConfigExt as _, middleware::AuthLayer};
use tower::{BoxError, Layer as _, ServiceExt as _};

use super::Token;
use crate::error::{Error, Result};

/// See [`Credentials::Kube`](super::Credentials::Kube).
pub struct KubeCredentials(AuthLayer);

impl KubeCredentials {
    /// Runs the plugin that the configuration names, if it names one.
    pub(super) async fn new(config: kube::Config) -> Result<Self> {
        // A plugin may ask a person, or another machine.
        let layer = tokio::task::spawn_blocking(move || config.auth_layer())
            .await
            .map_err(|_| Error::Credentials("kube stopped while it read them".to_owned()))?
            .map_err(|error| without_secrets(&error))?;
        layer.map(Self).ok_or_else(|| {
            Error::Credentials(
                "this kubeconfig has no token but a client certificate, or nothing at all; the console takes tokens: \
                 use `kubectl create token`, or an identity provider"
                    .to_owned(),
            )
        })
    }

    pub(super) async fn token(&self) -> Result<Token> {
        let response = self
            .0
            .layer(tower::service_fn(echo))
            .oneshot(Request::new(Body::empty()))
            .await
            .map_err(|error| match error.downcast_ref::<AuthError>() {
                Some(error) => of_auth(error),
                None => Error::Credentials("kube has none".to_owned()),
            })?;
        let text = response
            .headers()
            .get(AUTHORIZATION)
            .and_then(|header| header.to_str().ok())
            .ok_or_else(|| Error::Credentials("kube has none".to_owned()))?;
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Token::new(token)),
            Some(_) | None => Err(Error::Credentials(
                "this kubeconfig has a user name and a password; the console takes tokens"
                    .to_owned(),
            )),
        }
    }
}

/// A service that gives the headers of a request back. A function, and no closure: its type names no lifetime, and so who
/// awaits a token may be sent to another thread.
#[expect(clippy::needless_pass_by_value, reason = "a service takes requests")]
fn echo(request: Request<Body>) -> Ready<Result<Response<()>, BoxError>> {
    let mut response = Response::new(());
    *response.headers_mut() = request.headers().clone();
    ready(Ok(response))
}

fn without_secrets(error: &kube::Error) -> Error {
    if let kube::Error::Auth(error) = error {
        of_auth(error)
    } else {
        Error::Credentials(error.to_string())
    }
}

/// What a plugin printed may be a token, and kube's own words would show it. They also begin with the variables that the
/// plugin is given, so not even its name is taken from them.
fn of_auth(error: &AuthError) -> Error {
    Error::Credentials(match error {
        AuthError::AuthExecRun { cmd: _, out } => {
            format!("the plugin of the kubeconfig ended with {}", out.status)
        }
        AuthError::AuthExecParse(_) => "what the plugin printed cannot be read".to_owned(),
        AuthError::AuthExecStart(error) => format!("start the plugin: {error}"),
        AuthError::ReadTokenFile(error, path) => format!("token file {}: {error}", path.display()),
        AuthError::MissingCommand => "the kubeconfig names no command for its plugin".to_owned(),
        AuthError::InvalidBasicAuth(_)
        | AuthError::InvalidBearerToken(_)
        | AuthError::UnrefreshableTokenResponse
        | AuthError::ExecPluginFailed
        | AuthError::MalformedTokenExpirationDate(_)
        | AuthError::AuthExecSerialize(_)
        | AuthError::AuthExec(_)
        | AuthError::ParseTokenKey(_)
        | AuthError::ExecMissingClusterInfo
        | AuthError::NoValidNativeRootCA(_) => {
            "kube cannot get any from this kubeconfig".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use kube::config::{KubeConfigOptions, Kubeconfig};

    use super::super::Credentials;

    async fn credentials(user: &str) -> crate::Result<Credentials> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        );
        let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .unwrap();
        Credentials::kube(config).await
    }

    async fn token(user: &str) -> String {
        let token = credentials(user).await.unwrap().current().await.unwrap();
        token.unwrap().reveal().to_owned()
    }

    #[tokio::test]
    async fn tokens_files_and_plugins_of_a_kubeconfig_are_known() {
        assert_eq!(token("{token: inline}").await, "inline");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "of-a-file").unwrap();
        assert_eq!(
            token(&format!("{{tokenFile: {}}}", path.display())).await,
            "of-a-file"
        );
        let status = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"of-a-plugin"}}"#;
        let plugin = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: echo, args: ['{status}'], interactiveMode: Never}}}}"
        );
        assert_eq!(token(&plugin).await, "of-a-plugin");
    }

    #[tokio::test]
    async fn what_the_console_does_not_take_is_refused_with_what_to_do() {
        let error = credentials("{}").await.unwrap_err();
        assert!(
            error.to_string().contains("kubectl create token"),
            "{error}"
        );
        let basic = credentials("{username: ada, password: s3cret}")
            .await
            .unwrap();
        let error = basic.current().await.unwrap_err();
        assert!(error.to_string().contains("takes tokens"), "{error}");
        assert!(!error.to_string().contains("s3cret"));
    }

    #[tokio::test]
    async fn what_a_failing_plugin_prints_is_not_in_the_error() {
        let plugin = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'echo s3cret; exit 3'], env: [{name: A, value: s3cret}], interactiveMode: Never}}";
        let error = credentials(plugin).await.unwrap_err();
        assert!(error.to_string().contains("plugin"), "{error}");
        assert!(
            !format!("{error} {error:?}").contains("s3cret"),
            "{error:?}"
        );
    }
}
