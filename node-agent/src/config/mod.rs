//! What this device's administrator says once: one TOML file, every key of which `agent.example.toml` shows and explains.
//!
//! - [`document`]: how a file is read, and how a complaint about it looks;
//! - [`proxy`]: what is on the way to the gateways;
//! - [`mediation`]: who is asked, how, and what is decided without asking.
//!
//! Where the command line says something too, the command line wins.

pub mod document;
pub mod mediation;
pub mod proxy;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use self::{
    document::{Document, Problem},
    mediation::Mediation,
    proxy::Proxy,
};

/// The file that is read where none is named.
pub const DEFAULT_PATH: &str = "/etc/fairlead/agent.toml";
/// Where capabilities are declared unless the file says otherwise.
const CAPABILITIES_DIR: &str = "/etc/fairlead/capabilities.d";
/// Invocations that run at once.
const MAX_CONCURRENT: usize = 4;
const MOST_CONCURRENT: i64 = 64;
/// Outputs that wait to be stored.
const ARTEFACTS_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Words of an opener, roots: nobody needs more.
const MAX_WORDS: usize = 32;

/// The whole file, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Absolute. `None`: the default of the user that runs the agent.
    pub state_dir: Option<PathBuf>,
    /// Absolute. It may be missing.
    pub capabilities_dir: PathBuf,
    /// Invocations that run at once on this device, 1 to 64.
    pub max_concurrent: usize,
    /// Most bytes of outputs that wait on this device until the gateways have stored them.
    pub artefacts_bytes: u64,
    /// On the way to the gateways. `None`: what the environment says.
    pub proxy: Option<Proxy>,
    /// As `NO_PROXY`. `None`: what the environment says.
    pub no_proxy: Option<String>,
    pub desktop: Desktop,
    pub mediation: Mediation,
}

/// What invocations may open on the screen of this device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Desktop {
    /// Whether there is `desktop.open_url`.
    pub open_url: bool,
    /// An absolute path and its arguments. What is to be opened becomes the last one.
    pub opener: Vec<String>,
    /// Absolute folders. `desktop.open_path` opens what is in them; there is none where they are none.
    pub open_path_roots: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: None,
            capabilities_dir: PathBuf::from(CAPABILITIES_DIR),
            max_concurrent: MAX_CONCURRENT,
            artefacts_bytes: ARTEFACTS_BYTES,
            proxy: None,
            no_proxy: None,
            desktop: Desktop::default(),
            mediation: Mediation::default(),
        }
    }
}

