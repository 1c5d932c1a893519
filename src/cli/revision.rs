//! The version with the commit and the date of the build's source: `0.1.0 (0b64a4b, 2026-11-26)`.
//!
//! Owns their form. Refuses to find them: whoever builds says them by `TWINSPAN_REVISION` and `SOURCE_DATE_EPOCH`, as
//! `dev/image` does, so that the same source makes the same bytes with git and without. What is not said is not shown.

use std::sync::LazyLock;

use jiff::Timestamp;

/// The version of this program.
pub fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        text(env!("CARGO_PKG_VERSION"), option_env!("TWINSPAN_REVISION"), option_env!("SOURCE_DATE_EPOCH"))
    });
    &TEXT
}

fn text(version: &str, revision: Option<&str>, seconds: Option<&str>) -> String {
    let revision = revision.filter(|revision| !revision.is_empty()).map(short);
    let date = seconds.and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok());
    let date = date.map(|date| date.strftime("%Y-%m-%d").to_string());
    let known: Vec<String> = revision.into_iter().chain(date).collect();
    if known.is_empty() { version.to_owned() } else { format!("{version} ({})", known.join(", ")) }
}

/// A commit by its first seven digits, as git prints it, and the mark of a changed tree.
fn short(revision: &str) -> String {
    let (commit, dirty) = revision.strip_suffix("-dirty").map_or((revision, ""), |commit| (commit, "-dirty"));
    if commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        format!("{}{dirty}", &commit[..7])
    } else {
        revision.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_shown() {
        let commit = "0b64a4b5d3d1f5b8d0a6f2b1c9e8d7a6b5c4d3e2";
        assert_eq!(text("0.1.0", Some(commit), Some("1795651200")), "0.1.0 (0b64a4b, 2026-11-26)");
        assert_eq!(text("0.1.0", Some(&format!("{commit}-dirty")), None), "0.1.0 (0b64a4b-dirty)");
        assert_eq!(text("0.1.0", Some("v0.1.0"), Some("x")), "0.1.0 (v0.1.0)");
        assert_eq!(text("0.1.0", Some(""), None), "0.1.0");
    }
}
