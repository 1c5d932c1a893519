//! Names of slices.
//!
//! Owns the derivation of a name from the RegisteredService and the group. A create that is repeated after a lost
//! answer therefore finds its own slice instead of making a second one. The UID is part of the name: a
//! RegisteredService that was deleted and created again never collides with slices that the garbage collector has not
//! deleted yet. Refuses to know endpoints.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::model::{Family, ServiceKey};

/// Family, name of the port, number.
type Group<'a> = (Family, &'a str, u16);

/// Room for `-`, the digest and nothing else within the 253 characters of an object name.
const MAX_STEM: usize = 200;
/// Bytes of the digest.
const DIGEST: usize = 5;

/// The first name of the group that nothing has yet.
pub fn unused(owner: &ServiceKey, owner_uid: &str, group: Group<'_>, taken: &BTreeSet<String>) -> String {
    let mut index: u32 = 0;
    loop {
        let name = nth(owner, owner_uid, group, index);
        if !taken.contains(&name) {
            return name;
        }
        index += 1;
    }
}

/// The name of the owner in the name of a slice; cut if it was too long.
pub fn owner_in_name(slice: &str) -> Option<&str> {
    let (stem, digest) = slice.rsplit_once('-')?;
    (digest.len() == DIGEST * 2 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(stem)
}

fn nth(owner: &ServiceKey, owner_uid: &str, (family, port, number): Group<'_>, index: u32) -> String {
    let digest = Sha256::digest(format!("{owner_uid} {} {port} {number} {index}", family.as_str()));
    let digest: String = digest.iter().take(DIGEST).map(|byte| format!("{byte:02x}")).collect();
    let stem: String = owner.name.chars().take(MAX_STEM).collect();
    // A stem that was cut may end in a dot, and a dot must not precede a dash.
    format!("{}-{digest}", stem.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;

    #[test]
    fn names_are_repeatable_distinct_and_legal() {
        let owner = ServiceKey::new("shop", format!("{}.x", "a".repeat(199)));
        let group = (Family::V4, "rpc", 8888);
        let first = unused(&owner, "uid", group, &BTreeSet::new());
        assert_eq!(first, unused(&owner, "uid", group, &BTreeSet::new()));
        let short = unused(&ServiceKey::new("shop", "a-b"), "uid", group, &BTreeSet::new());
        assert_eq!(owner_in_name(&short), Some("a-b"));
        assert_eq!(owner_in_name("echo-abc"), None);
        assert!(first.len() <= 253 && !first.contains(".-"), "{first}");

        let others = [
            unused(&owner, "uid", group, &BTreeSet::from([first.clone()])),
            unused(&owner, "other", group, &BTreeSet::new()),
            unused(&owner, "uid", (Family::V6, "rpc", 8888), &BTreeSet::new()),
            unused(&owner, "uid", (Family::V4, "rpc", 8889), &BTreeSet::new()),
            unused(&owner, "uid", (Family::V4, "web", 8888), &BTreeSet::new()),
        ];
        let all: BTreeSet<&String> = others.iter().chain([&first]).collect();
        assert_eq!(all.len(), 6);
    }
}
