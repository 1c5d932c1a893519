//! The translation of the etcd client's errors.
//!
//! Owns the mapping to [`RegistryError`]. The client has no typed errors beyond gRPC's codes, so the texts of etcd's
//! own `rpctypes/error.go` (v3.5 to v3.7) distinguish some. Refuses to know which call failed.

use etcd_client::Error;

use crate::causes::chain;
use crate::registry::RegistryError;

// gRPC codes, https://grpc.io/docs/guides/status-codes/
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// Maximum length of a passed-on text, in characters.
const MAX_TEXT: usize = 300;

pub fn meaning(error: &Error) -> RegistryError {
    match error {
        Error::GRpcStatus(status) => {
            let text = chain(status.message().to_owned(), status);
            // A status with a cause does not come from the server.
            let broken = std::error::Error::source(status).is_some();
            match status.code() as i32 {
                CANCELLED | UNKNOWN | INTERNAL if broken => of_transport(&text),
                code => of_status(code, status.message(), &text),
            }
        }
        Error::TransportError(transport) => of_transport(&chain(transport.to_string(), transport)),
        Error::InvalidUri(_) | Error::EndpointError(_) | Error::IoError(_) => {
            RegistryError::Unreachable(cut(&error.to_string()))
        }
        _ => RegistryError::Server(cut(&error.to_string())),
    }
}

/// The codes of etcd's errors by their texts. etcd's proxy passes on the text alone, with the code `Unknown`.
const STATED: [(&str, i32); 15] = [
    ("invalid auth token", UNAUTHENTICATED),
    ("authentication failed", INVALID_ARGUMENT),
    ("user name is empty", INVALID_ARGUMENT),
    ("authentication is not enabled", FAILED_PRECONDITION),
    ("permission denied", PERMISSION_DENIED),
    ("requested lease not found", NOT_FOUND),
    ("lease already exists", FAILED_PRECONDITION),
    ("database space exceeded", RESOURCE_EXHAUSTED),
    ("too many operations in txn request", INVALID_ARGUMENT),
    ("duplicate key given", INVALID_ARGUMENT),
    ("request is too large", INVALID_ARGUMENT),
    ("no leader", UNAVAILABLE),
    ("leader changed", UNAVAILABLE),
    ("request timed out", UNAVAILABLE),
    ("server stopped", UNAVAILABLE),
];

fn code_of(code: i32, message: &str) -> i32 {
    let stated = STATED.iter().find(|(text, _)| code == UNKNOWN && message.contains(text));
    stated.map_or(code, |(_, code)| *code)
}

fn of_status(code: i32, message: &str, text: &str) -> RegistryError {
    match code_of(code, message) {
        UNAUTHENTICATED => RegistryError::AuthFailed(cut(message)),
        INVALID_ARGUMENT if message.contains("authentication failed") || message.contains("user name is empty") => {
            RegistryError::AuthFailed(cut(message))
        }
        FAILED_PRECONDITION if message.contains("authentication is not enabled") => {
            RegistryError::AuthFailed(cut(message))
        }
        PERMISSION_DENIED => RegistryError::PermissionDenied(cut(message)),
        NOT_FOUND if message.contains("lease not found") => RegistryError::LeaseGone,
        RESOURCE_EXHAUSTED if message.contains("database space exceeded") => RegistryError::NoSpace(cut(message)),
        INVALID_ARGUMENT if message.contains("too many operations in txn request") => RegistryError::TooManyOps,
        INVALID_ARGUMENT => RegistryError::Rejected(cut(message)),
        // Our own decoder (tonic), and a server or a proxy that is written in Go.
        OUT_OF_RANGE if message.contains("message length too large") => RegistryError::TooLarge(cut(message)),
        RESOURCE_EXHAUSTED if message.contains("larger than max") => RegistryError::TooLarge(cut(message)),
        UNAVAILABLE | DEADLINE_EXCEEDED => of_transport(text),
        _ => RegistryError::Server(cut(message)),
    }
}

/// Words of rustls about certificates and handshakes. Not "tls", which is also in its error for a peer that just went
/// away ("peer closed connection without sending TLS close_notify").
const TLS_FAILED: [&str; 4] = ["certificate", "handshake", "unknownissuer", "notvalidforname"];

/// TLS fails below gRPC, which only reports that there is no connection.
fn of_transport(text: &str) -> RegistryError {
    let lower = text.to_lowercase();
    if TLS_FAILED.iter().any(|word| lower.contains(word)) {
        RegistryError::TlsFailed(cut(text))
    } else {
        RegistryError::Unreachable(cut(text))
    }
}

pub fn is_lease_exists(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if code_of(status.code() as i32, status.message()) == FAILED_PRECONDITION && status.message().contains("lease already exists"))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_and_handshakes_are_failures_of_tls() {
        let failed = |text: &str| matches!(of_transport(text), RegistryError::TlsFailed(_));
        // The words of rustls 0.23 and tokio-rustls for a killed server, and of one that we refuse or that refuses us.
        let closed = "transport error: peer closed connection without sending TLS close_notify: \
                      https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        assert!(!failed(closed) && !failed("transport error: connection reset by peer"));
        for text in [
            "invalid peer certificate: UnknownIssuer",
            "received fatal alert: CertificateRequired",
            "received fatal alert: HandshakeFailure",
            "tls handshake eof",
        ] {
            assert!(failed(text), "{text}");
        }
        assert!(of_transport(closed).is_ambiguous() && of_transport("tls handshake eof").is_ambiguous());
    }

    #[test]
    fn a_request_that_is_refused_as_such_was_not_written() {
        let of = |message: &str| of_status(INVALID_ARGUMENT, message, message);
        assert_eq!(of("etcdserver: too many operations in txn request"), RegistryError::TooManyOps);
        for text in ["etcdserver: duplicate key given in txn request", "etcdserver: request is too large"] {
            assert_eq!(of(text), RegistryError::Rejected(text.to_owned()));
            assert!(!of(text).is_ambiguous());
        }
    }

    #[test]
    fn answers_that_are_too_large_are_told_from_other_refusals_with_the_same_code() {
        let too_large = |code, text: &str| matches!(of_status(code, text, text), RegistryError::TooLarge(_));
        let decoded = "Error, decoded message length too large: found 17000000 bytes, the limit is: 16777216 bytes";
        assert!(too_large(OUT_OF_RANGE, decoded));
        assert!(too_large(RESOURCE_EXHAUSTED, "grpc: received message larger than max (17000000 vs. 16777216)"));
        assert!(!too_large(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"));
        assert!(!too_large(RESOURCE_EXHAUSTED, "etcdserver: too many requests"));
    }

    #[test]
    fn errors_that_a_proxy_passes_on_keep_their_meaning() {
        let of = |message: &str| of_status(UNKNOWN, message, message);
        assert_eq!(of("etcdserver: requested lease not found"), RegistryError::LeaseGone);
        assert_eq!(of("etcdserver: too many operations in txn request"), RegistryError::TooManyOps);
        assert!(matches!(of("etcdserver: mvcc: database space exceeded"), RegistryError::NoSpace(_)));
        assert!(matches!(of("etcdserver: permission denied"), RegistryError::PermissionDenied(_)));
        assert!(matches!(of("etcdserver: no leader"), RegistryError::Unreachable(_)));
        assert!(matches!(of("etcdserver: corrupt cluster"), RegistryError::Server(_)));
    }
}
