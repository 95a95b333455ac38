//! The folder of declarations: each file is good or bad as a whole, and a bad one takes no other down.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::declaration::{self, Declaration, Surroundings};
use crate::config::document::{Document, Problem, check_writers};

/// Most files that are read.
const MAX_FILES: usize = 256;
const EXTENSION: &str = "toml";

/// What a folder declares, and what is wrong with the rest.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// No name twice.
    pub declarations: Vec<Declaration>,
    pub problems: Vec<Problem>,
}

/// Reads the folder, in the order of the files' names. One that is not there declares nothing.
pub fn read(folder: &Path, surroundings: &Surroundings) -> Found {
    let mut found = Found::default();
    let files = match files_in(folder) {
        Ok(files) => files,
        Err(problem) => {
            found.problems.push(problem);
            return found;
        }
    };
    let mut declared_in: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (index, path) in files.into_iter().enumerate() {
        if index >= MAX_FILES {
            let message = format!("it is not read: {MAX_FILES} files are, at most");
            found.problems.push(Problem::of(&path, message));
            continue;
        }
        let declarations = match Document::read(&path) {
            // Gone since the folder was listed.
            Ok(None) => continue,
            Ok(Some(document)) => declaration::read(&document, surroundings),
            Err(problem) => Err(vec![problem]),
        };
        match declarations {
            Err(problems) => found.problems.extend(problems),
            Ok(declarations) => {
                for declaration in declarations {
                    if let Some(first) = declared_in.get(&declaration.name) {
                        found
                            .problems
                            .extend(twice(&declaration.name, first, &path));
                    } else {
                        declared_in.insert(declaration.name.clone(), path.clone());
                        found.declarations.push(declaration);
                    }
                }
            }
        }
    }
    found
}

/// Said of both files: whoever looks at one of them must learn of the other.
fn twice(name: &str, first: &Path, second: &Path) -> [Problem; 2] {
    [
        Problem::of(
            second,
            format!(
                "{name} is declared in {} already, and that one counts: remove one of them",
                first.display()
            ),
        ),
        Problem::of(
            first,
            format!(
                "{name} is declared once more in {}, which does not count: remove one of them",
                second.display()
            ),
        ),
    ]
}

/// The files that count, by name. A name that begins with a dot is an editor's, or not finished.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let failed = |error: io::Error| Problem::of(folder, format!("cannot be read: {error}"));
    let metadata = match fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    // Who may write to the folder may put another's file there under any name.
    check_writers(&metadata, &[])
        .map_err(|message| Problem::of(folder, format!("nothing in it is read: {message}")))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What tells two states of the folder, and of the programs that it names, apart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint(BTreeMap<PathBuf, Option<Stamp>>);

/// Every change of a file's content, owner or mode changes one of these.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

pub fn fingerprint<'a>(folder: &Path, programs: impl IntoIterator<Item = &'a Path>) -> Fingerprint {
    let files = files_in(folder).unwrap_or_default();
    let all = files
        .into_iter()
        .take(MAX_FILES)
        .chain(programs.into_iter().map(Path::to_owned))
        .chain([folder.to_owned()]);
    Fingerprint(
        all.map(|path| {
            let stamp = fs::metadata(&path).ok().map(|metadata| Stamp {
                inode: metadata.ino(),
                size: metadata.size(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            });
            (path, stamp)
        })
        .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{super::account::Accounts, *};

    fn surroundings() -> Surroundings {
        Surroundings {
            is_root: false,
            accounts: Accounts::default(),
        }
    }

    fn write(folder: &Path, file: &str, text: &str, mode: u32) {
        let path = folder.join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn declaring(name: &str) -> String {
        format!("[[capability]]\nname = \"{name}\"\ncommand = \"/bin/true\"\n")
    }

    fn names(found: &Found) -> Vec<&str> {
        let names = found.declarations.iter().map(|one| one.name.as_str());
        names.collect()
    }

    #[test]
    fn a_bad_file_is_named_with_its_line_and_takes_no_other_down() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        write(
            folder,
            "10-good.toml",
            &(declaring("a") + &declaring("b")),
            0o644,
        );
        write(
            folder,
            "20-bad.toml",
            &(declaring("c") + "no_such_key = 1"),
            0o644,
        );
        write(folder, "30-loose.toml", &declaring("d"), 0o666);
        write(folder, "40-good.toml", &declaring("e"), 0o600);
        write(folder, ".hidden.toml", "[", 0o644);
        write(folder, "README", "[", 0o644);
        fs::create_dir(folder.join("folder.toml")).unwrap();

        let found = read(folder, &surroundings());
        assert_eq!(names(&found), ["a", "b", "e"]);
        let said: Vec<_> = found.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("20-bad.toml:4: "), "{said:?}");
        assert!(said[0].contains("no_such_key"), "{said:?}");
        assert!(said[1].contains("30-loose.toml: ") && said[1].contains("chmod go-w"));
        assert!(said[2].contains("folder.toml: "), "{said:?}");
    }

    #[test]
    fn of_two_files_with_one_name_the_first_counts_and_both_are_complained_about() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        write(folder, "b.toml", &(declaring("x") + &declaring("z")), 0o644);
        write(folder, "a.toml", &(declaring("x") + &declaring("y")), 0o644);
        let found = read(folder, &surroundings());
        assert_eq!(names(&found), ["x", "y", "z"]);
        let files: Vec<_> = found
            .problems
            .iter()
            .map(|problem| problem.path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(files, ["b.toml", "a.toml"]);
    }

    #[test]
    fn a_folder_that_others_may_write_to_declares_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("capabilities.d");
        assert!(read(&folder, &surroundings()).problems.is_empty());
        fs::create_dir(&folder).unwrap();
        write(&folder, "a.toml", &declaring("a"), 0o644);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let found = read(&folder, &surroundings());
        assert_eq!((names(&found).len(), found.problems.len()), (0, 1));
    }

    #[test]
    fn every_change_shows_in_the_fingerprint() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let program = folder.join("program");
        let look = || fingerprint(folder, [program.as_path()]);
        let mut seen = vec![look()];
        let mut changed = |what: &str| {
            let now = look();
            assert!(!seen.contains(&now), "{what}");
            assert_eq!(now, look());
            seen.push(now);
        };
        write(folder, "a.toml", &declaring("a"), 0o644);
        changed("a file comes");
        write(folder, "a.toml", &declaring("ab"), 0o644);
        changed("a file changes");
        fs::rename(folder.join("a.toml"), folder.join("b.toml")).unwrap();
        changed("a file gets another name");
        write(folder, "program", "x", 0o755);
        changed("a program comes");
        fs::remove_file(folder.join("b.toml")).unwrap();
        changed("a file goes");
    }
}
