//! Label and field selectors of lists and watches.
//!
//! Owns how they are read and what they match (`k8s.io/apimachinery/pkg/{labels,fields}`). Refuses to know kinds, but
//! for the fields that each allows to ask for.

use serde_json::Value;

use crate::kinds::{Family, Kind};
use crate::status::Status;

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

/// The conditions that an object has to meet, all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    /// A path in the object, its text, and whether it has to have it.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// # Errors
    /// 400 for a selector that cannot be read, or a field that the kind does not allow to ask for.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Status> {
        let label = |part: &str| {
            requirement(part).ok_or_else(|| {
                Status::bad_request(format!("unable to parse requirement: found '{part}', expected: a requirement"))
            })
        };
        let labels = split(labels).into_iter().map(|part| label(&part)).collect::<Result<_, _>>()?;
        let fields = split(fields).into_iter().map(|part| field(kind, &part)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |(name, test): &(String, Test)| {
            let value = labels.get(name).and_then(Value::as_str);
            match test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|wanted| wanted != value)),
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
            }
        };
        let field = |(path, wanted, equal): &(String, String, bool)| {
            let found = path.split('.').fold(object, |value, name| &value[name]);
            (found.as_str().unwrap_or_default() == wanted) == *equal
        };
        self.labels.iter().all(label) && self.fields.iter().all(field)
    }
}

/// The parts between commas outside parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Option<(String, Test)> {
    let set = |values: &str| -> Option<Vec<String>> {
        let inner = values.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    let (name, test) = if let Some((name, value)) = part.split_once("!=") {
        (name, Test::NotIn(one(value)))
    } else if let Some((name, value)) = part.split_once("==") {
        (name, Test::In(one(value)))
    } else if let Some((name, value)) = part.split_once('=') {
        (name, Test::In(one(value)))
    } else if let Some((name, values)) = part.split_once(" notin ") {
        (name, Test::NotIn(set(values)?))
    } else if let Some((name, values)) = part.split_once(" in ") {
        (name, Test::In(set(values)?))
    } else if let Some(name) = part.strip_prefix('!') {
        (name, Test::Missing)
    } else {
        (part, Test::Exists)
    };
    let name = name.trim();
    (!name.is_empty() && !name.contains(' ')).then(|| (name.to_owned(), test))
}

fn field(kind: &Kind, part: &str) -> Result<(String, String, bool), Status> {
    let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Status::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
    };
    let allowed: &[&str] = match kind.family {
        Family::Pod => &["spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"],
        Family::Service => &["spec.clusterIP", "spec.type"],
        Family::Namespace => &["status.phase"],
        Family::Secret => &["type"],
        Family::Event => {
            &["reason", "type", "regarding.kind", "regarding.name", "regarding.namespace", "regarding.uid"]
        }
        _ => &[],
    };
    let everywhere = path == "metadata.name" || (path == "metadata.namespace" && kind.namespaced);
    if !everywhere && !allowed.contains(&path) {
        return Err(Status::bad_request(format!("field label not supported: {path}")));
    }
    Ok((path.to_owned(), value.to_owned(), equal))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let kinds = kinds::all(&[]);
        let pods = kinds.iter().find(|kind| kind.plural == "pods").unwrap();
        let pod =
            json!({"metadata": {"name": "a", "labels": {"app": "echo", "tier": "web"}}, "spec": {"nodeName": "n"}});
        for (labels, fields, matches) in [
            ("", "", true),
            ("app=echo", "", true),
            ("app==echo,tier!=db", "", true),
            ("app in (echo, other),!gone", "metadata.name=a", true),
            ("app notin (echo)", "", false),
            ("other!=x", "spec.nodeName!=n", false),
            ("tier", "status.phase=", true),
            ("gone", "", false),
        ] {
            let selector = Selector::parse(pods, labels, fields).unwrap();
            assert_eq!(selector.matches(&pod), matches, "{labels} {fields}");
        }
        assert_eq!(Selector::parse(pods, "", "spec.other=1").unwrap_err().code, 400);
        assert_eq!(Selector::parse(pods, "a b c", "").unwrap_err().code, 400);
    }
}
