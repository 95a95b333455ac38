//! By what the caller is known.

#[cfg(feature = "kubeconfig")]
mod kubeconfig;

use std::{fmt, path::PathBuf, sync::Arc};

use http::HeaderValue;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

#[cfg(feature = "kubeconfig")]
pub use kubeconfig::KubeCredentials;

use crate::error::{Error, Result};

/// Longest token that is read from a file. Those of identity providers have some KiB.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Where the token comes from that says who the caller is. It is shown to nobody but the console: not in `Debug`, not in
/// an error.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// None: for what needs none, such as the health of a console.
    None,
    /// A token that stays.
    Token(Token),
    /// A file, read again for every request: a token that Kubernetes projects into a pod is another one every hour.
    File(PathBuf),
    /// What a kubeconfig or a pod's ServiceAccount says, by kube's own rules; exec plugins are run when they have to.
    #[cfg(feature = "kubeconfig")]
    Kube(Arc<KubeCredentials>),
}

impl Credentials {
    /// A token that stays.
    ///
    /// # Errors
    /// Where it cannot stand in an HTTP header.
    pub fn token(token: impl Into<String>) -> Result<Self> {
        let token = Token(Zeroizing::new(token.into()));
        token.header()?;
        Ok(Self::Token(token))
    }

    /// A file with nothing but the token.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// What kubectl would use here: the kubeconfig of `KUBECONFIG` or of the home folder, in a pod its ServiceAccount.
    #[cfg(feature = "kubeconfig")]
    pub async fn infer() -> Result<Self> {
        let config = kube::Config::infer().await.map_err(|error| {
            Error::Credentials(format!("neither a kubeconfig nor a pod: {error}"))
        })?;
        Self::kube(config).await
    }

    /// What a configuration of kube's says. A plugin that it names is run now.
    #[cfg(feature = "kubeconfig")]
    pub async fn kube(config: kube::Config) -> Result<Self> {
        Ok(Self::Kube(Arc::new(KubeCredentials::new(config).await?)))
    }

    /// The token at this moment.
    pub(crate) async fn current(&self) -> Result<Option<Token>> {
        match self {
            Self::None => Ok(None),
            Self::Token(token) => Ok(Some(token.clone())),
            Self::File(path) => read(path).await.map(Some),
            #[cfg(feature = "kubeconfig")]
            Self::Kube(kube) => kube.token().await.map(Some),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            #[cfg(feature = "kubeconfig")]
            Self::Kube(_) => f.write_str("Kube(..)"),
        }
    }
}

/// A bearer token. Wiped when it is dropped, and never shown.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub(crate) fn new(token: &str) -> Self {
        Self(Zeroizing::new(token.trim().to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn header(&self) -> Result<HeaderValue> {
        if self.0.is_empty() {
            return Err(Error::Credentials("the token is empty".to_owned()));
        }
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Error::Credentials("the token has characters that none has".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

async fn read(path: &PathBuf) -> Result<Token> {
    let failed = |why: &dyn fmt::Display| {
        Error::Credentials(format!("token file {}: {why}", path.display()))
    };
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| failed(&error))?;
    let mut text = Zeroizing::new(String::new());
    let read = file
        .take(MAX_TOKEN_BYTES + 1)
        .read_to_string(&mut text)
        .await
        .map_err(|error| failed(&error))?;
    if read as u64 > MAX_TOKEN_BYTES {
        return Err(failed(&"larger than any token"));
    }
    Ok(Token::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let credentials = Credentials::token("s3cret").unwrap();
        assert!(!format!("{credentials:?}").contains("s3cret"));
        let Credentials::Token(token) = credentials else {
            unreachable!()
        };
        assert!(!format!("{token:?} {:?}", token.header().unwrap()).contains("s3cret"));
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_refused_without_showing_it() {
        for bad in ["s3cret\nX-Other: 1", ""] {
            let error = Credentials::token(bad).unwrap_err();
            assert!(!error.to_string().contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn a_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let credentials = Credentials::file(&path);
        assert_eq!(
            credentials.current().await.unwrap().unwrap().reveal(),
            "first"
        );
        std::fs::write(&path, "second").unwrap();
        assert_eq!(
            credentials.current().await.unwrap().unwrap().reveal(),
            "second"
        );
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(credentials.current().await.is_err());
    }
}
