//! The objects of the store: a folder, or a bucket of a cloud.
//!
//! A part is written at once or not at all, and the whole artefact appears under its key only when its last byte is
//! there and its digest was right: whoever finds it may believe it.

use std::{env, error::Error as _, fmt, io, path::Path as File, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, PutPayload,
    local::LocalFileSystem, parse_url_opts, path::Path, prefix::PrefixStore,
};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::domain::artefact::{Part, Place};

/// How often an act is tried again that failed. Clouds are asked again by their client, too, before that.
const TRIES: usize = 3;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// Parts of one artefact that are looked at: no artefact has more.
const MOST_PARTS: usize = 2000;
/// Deletions at once.
const DELETIONS: usize = 8;

/// Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<dyn ObjectStore>);

/// Without what its client knows: that may be a secret.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// Why the store that is configured cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "it is no URL: give file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    NoUrl(#[source] url::ParseError),
    #[error(
        "a store is given as file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Scheme,
    #[error("the folder {0} cannot be used: make it, and let the gateway write to it")]
    Folder(String, #[source] io::Error),
    /// The text names keys of the configuration, and no values.
    #[error("{0}")]
    Configuration(String),
}

/// Why the store did not do what was asked. For people who do not run it: without its insides.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("the store of the gateways is full")]
    Full,
    #[error("the store of the gateways does not let them in")]
    Denied,
    #[error("the store of the gateways does not answer as it should")]
    Failed,
}

/// What came of putting parts together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Assembled {
    Whole,
    /// It is not what was announced. Nothing of it is kept.
    Wrong,
}

