//! Texts that others wrote: messages of etcd and of the API server, keys of strangers.
//!
//! Owns their bound, and the rule that no lease ID is shown: go-zero's keys end with the ID of the server's lease.
//! Refuses to shorten words of our own.

/// The longest text, in characters.
const MAX_CHARS: usize = 1_000;
/// An etcd lease ID in decimal is that of a member, in the highest bytes, and a counter: seldom less than so many
/// digits (`pkg/idutil` of etcd). No port, address, revision or time in a path has as many.
const LEASE_DIGITS: usize = 12;

/// The text as the page shows it.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits >= LEASE_DIGITS {
            out.push('…');
            rest = &after[digits..];
        } else {
            rest = after;
        }
    }
    out.push_str(rest);
    match out.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &out[..end]),
        None => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_id_in_a_key_is_left_out_and_nothing_else() {
        assert_eq!(shown("user.rpc/7587862094710447623 names it"), "user.rpc/… names it");
        for text in ["kitex/registry-etcd/user/10.0.0.1:8888", "/", "", "a/20261129", "号/7587", "7587862094710447623"]
        {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_long_text_ends() {
        let long = "号".repeat(MAX_CHARS + 1);
        assert_eq!(shown(&long).chars().count(), MAX_CHARS + 1);
        assert_eq!(shown(&long[3..]), long[3..]);
    }
}
