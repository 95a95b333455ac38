//! What becomes of the files that whoever installs an agent writes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use node_agent::{
    capability::command::{
        account::Accounts,
        declaration::{self, Surroundings},
    },
    config::{Config, document::Document},
};

/// Where a configuration is.
pub struct Settings {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Settings {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            path,
            _folder: folder,
        }
    }

    /// It is read, or there is a problem.
    pub fn are(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
        if let Err(problem) = Config::read(Some(&self.path)) {
            assert!(!problem.to_string().contains('\n'), "one line each");
        }
    }
}

/// Capabilities that are read, or problems.
pub fn declares(text: String) {
    let surroundings = Surroundings {
        is_root: false,
        accounts: Accounts::default(),
    };
    let document = Document::of(Path::new("some.toml"), text);
    if let Err(problems) = declaration::read(&document, &surroundings) {
        assert!(!problems.is_empty());
    }
}