impl Default for Desktop {
    fn default() -> Self {
        Self {
            open_url: false,
            opener: vec!["/usr/bin/xdg-open".to_owned()],
            open_path_roots: Vec::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    state_dir: Option<Spanned<PathBuf>>,
    capabilities_dir: Option<Spanned<PathBuf>>,
    max_concurrent: Option<Spanned<i64>>,
    artefacts_bytes: Option<Spanned<i64>>,
    proxy: Option<Spanned<String>>,
    no_proxy: Option<String>,
    #[serde(default)]
    desktop: WrittenDesktop,
    #[serde(default)]
    mediation: mediation::Written,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDesktop {
    #[serde(default)]
    open_url: bool,
    opener: Option<Spanned<Vec<String>>>,
    open_path_roots: Option<Spanned<Vec<PathBuf>>>,
}

impl Config {
    /// Reads `path`, which must be there; or, where none is named, the default one, which need not.
    pub fn read(path: Option<&Path>) -> Result<Self, Problem> {
        let document = Document::read(path.unwrap_or(Path::new(DEFAULT_PATH)))?;
        match (document, path) {
            (Some(document), _) => Self::of(&document),
            (None, None) => Ok(Self::default()),
            (None, Some(path)) => Err(Problem::of(
                path,
                "there is no such file: write it, or leave --config and FAIRLEAD_CONFIG out",
            )),
        }
    }

    fn of(document: &Document) -> Result<Self, Problem> {
        let Written {
            state_dir,
            capabilities_dir,
            max_concurrent,
            artefacts_bytes,
            proxy,
            no_proxy,
            desktop,
            mediation,
        } = document.parse()?;
        let default = Self::default();
        let folder = |key, folder: Option<Spanned<PathBuf>>| {
            folder
                .map(|folder| absolute(document, key, folder))
                .transpose()
        };
        Ok(Self {
            state_dir: folder("state_dir", state_dir)?,
            capabilities_dir: folder("capabilities_dir", capabilities_dir)?
                .unwrap_or(default.capabilities_dir),
            max_concurrent: match max_concurrent {
                None => default.max_concurrent,
                Some(written) => concurrent(*written.get_ref()).ok_or_else(|| {
                    document.problem(
                        &written.span(),
                        "max_concurrent",
                        format!("give a number from 1 to {MOST_CONCURRENT}"),
                    )
                })?,
            },
            artefacts_bytes: match artefacts_bytes {
                None => default.artefacts_bytes,
                Some(written) => u64::try_from(*written.get_ref()).map_err(|_| {
                    document.problem(
                        &written.span(),
                        "artefacts_bytes",
                        "give a number, 0 or more",
                    )
                })?,
            },
            proxy: proxy
                .map(|written| {
                    // It says what is wrong without the text, which may hold a password.
                    written.get_ref().parse().map_err(|why: proxy::Invalid| {
                        document.problem(&written.span(), "proxy", why)
                    })
                })
                .transpose()?,
            no_proxy,
            desktop: Desktop::of(document, desktop)?,
            mediation: Mediation::of(document, mediation)?,
        })
    }
}

fn concurrent(written: i64) -> Option<usize> {
    (1..=MOST_CONCURRENT)
        .contains(&written)
        .then(|| usize::try_from(written).ok())
        .flatten()
}

fn absolute(document: &Document, key: &str, path: Spanned<PathBuf>) -> Result<PathBuf, Problem> {
    if !path.get_ref().is_absolute() {
        return Err(document.problem(
            &path.span(),
            key,
            "give a path that begins with /, for the agent's working folder may be any",
        ));
    }
    Ok(path.into_inner())
}

impl Desktop {
    /// Whether there is anything that may be opened.
    pub fn is_used(&self) -> bool {
        self.open_url || !self.open_path_roots.is_empty()
    }

    fn of(document: &Document, written: WrittenDesktop) -> Result<Self, Problem> {
        let WrittenDesktop {
            open_url,
            opener,
            open_path_roots,
        } = written;
        let default = Self::default();
        let opener = match opener {
            None => default.opener,
            Some(words) => {
                let program = words.get_ref().first();
                if !program.is_some_and(|program| Path::new(program).is_absolute())
                    || words.get_ref().len() > MAX_WORDS
                    || words.get_ref().iter().any(|word| word.contains('\0'))
                {
                    return Err(document.problem(
                        &words.span(),
                        "opener",
                        "give the program's path, which begins with /, and then its arguments, 31 at most",
                    ));
                }
                words.into_inner()
            }
        };
        let open_path_roots = match open_path_roots {
            None => default.open_path_roots,
            Some(roots) => {
                let all = roots.get_ref();
                if all.len() > MAX_WORDS || all.iter().any(|root| !root.is_absolute()) {
                    return Err(document.problem(
                        &roots.span(),
                        "open_path_roots",
                        "give folders whose paths begin with /, 32 at most",
                    ));
                }
                roots.into_inner()
            }
        };
        Ok(Self {
            open_url,
            opener,
            open_path_roots,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mediation::rules::{Pattern, Rule, Verdict};

    const EXAMPLE: &str = include_str!("../../agent.example.toml");

    fn read(text: &str) -> Result<Config, Problem> {
        Config::of(&Document::of(Path::new("agent.toml"), text.to_owned()))
    }

    /// The example with every key set: a comment without a space after its sign is a key.
    fn uncommented() -> String {
        let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
            Some(_) | None => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_is_empty_as_it_comes_and_shows_the_defaults() {
        assert_eq!(read(EXAMPLE).unwrap(), Config::default());
        assert_eq!(
            read(&uncommented()).unwrap(),
            Config {
                state_dir: Some(PathBuf::from("/var/lib/fairlead")),
                proxy: Some("http://proxy.example:3128".parse().unwrap()),
                no_proxy: Some("10.0.0.0/8,.internal".to_owned()),
                desktop: Desktop {
                    open_url: true,
                    open_path_roots: vec![PathBuf::from("/srv/documents")],
                    ..Desktop::default()
                },
                mediation: example_of_mediation(),
                ..Config::default()
            }
        );
    }

    fn example_of_mediation() -> Mediation {
        let pattern = |text| Pattern::parse(text).unwrap();
        let rule = Rule {
            capability: pattern("desktop.*"),
            requester: pattern("jane@example.org"),
            verdict: Verdict::Deny,
            reason: "not from her".to_owned(),
        };
        Mediation {
            socket: Some(PathBuf::from("/run/fairlead/agent.sock")),
            users: vec!["1000".to_owned()],
            groups: vec!["fairlead".to_owned()],
            on_pending: vec![
                "/usr/local/lib/fairlead/ring".to_owned(),
                "--once".to_owned(),
            ],
            rules: vec![rule].into(),
        }
    }

    #[test]
    fn the_example_has_every_key() {
        let example = uncommented();
        for table in ["", "[desktop]\n", "[mediation]\n", "[[mediation.rule]]\n"] {
            let message = read(&format!("{table}no_such_key = 1"))
                .unwrap_err()
                .message;
            let (_, keys) = message.split_once("expected").unwrap();
            let keys: Vec<_> = keys.split('`').skip(1).step_by(2).collect();
            assert!(keys.len() > 2, "{message}");
            for key in keys {
                let set = example.lines().any(|line| {
                    line.starts_with(&format!("{key} = "))
                        || line == format!("[{key}]")
                        || line == format!("[[mediation.{key}]]")
                });
                assert!(set, "{key}");
            }
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        for (text, line, says) in [
            ("state_dir = \"var\"", 1, "state_dir: give a path"),
            ("\ncapabilities_dir = \"x\"", 2, "capabilities_dir: give"),
            ("max_concurrent = 0", 1, "max_concurrent: give a number"),
            ("max_concurrent = 65", 1, "from 1 to 64"),
            ("max_concurrent = true", 1, "max_concurrent"),
            ("artefacts_bytes = -1", 1, "artefacts_bytes: give a number"),
            (
                "[desktop]\nopener = []",
                2,
                "opener: give the program's path",
            ),
            ("[desktop]\nopener = [\"xdg-open\"]", 2, "begins with /"),
            ("[desktop]\nopen_path_roots = [\"a\"]", 2, "begin with /"),
            ("[desktop]\nopen_url = \"yes\"", 2, "open_url"),
            ("[desktop]\nopen_urls = true", 2, "open_urls"),
        ] {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.line, Some(line), "{text}: {problem}");
            assert!(problem.message.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("agent.toml");
        let problem = Config::read(Some(&missing)).unwrap_err();
        assert!(problem.message.contains("--config"), "{problem}");
    }
}
