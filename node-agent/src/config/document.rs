//! One TOML file of this device's administrator: read within bounds, and only where nobody else can have written it.
//! Whatever is wrong with it is a [`Problem`] that names the file, the line and the key.

use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::geteuid,
};
use serde::de::DeserializeOwned;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 256 * 1024;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 512;

/// `install` gives the configuration to root and to the agent's group.
const NOT_READABLE: &str = "this user may not read it: ask as root, as the agent's user, or as a member of its group; or name \
                            another file with --config";

/// What is wrong with a file, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Problem {
    pub path: PathBuf,
    /// Counted from 1; `None` where it is about the file as a whole.
    pub line: Option<usize>,
    pub message: String,
}

impl Problem {
    /// About the file as a whole.
    pub fn of(path: &Path, message: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            message: in_one_line(&message.to_string()),
        }
    }
}

/// Where a value stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

impl Place {
    /// What is wrong with the value of `key` that stands here.
    pub fn problem(&self, key: &str, message: impl fmt::Display) -> Problem {
        Problem {
            path: self.path.clone(),
            line: Some(self.line),
            message: in_one_line(&format!("{key}: {message}")),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            message,
        } = self;
        match line {
            Some(line) => write!(f, "{}:{line}: {message}", path.display()),
            None => write!(f, "{}: {message}", path.display()),
        }
    }
}

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// `None` where there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, Problem> {
        let failed = |error: io::Error| Problem::of(path, format!("cannot be read: {error}"));
        // Not blocking: opening a pipe that somebody left there would wait for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS) => return Err(Problem::of(path, NOT_READABLE)),
            Err(error) => return Err(failed(error.into())),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Problem::of(path, "it is no plain file: remove it"));
        }
        check_writers(&metadata, &[]).map_err(|message| Problem::of(path, message))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Problem::of(
                path,
                format!("it is larger than {MAX_BYTES} bytes: split it"),
            ));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..valid).unwrap_or_default();
            Problem {
                path: path.to_owned(),
                line: Some(line_after(before)),
                message: "it is not UTF-8: save it as such".to_owned(),
            }
        })?;
        Ok(Some(Self::of(path, text)))
    }

    pub fn of(path: &Path, text: String) -> Self {
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// Reads it as a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        toml::from_str(&self.text).map_err(|error| match error.span() {
            Some(span) => {
                let line = self.line_of(span.start);
                let message = match self.key_in(line) {
                    // Most messages name it already.
                    Some(key) if !error.message().contains(key) => {
                        format!("{key}: {}", error.message())
                    }
                    Some(_) | None => error.message().to_owned(),
                };
                Problem {
                    path: self.path.clone(),
                    line: Some(line),
                    message: in_one_line(&message),
                }
            }
            None => Problem::of(&self.path, error.message()),
        })
    }

    /// What is wrong with the value of `key`, which stands at `span`.
    pub fn problem(&self, span: &Range<usize>, key: &str, message: impl fmt::Display) -> Problem {
        self.place(span).problem(key, message)
    }

    /// The file and line of `span`.
    pub fn place(&self, span: &Range<usize>) -> Place {
        Place {
            path: self.path.clone(),
            line: self.line_of(span.start),
        }
    }

    fn line_of(&self, offset: usize) -> usize {
        let bytes = self.text.as_bytes();
        line_after(bytes.get(..offset).unwrap_or(bytes))
    }

    /// The key that a line sets, without its value: a value may be none of the log's business.
    fn key_in(&self, line: usize) -> Option<&str> {
        let (key, _) = self
            .text
            .lines()
            .nth(line.checked_sub(1)?)?
            .split_once('=')?;
        let key = key.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        (!key.is_empty() && key.chars().all(plain)).then_some(key)
    }
}

/// Whether nobody but root, this process's own user and `trusted` can have written it; otherwise what to do.
pub fn check_writers(metadata: &Metadata, trusted: &[u32]) -> Result<(), String> {
    judge(metadata.uid(), metadata.mode(), geteuid().as_raw(), trusted)
}

fn judge(owner: u32, mode: u32, own: u32, trusted: &[u32]) -> Result<(), String> {
    if owner != 0 && owner != own && !trusted.contains(&owner) {
        return Err(format!(
            "it belongs to user {owner}, who could change what this agent runs: if you trust what it says, `chown root` it"
        ));
    }
    let mode = mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!(
            "others than its owner may write to it (mode {mode:04o}), and could change what this agent runs: if you \
             trust what it says, `chmod go-w` it"
        ));
    }
    Ok(())
}

/// Counted from 1.
fn line_after(before: &[u8]) -> usize {
    before.split(|byte| *byte == b'\n').count()
}

fn in_one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    words.join(" ").chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        #[expect(dead_code, reason = "only its type counts")]
        count: u32,
    }

    fn problem(text: &str) -> String {
        let document = Document::of(Path::new("agent.toml"), text.to_owned());
        document.parse::<Shape>().unwrap_err().to_string()
    }

    #[test]
    fn a_problem_names_the_file_the_line_and_the_key() {
        for (text, expected) in [
            ("\ncount = \"x\"\n", ["agent.toml:2: ", "count", "u32"]),
            (
                "count = 1\nxcount = 2",
                ["agent.toml:2: ", "xcount", "`count`"],
            ),
            ("# nothing\n", ["agent.toml:1: ", "count", "missing"]),
            ("count = 1\n\n[", ["agent.toml:3: ", "", ""]),
            ("count = -1", ["agent.toml:1: ", "count", "u32"]),
        ] {
            let problem = problem(text);
            for expected in expected {
                assert!(problem.contains(expected), "{text:?}: {problem}");
            }
            assert!(!problem.contains('\n'));
        }
    }

    #[test]
    fn what_others_may_write_is_not_believed() {
        for (owner, mode, accepted) in [
            (7, 0o100_644, true),
            (0, 0o100_644, true),
            (9, 0o100_644, true),
            (8, 0o100_644, false),
            (7, 0o100_664, false),
            (7, 0o100_646, false),
            (0, 0o100_666, false),
        ] {
            assert_eq!(
                judge(owner, mode, 7, &[9]).is_ok(),
                accepted,
                "{owner} {mode:o}"
            );
        }
    }

    #[test]
    fn only_a_plain_file_of_a_plain_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        assert!(Document::read(&path).unwrap().is_none());
        assert!(Document::read(folder.path()).is_err());

        let write = |content: &[u8], mode| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write(b"count = 1", 0o644);
        let read = Document::read(&path).unwrap().unwrap();
        read.parse::<Shape>().unwrap();

        write(b"count = 1", 0o666);
        let problem = Document::read(&path).unwrap_err().to_string();
        assert!(problem.contains("chmod go-w"), "{problem}");

        write(b"\n\n\xff", 0o644);
        let problem = Document::read(&path).unwrap_err();
        assert_eq!(problem.line, Some(3), "{problem}");

        write(&vec![b'#'; 256 * 1024 + 1], 0o644);
        let problem = Document::read(&path).unwrap_err().to_string();
        assert!(problem.contains("split"), "{problem}");
    }
}
