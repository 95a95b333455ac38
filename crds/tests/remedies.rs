//! Every code has its line in the table, and `docs/invocations.md` shows the table.
//! `UPDATE_GENERATED=1 cargo test -p crds` rewrites that part of the page.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use crds::{definition::definitions, remedies::Ran, v1alpha1::capability_invocation::ErrorCode};
use serde_json::Value;

const BEGIN: &str = "<!-- The table is generated: UPDATE_GENERATED=1 cargo test -p crds -->\n";
const END: &str = "<!-- End of the table -->\n";

fn name(code: ErrorCode) -> String {
    let name = serde_json::to_value(code).expect("a code can be written as JSON");
    name.as_str().expect("a code is a word").to_owned()
}

/// The schema of `status.error.code`.
fn schema_of_code() -> Value {
    let definition = definitions()
        .into_iter()
        .find(|definition| definition.spec.names.kind == "CapabilityInvocation")
        .expect("the kind is defined");
    let definition = serde_json::to_value(definition).expect("a definition can be written as JSON");
    let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    root["properties"]["status"]["properties"]["error"]["properties"]["code"].clone()
}

#[test]
fn kubectl_explain_says_what_to_do_about_each_code() {
    let schema = schema_of_code();
    let told = schema["description"].as_str().unwrap();
    for code in ErrorCode::ALL {
        let start = format!("{}: ", name(code));
        let line = told.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{start} is not explained: {told}"));
        let (meaning, remedy) = line[start.len()..]
            .split_once(" What to do: ")
            .unwrap_or_else(|| panic!("no remedy: {line}"));
        assert!(meaning.ends_with('.'), "no meaning: {line}");
        assert_eq!(remedy, code.remedy());
    }
}

#[test]
fn no_remedy_points_to_what_is_not_there() {
    // No failure carries an output.
    for code in ErrorCode::ALL {
        let remedy = code.remedy();
        assert!(!remedy.contains("status.output"), "{}", name(code));
    }
    let remedy = ErrorCode::CapabilityNotGranted.remedy();
    for field in ["spec.grants.capabilities", "spec.grants.surfaces"] {
        assert!(remedy.contains(field), "{remedy}");
    }
}

#[test]
fn every_code_of_the_schema_is_explained_once() {
    let schema = schema_of_code();
    let codes = &schema["enum"];
    let of_schema: BTreeSet<String> = codes
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    let explained: Vec<String> = ErrorCode::ALL.into_iter().map(name).collect();
    assert_eq!(
        explained.iter().cloned().collect::<BTreeSet<_>>(),
        of_schema
    );
    assert_eq!(explained.len(), of_schema.len());
}

#[test]
fn what_may_have_run_is_not_said_to_be_harmless_to_repeat() {
    for code in ErrorCode::ALL {
        let explained = code.explained();
        for text in [explained.happened, explained.remedy] {
            assert!(text.ends_with('.') && !text.contains('|'), "{text}");
        }
        let repeats = explained.remedy.contains("make it again");
        assert!(!repeats || explained.ran == Ran::No, "{}", name(code));
    }
}

#[test]
fn the_page_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/invocations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the page has the beginning mark");
    let (_, after) = rest.split_once(END).expect("the page has the end mark");
    let mut table =
        "| Code | What happened | Did it run? | What you can do |\n|---|---|---|---|\n".to_owned();
    for code in ErrorCode::ALL {
        let explained = code.explained();
        writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            name(code),
            explained.happened,
            explained.ran.as_str(),
            explained.remedy
        )
        .unwrap();
    }
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/invocations.md is stale: run `UPDATE_GENERATED=1 cargo test -p crds` and commit what it wrote"
    );
}
