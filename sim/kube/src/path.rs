//! The address of a request: its resource, namespace, name, subresource and parameters.
//!
//! Owns how a URL is read (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`, v0.37.2). Refuses to know kinds.

use std::collections::BTreeMap;

/// The path of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

impl Path {
    /// `None` for a path outside `/api` and `/apis`.
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let mut segments = segments.into_iter();
        let (group, version) = match segments.next()?.as_str() {
            "api" => (String::new(), segments.next()?),
            "apis" => (segments.next()?, segments.next()?),
            _ => return None,
        };
        let rest: Vec<String> = segments.collect();
        let at = |index: usize| rest.get(index).cloned().unwrap_or_default();
        // `/namespaces/x` and `/namespaces/x/status` are about the namespace itself.
        let inside = at(0) == "namespaces" && rest.len() > 2 && !["status", "finalize"].contains(&at(2).as_str());
        let (namespace, from) = if inside { (at(1), 2) } else { (String::new(), 0) };
        let path =
            Self { group, version, resource: at(from), namespace, name: at(from + 1), subresource: at(from + 2) };
        (!path.resource.is_empty() && rest.len() <= from + 3).then_some(path)
    }
}

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Self(decoded.collect())
    }

    /// The text of a parameter; empty if it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// `None` if the parameter is missing.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|value| matches!(value.as_str(), "true" | "1" | ""))
    }
}

/// Percent-decoding (RFC 3986, section 2.1). What is not an escape stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<[String; 6]> {
        Path::parse(path).map(|p| [p.group, p.version, p.resource, p.namespace, p.name, p.subresource])
    }

    #[test]
    fn paths() {
        for (path, wanted) in [
            ("/api/v1/pods", ["", "v1", "pods", "", "", ""]),
            ("/api/v1/namespaces/shop/pods/a%2db", ["", "v1", "pods", "shop", "a-b", ""]),
            ("/api/v1/namespaces/shop", ["", "v1", "namespaces", "", "shop", ""]),
            ("/api/v1/namespaces/shop/status", ["", "v1", "namespaces", "", "shop", "status"]),
            ("/apis/g/v2/namespaces/shop/ks/k/status", ["g", "v2", "ks", "shop", "k", "status"]),
            ("/apis/g/v2/ks/k", ["g", "v2", "ks", "", "k", ""]),
        ] {
            assert_eq!(parsed(path).unwrap(), wanted.map(str::to_owned), "{path}");
        }
        for path in ["/", "/api", "/api/v1", "/readyz", "/api/v1/pods/a/b/c"] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }

    #[test]
    fn queries() {
        let query = Query::parse("?&limit=500&labelSelector=a%3Db%2Cc&watch=true&x=1+2".trim_start_matches('?'));
        assert_eq!((query.number("limit"), query.text("labelSelector")), (Some(500), "a=b,c"));
        assert_eq!((query.flag("watch"), query.flag("other"), query.text("x")), (Some(true), None, "1 2"));
    }
}
