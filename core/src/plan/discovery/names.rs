//! The names of discovered services: templates, and the way from a registry's name to one of Kubernetes.
//!
//! Owns the rule by which any registry name becomes a DNS label (RFC 1035, which Services need): lower case, a hyphen
//! for every other character, `s-` before a first one that is no letter, and where anything had to change, or the name
//! is longer than 63, the first 8 hexadecimal digits of the SHA-256 of the registry's name behind a hyphen. Refuses to
//! know which names are taken.

use sha2::{Digest, Sha256};

/// The longest name of a Service.
const LONGEST: usize = 63;
/// Put before a name whose first character is no letter.
const FIRST: &str = "s-";

/// A name with places for others: `{name}` and `{namespace}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Fills in the places. A name that looks like a place is none.
    pub fn fill(&self, name: &str, namespace: &str) -> String {
        let places = [("{name}", name), ("{namespace}", namespace)];
        let (mut filled, mut rest) = (String::with_capacity(self.0.len() + name.len()), self.0.as_str());
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            let found = places.iter().find_map(|(place, value)| Some((*value, rest.strip_prefix(place)?)));
            let (value, after) = found.unwrap_or(("{", &rest[1..]));
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

/// The name of the Service for a name of the registry; `filled` is what the template makes of it.
pub fn kubernetes_name(filled: &str, registry_name: &str) -> String {
    let mut label: String = filled
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        })
        .collect();
    label = label.trim_matches('-').to_owned();
    if !label.starts_with(|c: char| c.is_ascii_lowercase()) {
        label.insert_str(0, FIRST);
    }
    if label == filled && label.len() <= LONGEST {
        return label;
    }
    let digest: String = Sha256::digest(registry_name).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    label.truncate(LONGEST - digest.len() - 1);
    format!("{}-{digest}", label.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_once() {
        let fill = |template: &str, name: &str| Template::new(template).fill(name, "shop");
        assert_eq!(fill("{name}", "echo"), "echo");
        assert_eq!(fill("{namespace}.{name}-x", "echo"), "shop.echo-x");
        assert_eq!(fill("{name}{name}", "{namespace}"), "{namespace}{namespace}");
        assert_eq!(fill("{other}{name", "echo"), "{other}{name");
    }

    #[test]
    fn a_dns_label_stays_and_everything_else_gets_the_hash_of_its_name() {
        for (name, expected) in [
            ("echo", "echo"),
            ("a", "a"),
            ("Echo", "echo-8335e4c9"),
            ("wsp.earn_QA", "wsp-earn-qa-b0c52bc1"),
            ("7up", "s-7up-be39b1e7"),
            ("...", "s-ab5df625"),
            ("-echo-", "echo-1baa7f10"),
        ] {
            assert_eq!(kubernetes_name(name, name), expected);
        }
        let long = kubernetes_name(&"x".repeat(64), &"x".repeat(64));
        assert_eq!((long.len(), long.starts_with(&"x".repeat(54))), (63, true), "{long}");
        assert_eq!(kubernetes_name(&"x".repeat(63), &"x".repeat(63)).len(), 63);
        assert_ne!(kubernetes_name("Echo", "Echo"), kubernetes_name("eChO", "eChO"));
    }

    #[test]
    fn every_name_is_a_label() {
        for byte in b'!'..=b'~' {
            for name in [format!("{}", byte as char), format!("a{}b", byte as char), format!("ab{}", byte as char)] {
                let made = kubernetes_name(&name, &name);
                let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                let legal = made.starts_with(|c: char| c.is_ascii_lowercase()) && !made.ends_with('-');
                assert!(legal && made.chars().all(inner) && made.len() <= LONGEST, "{name}: {made}");
            }
        }
    }
}
