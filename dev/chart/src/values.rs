//! `values.yaml`: every default, below the schema's description of its key.

use anyhow::{Context, Result};
use serde_yaml::Value;

use crate::schema::{self, Key};

const WIDTH: usize = 120;
const HEAD: &str = "\
# yaml-language-server: $schema=values.schema.json
# Every value of the chart with its default. Generated from values.schema.json by `make manifests`.
";

pub fn print(schema: &Value) -> Result<String> {
    let mut out = HEAD.to_owned();
    for key in schema::top(schema)? {
        out.push('\n');
        write(&mut out, &key, 0)?;
    }
    // Only the table names a key without a default.
    while out.ends_with("\n\n") {
        out.pop();
    }
    Ok(out)
}

fn write(out: &mut String, key: &Key<'_>, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    let keys = key.keys();
    let value = match key.default() {
        _ if !keys.is_empty() => String::new(),
        Some(value) => format!(" {}", serde_json::to_string(value).with_context(|| key.name.to_owned())?),
        None => return Ok(()),
    };
    for line in wrap(key.description(), WIDTH - indent.len() - 2) {
        out.push_str(&format!("{indent}# {line}\n"));
    }
    out.push_str(&format!("{indent}{}:{value}\n", key.name));
    keys.iter().try_for_each(|inner| write(out, inner, depth + 1))
}

/// Wraps words into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
