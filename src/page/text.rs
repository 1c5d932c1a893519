//! Texts that others wrote: messages of etcd and of the API server, keys of strangers.
//!
//! Owns their bound, and two rules. No lease ID is shown: go-zero's keys end with the ID of the server's lease. No
//! message is shown that names a Secret or a certificate: a reader of the page learns where to look instead, by a
//! sentence that has a name, so that the page's script can say it in the reader's language. Refuses to shorten words of
//! our own.

/// The longest text, in characters.
const MAX_CHARS: usize = 1_000;
/// An etcd lease ID in decimal is that of a member, in the highest bytes, and a counter: seldom less than so many
/// digits (`pkg/idutil` of etcd). No port, address, revision or time in a path has as many.
const LEASE_DIGITS: usize = 12;

/// A name, or a key of a format whose keys have no lease IDs, as the page shows it.
pub fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text as the page shows it, if a lease ID may end a path in it.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits >= LEASE_DIGITS && ends_path(&after[digits..]) {
            out.push('…');
            rest = &after[digits..];
        } else {
            rest = after;
        }
    }
    out.push_str(rest);
    bounded(&out)
}

/// Whether a path ends before this: a lease ID is the whole of its last part.
fn ends_path(rest: &str) -> bool {
    let mut following = rest.chars();
    match following.next() {
        // Full stops and colons of sentences.
        Some('.' | ':') => following.next().is_none_or(|next| !next.is_alphanumeric()),
        Some(next) => !next.is_alphanumeric() && !"/-_~%@+".contains(next),
        None => true,
    }
}

/// The name of the sentence that stands for the messages of a reason.
pub fn code(reason: &str) -> Option<&'static str> {
    match reason {
        "SecretNotFound" | "SecretInvalid" => Some("SecretUnusable"),
        "TLSFailed" => Some("TLSFailed"),
        "RegistryUnavailable" => Some("SeeRegistry"),
        _ => None,
    }
}

/// The message of a condition as the page shows it. Services copy the message of their ServiceRegistry.
pub fn of_condition(reason: &str, message: &str) -> String {
    match code(reason) {
        Some("SecretUnusable") => "a Secret of spec.etcd cannot be used; twinspan status says which".to_owned(),
        Some("TLSFailed") => "TLS with the registry failed; twinspan status says why".to_owned(),
        Some(_) => "its ServiceRegistry cannot be followed; see there".to_owned(),
        None => shown(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_of_a_condition_names_a_secret_or_a_certificate() {
        let message = "ServiceRegistry main: there is no Secret etcd-user, and CN=twinspan is not known";
        for reason in ["SecretNotFound", "SecretInvalid", "TLSFailed", "RegistryUnavailable"] {
            let text = of_condition(reason, message);
            assert!(!text.is_empty() && !text.contains("etcd-user") && !text.contains("CN="), "{reason}: {text}");
        }
        assert_eq!(of_condition("Unreachable", "at a/7587862094710447623"), "at a/…");
    }

    #[test]
    fn a_lease_id_in_a_key_is_left_out_and_nothing_else() {
        assert_eq!(shown("user.rpc/7587862094710447623 names it"), "user.rpc/… names it");
        assert_eq!(shown("see user.rpc/7587862094710447623."), "see user.rpc/….");
        assert_eq!(shown("(a/7587862094710447623): \"b/7587862094710447624\""), "(a/…): \"b/…\"");
        for text in ["kitex/registry-etcd/user/10.0.0.1:8888", "/", "", "a/20261129", "号/7587", "7587862094710447623"]
        {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_name_that_begins_with_many_digits_is_no_lease_id() {
        for text in [
            "kitex/registry-etcd/202611291234/10.0.0.1:80",
            "orders/202611291234-report",
            "orders/202611291234.report",
            "orders/202611291234_v2 is refused",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(bounded("orders/7587862094710447623"), "orders/7587862094710447623");
    }

    #[test]
    fn a_long_text_ends() {
        let long = "号".repeat(MAX_CHARS + 1);
        assert_eq!(shown(&long).chars().count(), MAX_CHARS + 1);
        assert_eq!(shown(&long[3..]), long[3..]);
    }
}
