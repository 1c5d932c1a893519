//! The proxy before the API server, by the environment, as Go's `http.ProxyFromEnvironment` and so kubectl reads it.
//!
//! Owns the rules of `NO_PROXY` that hyper-util's matcher, which follows curl, does not have: ports, `*.` and loopback.
//! Refuses to know a kubeconfig: its `proxy-url` goes before the environment, and `NO_PROXY` does not concern it.

use std::net::IpAddr;

use http::Uri;
use http::uri::Authority;
use hyper_util::client::proxy::matcher::Matcher;

/// The reason why a proxy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    // The address may hold a password, so it is not repeated.
    #[error("{place} is no URL of a proxy: {source}; write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")]
    Url { place: &'static str, source: http::uri::InvalidUri },
    #[error("{place} has the scheme {scheme}; a proxy is reached by http, https or socks5")]
    Scheme { place: &'static str, scheme: String },
}

/// The proxy for a server, from `HTTPS_PROXY` (`HTTP_PROXY` for a server without TLS) and `NO_PROXY`.
///
/// # Errors
/// [`ProxyError`] if a proxy is needed and its address is none.
pub fn of_environment(server: &Uri) -> Result<Option<Uri>, ProxyError> {
    let (upper, lower) = match server.scheme_str() {
        Some("http") => ("HTTP_PROXY", "http_proxy"),
        _ => ("HTTPS_PROXY", "https_proxy"),
    };
    let (proxy, no_proxy) = (variable(upper, lower), variable("NO_PROXY", "no_proxy"));
    if proxy.is_empty() || is_direct(server, &no_proxy) {
        return Ok(None);
    }
    parsed(upper, &proxy).map(Some)
}

/// The address of a proxy. As with Go, one without a scheme is reached by HTTP.
pub fn parsed(place: &'static str, url: &str) -> Result<Uri, ProxyError> {
    let url = url.trim();
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    // The host is resolved by the proxy with either name.
    let full = full.strip_prefix("socks5h://").map(|rest| format!("socks5://{rest}")).unwrap_or(full);
    let uri: Uri = full.parse().map_err(|source| ProxyError::Url { place, source })?;
    match uri.scheme_str() {
        Some("http" | "https" | "socks5") => Ok(uri),
        other => Err(ProxyError::Scheme { place, scheme: other.unwrap_or("none").to_owned() }),
    }
}

fn variable(upper: &str, lower: &str) -> String {
    let value = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
    value(upper).or_else(|| value(lower)).unwrap_or_default()
}

/// Whether the server is reached without a proxy.
fn is_direct(server: &Uri, no_proxy: &str) -> bool {
    let Some(host) = server.host() else { return true };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
        return true;
    }
    let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
    // An asterisk alone means addresses too.
    if no_proxy.split(',').any(|entry| entry.trim() == "*") {
        return true;
    }
    // A leading dot means names below, and not the name itself.
    let is_itself = |entry: &String| entry.strip_prefix('.').is_some_and(|name| name.eq_ignore_ascii_case(bare));
    let entries: Vec<String> =
        no_proxy.split(',').filter_map(|entry| host_of(entry.trim(), port)).filter(|entry| !is_itself(entry)).collect();
    // The matcher answers whether some proxy is used, so any proxy will do.
    let matcher = Matcher::builder().all("http://proxy").no(entries.join(",")).build();
    matcher.intercept(server).is_none()
}

/// An entry without its port; absent if it means another port. `*.` means the same as a leading dot.
fn host_of(entry: &str, port: u16) -> Option<String> {
    let is_ip = entry.parse::<IpAddr>().is_ok();
    let (host, wanted) = match entry.parse::<Authority>() {
        Ok(authority) if !is_ip && authority.port().is_some() => (authority.host().to_owned(), authority.port_u16()),
        _ => (entry.to_owned(), None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    (wanted.is_none_or(|wanted| wanted == port) && !host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_kubectl_reads_it() {
        let server = "https://k8s.example.com:6443".parse().unwrap();
        for (no_proxy, direct) in [
            ("", false),
            ("*", true),
            ("example.com", true),
            (".example.com", true),
            (".k8s.example.com", false),
            ("*.k8s.example.com", false),
            ("k8s.example.com", true),
            ("*.example.com", true),
            ("K8S.Example.com", true),
            ("k8s.example.com:6443", true),
            ("k8s.example.com:443", false),
            ("localhost, ,k8s.example.com,", true),
            ("ample.com", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(is_direct(&server, no_proxy), direct, "{no_proxy:?}");
        }
        let address: Uri = "https://10.77.1.2:6443".parse().unwrap();
        for (no_proxy, direct) in [
            ("*", true),
            ("a, * ", true),
            ("10.0.0.0/8", true),
            ("10.77.1.2", true),
            ("10.77.1.2:6443", true),
            ("10.77.1.2:80", false),
            ("10.78.0.0/16", false),
            ("127.0.0.0/8", false),
        ] {
            assert_eq!(is_direct(&address, no_proxy), direct, "{no_proxy:?}");
        }
        let six: Uri = "https://[fd77::1]:6443".parse().unwrap();
        for (no_proxy, direct) in [
            ("fd77::1", true),
            ("[fd77::1]:6443", true),
            ("[fd77::1]:80", false),
            ("fd77::/64", true),
            ("fd78::/64", false),
        ] {
            assert_eq!(is_direct(&six, no_proxy), direct, "{no_proxy:?}");
        }
    }

    #[test]
    fn a_server_on_this_machine_has_no_proxy() {
        for server in ["https://localhost:6443", "https://127.0.0.1:6443", "http://127.8.0.1", "https://[::1]:1"] {
            assert!(is_direct(&server.parse().unwrap(), ""), "{server}");
        }
    }

    #[test]
    fn the_address_of_a_proxy_may_lack_its_scheme() {
        let parsed = |text| parsed("HTTPS_PROXY", text).map(|uri| uri.to_string());
        assert_eq!(parsed("proxy:3128").unwrap(), "http://proxy:3128/");
        assert_eq!(parsed("http://u:p@proxy:3128").unwrap(), "http://u:p@proxy:3128/");
        assert_eq!(parsed("socks5h://proxy:1080").unwrap(), "socks5://proxy:1080/");
        assert!(parsed("ftp://proxy").unwrap_err().to_string().contains("the scheme ftp"));
        let secret = parsed("http://u:secret@pro xy:1").unwrap_err().to_string();
        assert!(!secret.contains("secret") && secret.starts_with("HTTPS_PROXY is no URL"), "{secret}");
    }
}
