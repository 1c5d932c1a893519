//! The table of values in the chart's README.

use anyhow::{Context, Result};
use serde_yaml::Value;

use crate::schema::{self, Key};

const BEGIN: &str = "<!-- values: generated from values.schema.json by `make manifests` -->\n";
const END: &str = "<!-- end of values -->\n";

/// One row for each key that holds a value.
pub fn print(schema: &Value) -> Result<String> {
    let mut out = "| key | default | what it is |\n|---|---|---|\n".to_owned();
    for key in schema::top(schema)? {
        rows(&mut out, &key, key.name)?;
    }
    Ok(out)
}

fn rows(out: &mut String, key: &Key<'_>, path: &str) -> Result<()> {
    let keys = key.keys();
    if keys.is_empty() {
        let default = match key.default() {
            Some(value) => format!("`{}`", serde_json::to_string(value)?),
            None => String::new(),
        };
        out.push_str(&format!("| `{path}` | {default} | {} |\n", key.description().replace('|', "\\|")));
    }
    keys.iter().try_for_each(|inner| rows(out, inner, &format!("{path}.{}", inner.name)))
}

/// A README with its table replaced.
pub fn replace(readme: &str, table: &str) -> Result<String> {
    let missing = || format!("the chart's README needs the lines {BEGIN:?} and {END:?}");
    let (before, rest) = readme.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}
