//! The YAML of generated RegisteredServices.
//!
//! Owns its form: one document for each, without fields of the server, with comments before it. Refuses to choose.

use std::fmt;

use serde_json::Value;

/// Everything that was generated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    pub documents: Vec<Document>,
    /// Services that are left out, and why.
    pub remarks: Vec<String>,
    /// Whether every registry could be asked.
    pub complete: bool,
}

/// One RegisteredService, and the reasons for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub comments: Vec<String>,
    pub object: Value,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.documents.is_empty() {
            comment(f, "nothing to generate")?;
        }
        for remark in &self.remarks {
            comment(f, remark)?;
        }
        for document in &self.documents {
            writeln!(f, "---")?;
            for text in &document.comments {
                comment(f, text)?;
            }
            f.write_str(&serde_yaml::to_string(&document.object).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

/// A comment is one line, whatever a stranger put into a name.
fn comment(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    writeln!(f, "# {line}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_has_its_comments_and_a_comment_is_one_line() {
        let object = json!({"kind": "RegisteredService", "spec": {"direction": "Both"}});
        let document = Document { comments: vec!["why\nkind: Secret".to_owned()], object };
        let manifest = Manifest { documents: vec![document], remarks: vec!["left out".to_owned()], complete: true };
        let wanted = "# left out\n---\n# why kind: Secret\nkind: RegisteredService\nspec:\n  direction: Both\n";
        assert_eq!(manifest.to_string(), wanted);
        assert_eq!(Manifest::default().to_string(), "# nothing to generate\n");
    }
}
