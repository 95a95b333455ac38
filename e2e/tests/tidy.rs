//! The invariants of ARCHITECTURE.md that can be read off the sources.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A crate boundary is a dependency boundary: what a crate may not name in its manifest.
struct Bounds {
    name: &'static str,
    /// Of what is not ours.
    others: &'static [&'static str],
    ours: Ours,
}

/// Crates of the workspace.
enum Ours {
    /// These alone.
    Only(&'static [&'static str]),
    /// All but these.
    Not(&'static [&'static str]),
}

use Ours::{Not, Only};

const CLUSTER: &[&str] = &["kube", "k8s-openapi"];
const NEITHER_CLUSTER_NOR_TASKS: &[&str] = &["kube", "k8s-openapi", "tokio", "tonic"];

/// Of every crate of the workspace; some of them are still to come.
const BOUNDS: [Bounds; 13] = [
    bounds("crds", &["tokio", "tonic"], Only(&[])),
    bounds("proto", CLUSTER, Only(&[])),
    bounds("pairing", NEITHER_CLUSTER_NOR_TASKS, Only(&[])),
    bounds("runtime", &["tonic"], Only(&[])),
    bounds("surface", NEITHER_CLUSTER_NOR_TASKS, Only(&[])),
    bounds("console-api", NEITHER_CLUSTER_NOR_TASKS, Only(&[])),
    bounds(
        "console",
        &["tonic"],
        Not(&["proto", "gateway", "operator", "node-agent", "client"]),
    ),
    bounds(
        "client",
        &["tonic"],
        Not(&["proto", "gateway", "console", "operator", "node-agent"]),
    ),
    bounds(
        "kubectl-fairlead",
        &["tonic"],
        Not(&["proto", "gateway", "console", "operator", "node-agent"]),
    ),
    bounds(
        "operator",
        &["tonic"],
        Not(&["proto", "gateway", "console", "node-agent", "client"]),
    ),
    bounds("gateway", &[], Not(&["operator", "node-agent", "client"])),
    bounds(
        "node-agent",
        CLUSTER,
        Not(&["crds", "operator", "gateway", "console", "client"]),
    ),
    // It stands around all of them.
    bounds("e2e", &[], Not(&[])),
];

const fn bounds(name: &'static str, others: &'static [&'static str], ours: Ours) -> Bounds {
    Bounds { name, others, ours }
}

/// The members of the workspace, as its manifest names them.
fn members() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let (_, list) = manifest.split_once("\nmembers = [").expect("members");
    let (list, _) = list.split_once(']').expect("an end of the members");
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a manifest names as dependencies, of whatever kind.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            // `[dependencies.NAME]`
            found.extend(section.rsplit_once("dependencies.").map(|(_, name)| name));
        } else if inside && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.push(name);
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn crates_depend_on_what_they_may() {
    let members = members();
    for member in &members {
        let Some(Bounds { others, ours, .. }) = BOUNDS.iter().find(|it| it.name == member) else {
            panic!("what may {member} not depend on? Say so here");
        };
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let dependencies = dependencies(&manifest);
        assert!(dependencies.len() > 2, "{member}: {dependencies:?}");
        for dependency in dependencies {
            let allowed = match ours {
                _ if !members.iter().any(|member| member == dependency) => {
                    !others.contains(&dependency)
                }
                Only(these) => these.contains(&dependency),
                Not(these) => !these.contains(&dependency),
            };
            assert!(allowed, "{member} must not depend on {dependency}");
        }
    }
}

#[test]
fn dependencies_are_found_in_every_form() {
    let manifest = "[package]\nname = \"a\"\n\n[dependencies]\nb.workspace = true\n# c = \"1\"\nd = { path = \"d\" }\n\n\
                    [dev-dependencies]\ne = \"1\"\n\n[target.'cfg(unix)'.dependencies.f]\nversion = \"1\"\n\n[lints]\nworkspace = true\n";
    assert_eq!(dependencies(manifest), ["b", "d", "e", "f"]);
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
    let pure = sources(&root())
        .unwrap()
        .into_iter()
        .filter(|path| decides(path));
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
        seen > 25,
        "found only {seen} files that decide: have they moved?"
    );
}

/// `plan.rs` and what is in its folder; what a gateway decides; and not their tests, which play the world.
fn decides(path: &Path) -> bool {
    let inside = |folder| path.components().any(|part| part.as_os_str() == folder);
    let is_test = path
        .file_stem()
        .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    let in_gateway = inside("gateway") && (inside("domain") || inside("decide"));
    !is_test && (path.ends_with("plan.rs") || inside("plan") || in_gateway)
}

#[test]
fn what_decides_is_known_by_its_place() {
    for decides_here in [
        "operator/src/device/plan.rs",
        "operator/src/pairing_request/plan/checks.rs",
        "operator/src/device/plan/renewal.rs",
        "operator/src/authority/plan.rs",
        "node-agent/src/agent/plan/once.rs",
        "gateway/src/domain/grants.rs",
        "gateway/src/enrollment/decide/mod.rs",
    ] {
        assert!(decides(Path::new(decides_here)), "{decides_here}");
        assert!(root().join(decides_here).is_file(), "{decides_here} moved");
    }
    for other in [
        "operator/src/device/apply.rs",
        "operator/src/pairing_request/plan/tests.rs",
        "gateway/src/enrollment/exchange.rs",
    ] {
        assert!(!decides(Path::new(other)), "{other}");
    }
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
