//! The marks that say which Twinspan wrote a record: tags of a registration, or the last segment of a key.
//!
//! Owns how both are written and read. Refuses to know which format uses which, and whether a marked record may lie at
//! its key.

use std::fmt::Display;

use crate::model::{HEALED_TAG, Mark, OWNER_TAG, Owner, RecordKey, Registration, ServiceKey};

/// The first part of a last segment that names its owner.
const KEY_MARK: &str = "twinspan";
/// Separates the parts of such a segment. Names of Kubernetes objects and cluster IDs never contain it.
const KEY_SEPARATOR: char = '~';

/// The registration with the tag of its owner.
pub fn marked(mut registration: Registration, owner: &Owner) -> Registration {
    registration.tags.insert(OWNER_TAG.to_owned(), owner.to_string());
    registration
}

/// The last segment of a key that names its owner: `twinspan~<clusterID>~<namespace>~<RegisteredService>~<address>`.
pub fn key_owner(owner: &Owner, address: &impl Display) -> String {
    let Owner { cluster_id, service: ServiceKey { namespace, name } } = owner;
    let sep = KEY_SEPARATOR;
    format!("{KEY_MARK}{sep}{cluster_id}{sep}{namespace}{sep}{name}{sep}{address}")
}

/// The mark in a key.
pub fn key_mark(key: &RecordKey) -> Mark {
    let segment = key.last_segment();
    let mut parts = segment.split(KEY_SEPARATOR);
    if parts.next() != Some(KEY_MARK) {
        return Mark::None;
    }
    match [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(cluster_id), Some(namespace), Some(name), Some(_address), None]
            if ![cluster_id, namespace, name].iter().any(|part| part.is_empty()) =>
        {
            Mark::Owned(Owner { cluster_id: cluster_id.to_owned(), service: ServiceKey::new(namespace, name) }.into())
        }
        _ => Mark::Unreadable,
    }
}

/// The mark in tags.
pub fn tag_mark(registration: &Registration) -> Mark {
    match registration.tags.get(OWNER_TAG) {
        None if registration.tags.contains_key(HEALED_TAG) => Mark::Unreadable,
        None => Mark::None,
        Some(text) => match text.parse::<Owner>() {
            Ok(owner) if registration.tags.contains_key(HEALED_TAG) => Mark::Healed(owner.into()),
            Ok(owner) => Mark::Owned(owner.into()),
            Err(_) => Mark::Unreadable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_keys_name_an_owner_or_nobody() {
        let mark = |last: &str| key_mark(&format!("echo/{last}").into());
        let owner = Owner { cluster_id: "c-1".into(), service: ServiceKey::new("shop", "echo.v1") };
        assert_eq!(mark("twinspan~c-1~shop~echo.v1~10.0.0.1:80"), Mark::Owned(owner.clone().into()));
        assert_eq!(mark(&key_owner(&owner, &"10.0.0.1:80")), Mark::Owned(owner.into()));
        for text in ["7587870460981677828", "10.0.0.1:80", "pod-1", "twinspanx~a~b~c~d", ""] {
            assert_eq!(mark(text), Mark::None, "{text}");
        }
        for text in
            ["twinspan", "twinspan~c", "twinspan~c~n~s", "twinspan~c~n~s~a~x", "twinspan~~n~s~a", "twinspan~c~~s~a"]
        {
            assert_eq!(mark(text), Mark::Unreadable, "{text}");
        }
    }
}
