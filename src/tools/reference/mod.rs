//! `docs/api.md`: the API reference, printed from the types and constants.
//!
//! Owns the page: its order, its examples and the sentences between its tables. Refuses to know a field, a rule, a
//! reason or an annotation itself: they come from the CRDs and from the operator's constants.

mod fields;
mod vocabulary;

use std::fmt::{self, Write};

use serde_json::Value;

use crate::api::conditions::{OF_REGISTERED_SERVICE, OF_SERVICE_REGISTRY};
use crate::api::crds;

const HEAD: &str = "\
# API reference

Group `twinspan.dev`, version `v1alpha1`. Printed from the types by `make docs`; do not edit.

A field that is *required* has to be given. A field without a default may be left out, and its description says what that means. The
API server refuses what the column *allowed* does not admit, every rule that is broken and, when asked to validate strictly as kubectl
does, every field that it does not know; each answer names the field.
";

/// The text about one kind besides its fields.
struct Kind {
    intro: &'static str,
    example: &'static str,
    conditions: &'static [(&'static str, &'static str)],
}

/// # Errors
/// None in practice: the types are known at compile time.
pub fn page() -> Result<String, Error> {
    let mut page = HEAD.to_owned();
    // The registry comes first, because a service refers to it.
    for (_, crd) in crds::all()?.into_iter().rev() {
        let kind = match crd["spec"]["names"]["kind"].as_str() {
            Some("ServiceRegistry") => Kind {
                intro: "Cluster-scoped, for administrators.",
                example: include_str!("service-registry.yaml"),
                conditions: &OF_SERVICE_REGISTRY,
            },
            _ => Kind {
                intro: "Namespaced, for owners of services.",
                example: include_str!("registered-service.yaml"),
                conditions: &OF_REGISTERED_SERVICE,
            },
        };
        one_kind(&mut page, &crd, &kind)?;
    }
    vocabulary::write(&mut page)?;
    Ok(page)
}

/// The reason why the page cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot serialise: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot print: {0}")]
    Print(#[from] fmt::Error),
}

fn one_kind(page: &mut String, crd: &Value, kind: &Kind) -> fmt::Result {
    let names = &crd["spec"]["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    writeln!(page, "\n## {}\n", text(&names["kind"]))?;
    writeln!(
        page,
        "{} {} Short name `{}`.\n",
        text(&schema["description"]),
        kind.intro,
        text(&names["shortNames"][0])
    )?;
    writeln!(page, "```yaml\n{}```\n", kind.example)?;
    writeln!(page, "### Spec\n")?;
    fields::table(page, schema, "spec")?;
    writeln!(page, "\n### Rules\n")?;
    fields::rules(page, schema)?;
    writeln!(page, "\n### Status\n")?;
    fields::table(page, schema, "status")?;
    writeln!(page, "\n### Conditions\n\n| type | True says |\n|---|---|")?;
    for (name, meaning) in kind.conditions {
        writeln!(page, "| `{name}` | {meaning} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RegisteredService, ServiceRegistry};

    #[test]
    fn the_file_under_docs_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
        assert_eq!(std::fs::read_to_string(path).unwrap(), page().unwrap(), "{path}: run `make docs`");
    }

    #[test]
    fn every_field_has_a_row_with_a_description() {
        fn walk(schema: &Value, path: &str, page: &str) -> usize {
            let mut seen = 0;
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                assert!(field["description"].is_string(), "{path}: describe it in its Rust type");
                assert!(path.find('.').is_none() || page.contains(&format!("| `{path}` |")), "{path}: no row");
                seen += 1 + walk(field, &path, page) + walk(&field["items"], &format!("{path}[]"), page);
            }
            seen
        }
        let page = page().unwrap();
        for (file, crd) in crds::all().unwrap() {
            let seen = walk(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &page);
            assert!(seen > 20, "{file}: the walk found the schema");
        }
    }

    #[test]
    fn the_examples_are_objects_of_the_types() {
        serde_yaml::from_str::<ServiceRegistry>(include_str!("service-registry.yaml")).unwrap();
        serde_yaml::from_str::<RegisteredService>(include_str!("registered-service.yaml")).unwrap();
    }
}
