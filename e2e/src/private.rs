//! Files and folders that only their owner may read: keys, kubeconfigs, tokens.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;

/// Makes a folder (and its parents) with mode 0700. One that is there already keeps its mode.
pub fn folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make folder {}", path.display()))
}

/// Writes a file with mode 0600, all or nothing: a reader sees the old content or the new, never a part.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().context("a file needs a name")?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        // Made afresh, as an existing file would keep its mode.
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(content)?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_rewritten_file_is_for_its_owner_alone_whatever_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
