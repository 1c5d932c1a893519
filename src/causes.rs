//! The text of an error with its causes: the outermost error of a client often says only that something failed.
//!
//! Owns the form, and what is left out of kube's errors. Refuses to know who reads it.

use std::error::Error;

use kube::client::AuthError;

/// Appends the texts of all causes, each once.
pub fn chain(mut text: String, error: &dyn Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The text of an error of kube. A refusal is the API server's own words: kube prints the whole status behind them as a
/// Rust value. A failed request is its causes, without the names of the layers that passed them on.
pub fn of_kube(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("{} ({})", status.reason, status.code),
        kube::Error::Service(cause) => match cause.downcast_ref::<kube::Error>() {
            Some(error) => of_kube(error),
            None => chain(String::new(), error).trim_start_matches(": ").trim_start_matches(LAYER).to_owned(),
        },
        // kube's text of the command has its arguments and variables, which may hold a secret.
        kube::Error::Auth(AuthError::AuthExecRun { cmd: _, out }) => {
            format!("the credential plugin failed ({}){}", out.status, said(&out.stderr))
        }
        kube::Error::Auth(AuthError::AuthExecStart(cause)) => format!("cannot run the credential plugin: {cause}"),
        _ => chain(error.to_string(), error),
    }
}

/// The layer of hyper that every failed connection goes through.
const LAYER: &str = "client error (Connect): ";

fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| format!(": {line}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Layer(#[source] std::io::Error);

    #[test]
    fn a_refusal_is_the_words_of_the_api_server() {
        let status = Status::failure("leases is forbidden", "Forbidden").with_code(403);
        assert_eq!(of_kube(&kube::Error::Api(status.boxed())), "leases is forbidden");
        let silent = Status::failure("", "Forbidden").with_code(403);
        assert_eq!(of_kube(&kube::Error::Api(silent.boxed())), "Forbidden (403)");
    }

    #[test]
    fn a_failed_request_is_its_causes() {
        let refused = Layer(std::io::Error::from_raw_os_error(111));
        assert_eq!(of_kube(&kube::Error::Service(Box::new(refused))), "Connection refused (os error 111)");
    }
}