impl Store {
    /// What `url` names, with the settings that the environment has for such stores.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        let variables = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::with(url, variables)
    }

    fn with(
        url: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, OpenError> {
        let url = Url::parse(url).map_err(OpenError::NoUrl)?;
        let (scheme, _) = ObjectStoreScheme::parse(&url).map_err(|_| OpenError::Scheme)?;
        let is_secure = !matches!(url.scheme(), "http" | "memory");
        match scheme {
            ObjectStoreScheme::Local => {
                let path = url.to_file_path().map_err(|()| OpenError::Scheme)?;
                Self::folder(&path)
            }
            ObjectStoreScheme::AmazonS3
            | ObjectStoreScheme::GoogleCloudStorage
            | ObjectStoreScheme::MicrosoftAzure
                if is_secure =>
            {
                let (objects, prefix) = parse_url_opts(&url, variables).map_err(|error| {
                    OpenError::Configuration(without_queries(&error.to_string()))
                })?;
                Ok(Self::over(PrefixStore::new(objects, prefix)))
            }
            ObjectStoreScheme::AmazonS3
            | ObjectStoreScheme::GoogleCloudStorage
            | ObjectStoreScheme::MicrosoftAzure
            | ObjectStoreScheme::Memory
            | ObjectStoreScheme::Http
            | _ => Err(OpenError::Scheme),
        }
    }

    /// A folder that is there: to make one would hide that a volume is not mounted.
    fn folder(path: &File) -> Result<Self, OpenError> {
        let unusable = |error| OpenError::Folder(path.display().to_string(), error);
        let metadata = std::fs::metadata(path).map_err(unusable)?;
        if !metadata.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        let probe = path.join(format!(".probe-{}", std::process::id()));
        std::fs::write(&probe, b"").map_err(unusable)?;
        std::fs::remove_file(&probe).map_err(unusable)?;
        let objects = LocalFileSystem::new_with_prefix(path)
            .map_err(|error| OpenError::Configuration(error.to_string()))?;
        // An artefact that an invocation names must be there after a power cut.
        Ok(Self::over(
            objects.with_automatic_cleanup(true).with_fsync(true),
        ))
    }

    pub fn over(objects: impl ObjectStore) -> Self {
        Self(Arc::new(objects))
    }

    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.0)
    }

    /// Whether it answers at all.
    pub async fn probe(&self) -> Result<(), Error> {
        let found = self.0.list_with_delimiter(None).await;
        found.map(drop).map_err(|error| told(&error, "list"))
    }

    /// Whether the artefact is there, whole.
    pub async fn has(&self, place: &Place) -> Result<bool, Error> {
        let key = path(&place.key())?;
        retried("look for an artefact", || async {
            match self.0.head(&key).await {
                Ok(found) => Ok(found.size == place.claim.size),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// How much of it is kept, from its beginning.
    pub async fn kept(&self, place: &Place) -> Result<u64, Error> {
        let prefix = path(&place.parts())?;
        let found = retried("list parts", || async {
            let parts = self.0.list(Some(&prefix)).take(MOST_PARTS);
            parts.try_collect::<Vec<ObjectMeta>>().await
        })
        .await?;
        let numbered = found.iter().filter_map(|part| {
            let number = part.location.filename()?.parse().ok()?;
            Some((number, part.size))
        });
        Ok(place.kept(&numbered.collect::<Vec<_>>()))
    }

    /// Keeps a part.
    pub async fn keep(&self, place: &Place, part: Part) -> Result<(), Error> {
        let key = path(&place.part(part.number))?;
        let payload = PutPayload::from_bytes(Bytes::from(part.bytes));
        retried("write a part", || async {
            self.0.put(&key, payload.clone()).await.map(drop)
        })
        .await
    }

    /// Makes the artefact of its parts, and removes those.
    pub async fn assemble(&self, place: &Place) -> Result<Assembled, Error> {
        let assembled = retried("put an artefact together", || self.joined(place)).await;
        match assembled {
            Ok(_) => self.forget_parts(place).await,
            // Another gateway may have been faster, and its parts are gone.
            Err(error) => {
                return if self.has(place).await? {
                    Ok(Assembled::Whole)
                } else {
                    Err(error)
                };
            }
        }
        assembled
    }

    async fn joined(&self, place: &Place) -> object_store::Result<Assembled> {
        let key = path_of(&place.key())?;
        let mut upload = self.0.put_multipart(&key).await?;
        let filled = self.fill(place, &mut *upload).await;
        match filled {
            Ok(sha256) if sha256 == place.claim.sha256 => {
                upload.complete().await?;
                Ok(Assembled::Whole)
            }
            filled => {
                // What it leaves behind is nothing that anybody could read.
                let _ = upload.abort().await;
                filled.map(|_| Assembled::Wrong)
            }
        }
    }

    /// One part at a time: memory does not grow with the artefact.
    async fn fill(
        &self,
        place: &Place,
        upload: &mut dyn MultipartUpload,
    ) -> object_store::Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        for number in 0..place.count() {
            let key = path_of(&place.part(number))?;
            let bytes = self.0.get(&key).await?.bytes().await?;
            if bytes.len() as u64 != place.length(number) {
                // Its digest is none.
                return Ok([0; 32]);
            }
            let digested = bytes.clone();
            let digest = move || {
                hasher.update(&digested);
                hasher
            };
            // Five mebibytes keep a thread busy for longer than others should wait.
            hasher = tokio::task::spawn_blocking(digest).await?;
            upload.put_part(PutPayload::from_bytes(bytes)).await?;
        }
        Ok(hasher.finalize().into())
    }

    /// Removes what is kept of an artefact that is not whole. Where that fails, the sweep does it.
    pub async fn forget_parts(&self, place: &Place) {
        if let Ok(prefix) = path_of(&place.parts()) {
            let parts = self.0.list(Some(&prefix)).take(MOST_PARTS);
            self.remove(parts.filter_map(async |part| Some(part.ok()?.location)))
                .await;
        }
    }

    /// Names directly below there.
    pub(super) async fn below(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let prefix = path(prefix)?;
        let found = retried("list", || self.0.list_with_delimiter(Some(&prefix))).await?;
        let names = found.common_prefixes.iter().filter_map(Path::filename);
        Ok(names.map(str::to_owned).collect())
    }

    /// Every object below there, with the moment when it was written, in seconds since 1970.
    pub(super) fn all(
        &self,
        prefix: &str,
    ) -> Result<impl futures::Stream<Item = Result<(String, i64), Error>> + use<>, Error> {
        let found = self.0.list(Some(&path(prefix)?));
        Ok(found.map(|object| {
            let object = object.map_err(|error| told(&error, "list"))?;
            Ok((
                object.location.to_string(),
                object.last_modified.timestamp(),
            ))
        }))
    }

    pub(super) async fn remove_keys(&self, keys: Vec<String>) -> usize {
        let paths = keys.into_iter().filter_map(|key| path_of(&key).ok());
        self.remove(futures::stream::iter(paths)).await
    }

    async fn remove(&self, paths: impl futures::Stream<Item = Path>) -> usize {
        let removals = paths.map(async |path| match self.0.delete(&path).await {
            // Another gateway was faster.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => 1,
            Err(error) => {
                told(&error, "delete");
                0
            }
        });
        let removed = removals.buffer_unordered(DELETIONS);
        removed.fold(0, async |all, one| all + one).await
    }
}

/// Our own keys are paths; what else would be one is a fault of ours.
fn path_of(key: &str) -> object_store::Result<Path> {
    Ok(Path::parse(key)?)
}

fn path(key: &str) -> Result<Path, Error> {
    path_of(key).map_err(|error| told(&error, "name an object"))
}

async fn retried<T, Running>(what: &'static str, act: impl FnMut() -> Running) -> Result<T, Error>
where
    Running: Future<Output = object_store::Result<T>>,
{
    let waits = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LAST_WAIT)
        .with_max_times(TRIES)
        .with_jitter();
    act.retry(waits)
        .when(may_pass)
        .await
        .map_err(|error| told(&error, what))
}

/// Whether trying again may help.
fn may_pass(error: &object_store::Error) -> bool {
    matches!(
        error,
        object_store::Error::Generic { .. } | object_store::Error::JoinError { .. }
    )
}

/// What is told of it; the log has more, and no secrets.
fn told(error: &object_store::Error, what: &str) -> Error {
    let kind = classify(error);
    let detail = without_queries(&error.to_string());
    tracing::warn!(error = detail, what, "The artefact store failed");
    kind
}

fn classify(error: &object_store::Error) -> Error {
    use object_store::Error as From;
    if let From::PermissionDenied { .. } | From::Unauthenticated { .. } = error {
        return Error::Denied;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => return Error::Full,
            Some(io::ErrorKind::PermissionDenied) => return Error::Denied,
            _ => cause = error.source(),
        }
    }
    Error::Failed
}

/// Signed addresses carry their secret behind the question mark.
fn without_queries(text: &str) -> String {
    let words = text.split(' ');
    let words = words.map(|word| word.split_once('?').map_or(word, |(before, _)| before));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod clouds;

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::domain::artefact::{PART, tests::place};

    pub(super) fn bytes(length: u64) -> Vec<u8> {
        (0..length)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect()
    }

    pub(super) fn parts(bytes: &[u8]) -> Vec<Part> {
        let chunks = bytes.chunks(usize::try_from(PART).unwrap());
        let parts = chunks.zip(0..).map(|(bytes, number)| Part {
            number,
            bytes: bytes.to_vec(),
        });
        parts.collect()
    }

    impl Store {
        /// Keys of everything that is there.
        pub(crate) async fn names(&self) -> Vec<String> {
            let all = self.0.list(None).map_ok(|found| found.location.to_string());
            let mut keys: Vec<String> = all.try_collect().await.unwrap();
            keys.sort();
            keys
        }

        pub(crate) async fn read(&self, key: &str) -> Vec<u8> {
            let found = self.0.get(&path_of(key).unwrap()).await.unwrap();
            found.bytes().await.unwrap().to_vec()
        }
    }

    #[tokio::test]
    async fn parts_become_one_object_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        for store in [Store::over(InMemory::new()), Store::open(&url).unwrap()] {
            let content = bytes(2 * PART + 11);
            let place = place(&content);
            for part in parts(&content).into_iter().take(2) {
                store.keep(&place, part).await.unwrap();
            }
            assert_eq!(store.kept(&place).await, Ok(2 * PART));
            assert_eq!(store.has(&place).await, Ok(false));
            store.keep(&place, parts(&content).remove(2)).await.unwrap();
            assert_eq!(store.assemble(&place).await, Ok(Assembled::Whole));
            assert_eq!(store.has(&place).await, Ok(true));
            assert_eq!(store.names().await, [place.key()]);
            assert_eq!(store.read(&place.key()).await, content);
            // Another gateway, which was slower.
            assert_eq!(store.assemble(&place).await, Ok(Assembled::Whole));
        }
    }

    #[tokio::test]
    async fn what_has_another_digest_is_never_there() {
        let store = Store::over(InMemory::new());
        let content = bytes(PART + 1);
        let mut place = place(&content);
        place.claim.sha256[0] ^= 1;
        for part in parts(&content) {
            store.keep(&place, part).await.unwrap();
        }
        assert_eq!(store.assemble(&place).await, Ok(Assembled::Wrong));
        assert_eq!(store.names().await, [""; 0]);
    }

    #[tokio::test]
    async fn an_artefact_of_another_size_is_another_one() {
        let store = Store::over(InMemory::new());
        let mut place = place(b"12345");
        store.keep(&place, parts(b"12345").remove(0)).await.unwrap();
        store.assemble(&place).await.unwrap();
        place.claim.size = 6;
        assert_eq!(store.has(&place).await, Ok(false));
    }

    #[test]
    fn a_store_that_cannot_be_used_says_what_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for (url, says) in [
            ("/var/artefacts".to_owned(), "no URL"),
            ("memory:///".to_owned(), "given as"),
            ("ftp://example/x".to_owned(), "given as"),
            ("http://example/x".to_owned(), "given as"),
            ("https://example/x".to_owned(), "given as"),
            ("file:///nowhere/at/all".to_owned(), "make it"),
            (format!("file://{}", file.display()), "make it"),
        ] {
            let error = Store::open(&url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn what_a_user_is_told_names_no_path_and_no_secret() {
        let generic = |source: io::Error| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(source),
        };
        for (error, expected) in [
            (generic(io::ErrorKind::StorageFull.into()), Error::Full),
            (
                generic(io::ErrorKind::PermissionDenied.into()),
                Error::Denied,
            ),
            (generic(io::Error::other("/srv/secret")), Error::Failed),
        ] {
            assert_eq!(classify(&error), expected);
            assert!(!expected.to_string().contains('/'));
        }
        let log =
            without_queries("PUT https://a.example/b?sig=abc failed, and https://a.example/c?x=y");
        assert_eq!(
            log,
            "PUT https://a.example/b failed, and https://a.example/c"
        );
    }
}
