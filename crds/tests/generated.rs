//! `generated/*.yaml` is what the types say. `UPDATE_GENERATED=1 cargo test -p crds` rewrites it.

use std::path::{Path, PathBuf};

use crds::definition::definitions;
use serde_json::Value;

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    let mut expected_files = Vec::new();
    for definition in definitions() {
        let path = folder.join(format!("{}.yaml", definition.spec.names.plural));
        let rendered = render(serde_json::to_value(&definition).unwrap());
        if update {
            std::fs::write(&path, &rendered).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == rendered,
            "{} is stale: run `UPDATE_GENERATED=1 cargo test -p crds` and commit what it wrote",
            path.display()
        );
        expected_files.push(path);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(
        files, expected_files,
        "a file of generated/ belongs to no kind"
    );
}

fn render(mut definition: Value) -> String {
    whole_numbers(&mut definition);
    let yaml = serde_saphyr::to_string(&definition).expect("a definition can be written as YAML");
    format!(
        "# Generated from the types in crds/src. To change it: UPDATE_GENERATED=1 cargo test -p crds\n{yaml}"
    )
}

/// Bounds are floats in the types of a definition; `minimum: 1.0` would be odd on an integer.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64()) {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "bounds are small whole numbers"
                )]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
