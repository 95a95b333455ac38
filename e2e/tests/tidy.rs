//! The invariants of ARCHITECTURE.md that can be read off the sources.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A crate boundary is a dependency boundary: what a crate may not name in its manifest.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("crds", &["tokio", "tonic", "proto", "pairing", "runtime"]),
    (
        "proto",
        &["kube", "k8s-openapi", "crds", "pairing", "runtime"],
    ),
    (
        "pairing",
        &[
            "kube",
            "k8s-openapi",
            "tokio",
            "tonic",
            "crds",
            "proto",
            "runtime",
        ],
    ),
    ("runtime", &["crds", "proto", "pairing", "tonic"]),
    (
        "surface",
        &[
            "kube",
            "k8s-openapi",
            "tokio",
            "tonic",
            "crds",
            "proto",
            "pairing",
            "runtime",
        ],
    ),
    ("operator", &["proto", "tonic", "gateway", "node-agent"]),
    ("gateway", &["operator", "node-agent"]),
    (
        "node-agent",
        &["kube", "k8s-openapi", "crds", "operator", "gateway"],
    ),
];

#[test]
fn crates_depend_on_what_they_may() {
    for (name, forbidden) in FORBIDDEN {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for line in manifest.lines() {
            let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
            assert!(
                !forbidden.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

/// What decides has no clock, no I/O and no randomness.
#[test]
fn what_decides_is_pure() {
    let forbidden = [
        "async ",
        ".await",
        "Client",
        "::now()",
        "OsRng",
        "rand::",
        "tokio::",
        "tracing::",
    ];
    let pure = sources(&root()).unwrap().into_iter().filter(|path| {
        let inside = |folder| path.components().any(|part| part.as_os_str() == folder);
        path.ends_with("plan.rs") || (inside("gateway") && inside("domain"))
    });
    let mut seen = 0;
    for path in pure {
        seen += 1;
        let source = fs::read_to_string(&path).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            let found = forbidden
                .iter()
                .find(|word| !comment && line.contains(**word));
            assert_eq!(found, None, "{}:{}: {line}", path.display(), number + 1);
        }
    }
    assert!(
        seen > 5,
        "found only {seen} files that decide: have they moved?"
    );
}

#[test]
fn main_wires_and_nothing_else() {
    for path in sources(&root())
        .unwrap()
        .into_iter()
        .filter(|path| path.ends_with("src/main.rs"))
    {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 25, "{} has {lines} lines", path.display());
    }
}

/// Our own Rust sources.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
