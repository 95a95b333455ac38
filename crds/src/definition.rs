//! The CustomResourceDefinitions: made from the types, and completed with what their derive cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{CapabilityInvocation, Device, PairingCode, PairingRequest};

/// The four kinds, as an API server takes them.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        completed(
            CapabilityInvocation::crd(),
            Some(&json!({"phase": "Queued"})),
        ),
        completed(Device::crd(), None),
        completed(PairingCode::crd(), None),
        completed(PairingRequest::crd(), Some(&json!({"phase": "Pending"}))),
    ]
}

/// `first_status` is what an object reads before anybody wrote its status: it costs no write, and selectors find it.
fn completed(
    mut definition: CustomResourceDefinition,
    first_status: Option<&Value>,
) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        complete(root);
        if let Some(status) = root.properties.as_mut().and_then(|p| p.get_mut("status")) {
            status.default = first_status.cloned().map(JSON);
        }
    }
    definition
}

/// Completes a schema and what it contains.
fn complete(schema: &mut JSONSchemaProps) {
    // An API server drops a null where null is not allowed. Kept, it would count as present in `has()`, and a null
    // approval would stand for a decision.
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        *description = in_paragraphs(description);
    }
    // The name of a Rust type, or what the values of an enum mean (`schema::name_variants`).
    let title = schema.title.take();
    if schema.enum_.is_some()
        && let (Some(description), Some(variants)) = (&mut schema.description, title)
    {
        description.push_str("\n\n");
        description.push_str(&variants);
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|map| map.values_mut())
    {
        complete(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        complete(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        complete(values);
    }
}

/// Joins the lines of a doc comment: whoever shows a description wraps it at a width of his own.
fn in_paragraphs(description: &str) -> String {
    let paragraphs: Vec<String> = description
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    paragraphs.join("\n\n")
}
