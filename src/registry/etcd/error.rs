//! The translation of the etcd client's errors.
//!
//! Owns the mapping to [`RegistryError`]. The client has no typed errors beyond gRPC's codes, so the texts of etcd's
//! own `rpctypes/error.go` (v3.5 to v3.7) distinguish some. Refuses to know which call failed.

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, Status};

use super::tls::TlsFailure;
use crate::causes::chain;
use crate::registry::RegistryError;

/// Maximum length of a passed-on text, in characters.
const MAX_TEXT: usize = 300;

pub fn meaning(error: &Error) -> RegistryError {
    match error {
        Error::GRpcStatus(status) => match tls_failure(status) {
            Some(failure) => RegistryError::TlsFailed(cut(&failure.to_string())),
            None => {
                let text = chain(status.message().to_owned(), status);
                match status.code() {
                    // A status with a cause does not come from the server.
                    Code::Cancelled | Code::Unknown | Code::Internal if status.source().is_some() => {
                        of_transport(&text)
                    }
                    code => of_status(code, status.message(), &text),
                }
            }
        },
        Error::TransportError(transport) => of_transport(&chain(transport.to_string(), transport)),
        Error::InvalidUri(_) | Error::EndpointError(_) | Error::IoError(_) => {
            RegistryError::Unreachable(cut(&error.to_string()))
        }
        _ => RegistryError::Server(cut(&error.to_string())),
    }
}

/// The failure of our own TLS among the causes.
fn tls_failure(status: &Status) -> Option<&TlsFailure> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref() {
            return Some(failure);
        }
        cause = error.source();
    }
    None
}

/// The codes of etcd's errors by their texts. etcd's proxy passes on the text alone, with the code `Unknown`.
const STATED: [(&str, Code); 15] = [
    ("invalid auth token", Code::Unauthenticated),
    ("authentication failed", Code::InvalidArgument),
    ("user name is empty", Code::InvalidArgument),
    ("authentication is not enabled", Code::FailedPrecondition),
    ("permission denied", Code::PermissionDenied),
    ("requested lease not found", Code::NotFound),
    ("lease already exists", Code::FailedPrecondition),
    ("database space exceeded", Code::ResourceExhausted),
    ("too many operations in txn request", Code::InvalidArgument),
    ("duplicate key given", Code::InvalidArgument),
    ("request is too large", Code::InvalidArgument),
    ("no leader", Code::Unavailable),
    ("leader changed", Code::Unavailable),
    ("request timed out", Code::Unavailable),
    ("server stopped", Code::Unavailable),
];

fn code_of(code: Code, message: &str) -> Code {
    let stated = STATED.iter().find(|(text, _)| code == Code::Unknown && message.contains(text));
    stated.map_or(code, |(_, code)| *code)
}

fn of_status(code: Code, message: &str, text: &str) -> RegistryError {
    match code_of(code, message) {
        Code::Unauthenticated => RegistryError::AuthFailed(cut(message)),
        Code::InvalidArgument
            if message.contains("authentication failed") || message.contains("user name is empty") =>
        {
            RegistryError::AuthFailed(cut(message))
        }
        Code::FailedPrecondition if message.contains("authentication is not enabled") => {
            RegistryError::AuthFailed(cut(message))
        }
        Code::PermissionDenied => RegistryError::PermissionDenied(cut(message)),
        Code::NotFound if message.contains("lease not found") => RegistryError::LeaseGone,
        Code::ResourceExhausted if message.contains("database space exceeded") => RegistryError::NoSpace(cut(message)),
        Code::InvalidArgument if message.contains("too many operations in txn request") => RegistryError::TooManyOps,
        Code::InvalidArgument => RegistryError::Rejected(cut(message)),
        // Our own decoder (tonic), and a server or a proxy that is written in Go.
        Code::OutOfRange if message.contains("message length too large") => RegistryError::TooLarge(cut(message)),
        Code::ResourceExhausted if message.contains("larger than max") => RegistryError::TooLarge(cut(message)),
        Code::Unavailable | Code::DeadlineExceeded => of_transport(text),
        _ => RegistryError::Server(cut(message)),
    }
}

/// Words of rustls about certificates and handshakes. Not "tls", which is also in its error for a peer that just went
/// away ("peer closed connection without sending TLS close_notify").
const TLS_FAILED: [&str; 4] = ["certificate", "handshake", "unknownissuer", "notvalidforname"];

/// The text alone tells of the TLS of a proxy with its member, and of a connection that ends within our handshake.
fn of_transport(text: &str) -> RegistryError {
    let lower = text.to_lowercase();
    if TLS_FAILED.iter().any(|word| lower.contains(word)) {
        RegistryError::TlsFailed(cut(text))
    } else {
        RegistryError::Unreachable(cut(text))
    }
}

pub fn is_lease_exists(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if code_of(status.code(), status.message()) == Code::FailedPrecondition && status.message().contains("lease already exists"))
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
        let of = |message: &str| of_status(Code::InvalidArgument, message, message);
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
        assert!(too_large(Code::OutOfRange, decoded));
        assert!(too_large(Code::ResourceExhausted, "grpc: received message larger than max (17000000 vs. 16777216)"));
        assert!(!too_large(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"));
        assert!(!too_large(Code::ResourceExhausted, "etcdserver: too many requests"));
    }

    #[test]
    fn errors_that_a_proxy_passes_on_keep_their_meaning() {
        let of = |message: &str| of_status(Code::Unknown, message, message);
        assert_eq!(of("etcdserver: requested lease not found"), RegistryError::LeaseGone);
        assert_eq!(of("etcdserver: too many operations in txn request"), RegistryError::TooManyOps);
        assert!(matches!(of("etcdserver: mvcc: database space exceeded"), RegistryError::NoSpace(_)));
        assert!(matches!(of("etcdserver: permission denied"), RegistryError::PermissionDenied(_)));
        assert!(matches!(of("etcdserver: no leader"), RegistryError::Unreachable(_)));
        assert!(matches!(of("etcdserver: corrupt cluster"), RegistryError::Server(_)));
    }
}
