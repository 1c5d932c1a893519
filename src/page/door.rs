//! The door of the page: who is answered at all, and the headers of every answer.
//!
//! The page has no login of its own: the address that it listens on is in the pod, and whoever may forward a port to it
//! may look. A browser carries strangers' scripts to the same address, so a script of another site must neither read an
//! answer nor use up streams: the name in `Host` has to be a local one or one that was named (a site that rebinds its
//! name sends its own), and of what a browser marks as another site's only a link to the page itself is answered.
//!
//! Owns these rules. Refuses to know the pages.

use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};

/// Scripts, styles, pictures and data of this page alone; no code in the document.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Names under which a person reaches the page through a forwarded port.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

const WRONG_HOST: &str = "This page answers only under the names localhost, 127.0.0.1 and [::1], and those of --page-hosts \
     (TWINSPAN_PAGE_HOSTS).\nOpen it with: twinspan status --open\nBehind a proxy, name the host that the proxy sends in --page-hosts.\n";

/// Other names that the page answers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Names without ports, separated by commas.
    ///
    /// # Errors
    /// The name that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut hosts = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let authority = name.parse::<Authority>().ok().filter(|it| it.as_str() == it.host() && !name.contains('*'));
            let Some(authority) = authority else {
                return Err(format!("{name} is no name of a host; write it without scheme, port and path"));
            };
            hosts.push(authority.host().to_ascii_lowercase());
        }
        Ok(Self(hosts))
    }

    /// Whether the page answers under the name of a header `Host`.
    pub fn admit(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // A name before an @ is a user's.
        if host.contains('@') {
            return false;
        }
        let name = authority.host().to_ascii_lowercase();
        LOCAL.contains(&name.as_str()) || self.0.contains(&name)
    }

    /// The refusal of a request, if it is refused.
    pub fn refusal<B>(&self, request: &Request<B>) -> Option<Response> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let text = "this page is only read: GET and HEAD\n";
            return Some((StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], text).into_response());
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let named = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().is_ok_and(|host| self.admit(host)),
            _ => false,
        };
        // A target in absolute form counts before the header (RFC 9112, 3.2.2).
        let target = request.uri().authority().is_none_or(|authority| self.admit(authority.as_str()));
        if !named || !target {
            return Some((StatusCode::MISDIRECTED_REQUEST, WRONG_HOST).into_response());
        }
        if is_of_another_site(request.headers()) && !follows_link(request) {
            return Some((StatusCode::FORBIDDEN, "another site may not ask for this page\n").into_response());
        }
        None
    }
}

/// Whether a browser says that a document of another site asks for this (Fetch Metadata). Old browsers and programs say
/// nothing.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|it| it.as_bytes() == value.as_bytes());
    is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site")
}

/// Whether a browser follows a link to the page in a window of its own. Frames and popups of another site may not open
/// anything else, of which streams have places.
fn follows_link<B>(request: &Request<B>) -> bool {
    let is = |name: &str, value: &str| request.headers().get(name).is_some_and(|it| it.as_bytes() == value.as_bytes());
    request.uri().path() == "/" && is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

/// Adds the headers that every answer has.
pub fn seal(mut response: Response) -> Response {
    // A connection that was refused something makes room.
    let refused = !response.status().is_success();
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain; charset=utf-8"));
    if refused {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_local_or_named() {
        let hosts = Hosts::parse("twinspan.example.org, Status.example.org ,").unwrap();
        for host in [
            "localhost",
            "localhost:8082",
            "LOCALHOST:1",
            "127.0.0.1:40000",
            "[::1]:8082",
            "twinspan.example.org",
            "status.EXAMPLE.org:443",
        ] {
            assert!(hosts.admit(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil@localhost",
            "localhost@evil.example",
            "example.org",
            "127.0.0.2",
            "[::2]",
            "::1",
            "localhost:80:80",
            "local host",
            "localhost/",
        ] {
            assert!(!hosts.admit(host), "{host}");
        }
        for odd in ["https://a.example", "a.example:80", "a/b", "*.example", "a@b", "a b"] {
            assert!(Hosts::parse(odd).is_err(), "{odd}");
        }
        assert_eq!(Hosts::parse(""), Ok(Hosts::default()));
    }

    #[test]
    fn another_sites_script_gets_nothing_and_a_link_does() {
        let request = |site: &'static str, mode: &'static str, path: &'static str, dest: &'static str| {
            Request::get(path)
                .header(HOST, "localhost")
                .header("sec-fetch-site", site)
                .header("sec-fetch-mode", mode)
                .header("sec-fetch-dest", dest)
        };
        let refused = |request: Request<()>| Hosts::default().refusal(&request).map(|answer| answer.status());
        for (site, mode, path, dest, is_refused) in [
            ("cross-site", "cors", "/state", "empty", true),
            ("cross-site", "no-cors", "/state", "script", true),
            ("same-site", "cors", "/state", "empty", true),
            ("cross-site", "cors", "/", "empty", true),
            ("cross-site", "navigate", "/", "document", false),
            ("same-site", "navigate", "/", "document", false),
            ("cross-site", "navigate", "/", "iframe", true),
            ("cross-site", "navigate", "/events", "iframe", true),
            ("cross-site", "navigate", "/events", "document", true),
            ("cross-site", "navigate", "/state", "document", true),
            ("same-origin", "cors", "/state", "empty", false),
            ("none", "navigate", "/state", "document", false),
        ] {
            let status = is_refused.then_some(StatusCode::FORBIDDEN);
            assert_eq!(
                refused(request(site, mode, path, dest).body(()).unwrap()),
                status,
                "{site} {mode} {path} {dest}"
            );
        }
        let two = Request::get("/").header(HOST, "localhost").header(HOST, "localhost").body(()).unwrap();
        assert_eq!(refused(two), Some(StatusCode::MISDIRECTED_REQUEST));
        let absolute = Request::get("http://evil.example/").header(HOST, "localhost").body(()).unwrap();
        assert_eq!(refused(absolute), Some(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(refused(Request::get("/").body(()).unwrap()), Some(StatusCode::MISDIRECTED_REQUEST));
    }
}
