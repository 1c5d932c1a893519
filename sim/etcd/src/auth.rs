//! Authentication and permissions.
//!
//! Owns users, roles, simple tokens and the question who may do what (`server/auth/store.go`, `range_perm_cache.go` and
//! `simple_token.go` of etcd 3.7). Refuses to know records and leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::Error;
use crate::key_range::KeyRange;
use crate::leases::round_up;

/// The role that may do everything.
pub const ROOT: &str = "root";

/// Users and roles of a cluster with authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Users by name.
    pub users: BTreeMap<String, User>,
    /// Permissions by the name of the role. The role [`ROOT`] needs no entry.
    pub roles: BTreeMap<String, Vec<Permission>>,
    /// How long a token lives after its last use: 300 s by default (`simpleTokenTTLDefault` of simple_token.go).
    pub token_ttl: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub password: String,
    pub roles: BTreeSet<String>,
}

/// A permission for a range of keys, with `range_end` as in etcd's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub read: bool,
    pub write: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self { users: BTreeMap::new(), roles: BTreeMap::new(), token_ttl: Duration::from_secs(300) }
    }
}

impl Auth {
    /// One more user.
    pub fn with_user(mut self, name: &str, password: &str, roles: &[&str]) -> Self {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        self.users.insert(name.to_owned(), User { password: password.to_owned(), roles });
        self
    }

    /// One more permission of a role, to read and write all keys with a prefix.
    pub fn with_prefix(mut self, role: &str, prefix: &str) -> Self {
        let (key, end) = KeyRange::prefix(prefix.as_bytes()).interval();
        let range_end = end.unwrap_or_else(|| vec![0]);
        let permission = Permission { key, range_end, read: true, write: true };
        self.roles.entry(role.to_owned()).or_default().push(permission);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Tokens that one member knows, each with its user and the time at which it expires: a member that restarts forgets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    users: BTreeMap<String, (String, Duration)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct AuthStore {
    auth: Option<Auth>,
    issued: u64,
}

impl Tokens {
    pub(crate) fn forget_all(&mut self) {
        self.users.clear();
    }
}

impl AuthStore {
    /// Returns the users whose tokens are invalid from now on: those gone, and those with another password.
    pub(crate) fn set(&mut self, auth: Option<Auth>) -> BTreeSet<String> {
        let before = std::mem::replace(&mut self.auth, auth);
        let password = |name: &String| Some(&self.auth.as_ref()?.users.get(name)?.password);
        let changed = |(name, user): (String, User)| (password(&name) != Some(&user.password)).then_some(name);
        before.into_iter().flat_map(|auth| auth.users).filter_map(changed).collect()
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.auth.is_some()
    }

    /// Checks the password, and issues a token.
    pub(crate) fn authenticate(&mut self, name: &str, password: &str) -> Result<String, Error> {
        let auth = self.auth.as_ref().ok_or(Error::AuthNotEnabled)?;
        if auth.users.get(name).is_none_or(|user| user.password != password) {
            return Err(Error::AuthFailed);
        }
        self.issued += 1;
        Ok(format!("simple{:010}.{}", self.issued, self.issued))
    }

    /// Tells a member of a token that was issued.
    pub(crate) fn assign(&self, tokens: &mut Tokens, token: &str, user: &str, now: Duration) {
        tokens.users.insert(token.to_owned(), (user.to_owned(), self.expiry(now)));
    }

    pub(crate) fn invalidate(tokens: &mut Tokens, users: &BTreeSet<String>) {
        tokens.users.retain(|_, (user, _)| !users.contains(user));
    }

    /// `AuthInfoFromCtx`: the user of a token, whose life begins anew; none without a token, or without authentication.
    pub(crate) fn user(
        &self,
        tokens: &mut Tokens,
        token: Option<&str>,
        now: Duration,
    ) -> Result<Option<String>, Error> {
        let (true, Some(token)) = (self.is_enabled(), token) else { return Ok(None) };
        tokens.users.retain(|_, (_, expiry)| *expiry > now);
        let expiry = self.expiry(now);
        let (user, life) = tokens.users.get_mut(token).ok_or(Error::InvalidAuthToken)?;
        *life = expiry;
        Ok(Some(user.clone()))
    }

    /// Tokens are looked through once a second (`simpleTokenTTLResolution`).
    fn expiry(&self, now: Duration) -> Duration {
        let ttl = self.auth.as_ref().map_or(Duration::ZERO, |auth| auth.token_ttl);
        round_up(now + ttl, Duration::from_secs(1))
    }

    /// `requireAuthInfo`.
    pub(crate) fn require_user(&self, user: Option<&str>) -> Result<(), Error> {
        if self.is_enabled() && user.is_none() { Err(Error::UserEmpty) } else { Ok(()) }
    }

    /// `IsAdminPermitted`.
    pub(crate) fn check_admin(&self, user: Option<&str>) -> Result<(), Error> {
        let Some(auth) = &self.auth else { return Ok(()) };
        let user = auth.users.get(user.ok_or(Error::UserEmpty)?).ok_or(Error::UserNotFound)?;
        if user.roles.contains(ROOT) { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    /// `isOpPermitted`: the union of the user's permissions covers the range.
    pub(crate) fn check(&self, user: Option<&str>, range: &KeyRange, access: Access) -> Result<(), Error> {
        let Some(auth) = &self.auth else { return Ok(()) };
        let user = auth.users.get(user.ok_or(Error::UserEmpty)?).ok_or(Error::PermissionDenied)?;
        if user.roles.contains(ROOT) {
            return Ok(());
        }
        let permitted = |permission: &&Permission| match access {
            Access::Read => permission.read,
            Access::Write => permission.write,
        };
        let permissions = user.roles.iter().filter_map(|role| auth.roles.get(role)).flatten().filter(permitted);
        let intervals = permissions.map(|p| KeyRange::new(&p.key, &p.range_end).interval()).collect();
        if covers(intervals, range.interval()) { Ok(()) } else { Err(Error::PermissionDenied) }
    }
}

type Interval = (Vec<u8>, Option<Vec<u8>>);

fn covers(mut intervals: Vec<Interval>, (mut from, to): Interval) -> bool {
    intervals.sort();
    for (start, end) in intervals {
        if start > from {
            return false;
        }
        match (end, &to) {
            (None, _) => return true,
            (Some(end), Some(to)) if end >= *to => return true,
            (Some(end), _) => from = from.max(end),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn auth() -> Auth {
        Auth::default().with_user("root", "r", &[ROOT]).with_user("one", "1", &["a"]).with_prefix("a", "a/")
    }

    fn store() -> AuthStore {
        let mut store = AuthStore::default();
        store.set(Some(auth()));
        store
    }

    #[test]
    fn permissions_cover_ranges() {
        let store = store();
        let check = |user, key: &str, end: &str| {
            store.check(user, &KeyRange::new(key.as_bytes(), end.as_bytes()), Access::Write)
        };
        assert_eq!(check(Some("one"), "a/1", ""), Ok(()));
        assert_eq!(check(Some("one"), "a/", "a0"), Ok(()));
        assert_eq!(check(Some("one"), "a/", "\0"), Err(Error::PermissionDenied));
        assert_eq!(check(Some("one"), "b", ""), Err(Error::PermissionDenied));
        assert_eq!(check(Some("root"), "b", "\0"), Ok(()));
        assert_eq!(check(None, "a/1", ""), Err(Error::UserEmpty));
        assert_eq!(check(Some("gone"), "a/1", ""), Err(Error::PermissionDenied));
        assert_eq!(store.check_admin(Some("one")), Err(Error::PermissionDenied));
    }

    #[test]
    fn neighbouring_permissions_are_one() {
        let interval = |from: &str, to: &str| (from.as_bytes().to_vec(), Some(to.as_bytes().to_vec()));
        assert!(covers(vec![interval("c", "e"), interval("a", "c")], interval("b", "d")));
        assert!(!covers(vec![interval("a", "b"), interval("c", "e")], interval("a", "d")));
        assert!(!covers(vec![], interval("a", "b")));
    }

    #[test]
    fn tokens_live_as_long_as_they_are_used() {
        let mut store = store();
        let mut tokens = Tokens::default();
        assert_eq!(store.authenticate("one", "2"), Err(Error::AuthFailed));
        let token = store.authenticate("one", "1").expect("the password is right");
        store.assign(&mut tokens, &token, "one", S);
        let mut user = |now| store.user(&mut tokens, Some(&token), now);
        assert_eq!(user(300 * S), Ok(Some("one".to_owned())));
        assert_eq!(user(599 * S), Ok(Some("one".to_owned())));
        assert_eq!(user(899 * S), Err(Error::InvalidAuthToken));
    }

    #[test]
    fn another_password_invalidates_the_tokens() {
        let mut store = store();
        let mut tokens = Tokens::default();
        let token = store.authenticate("one", "1").expect("the password is right");
        store.assign(&mut tokens, &token, "one", S);
        let same = store.set(Some(auth().with_prefix("a", "b/")));
        assert!(same.is_empty(), "{same:?}");
        let changed = store.set(Some(auth().with_user("one", "2", &["a"])));
        assert_eq!(changed.iter().collect::<Vec<_>>(), ["one"]);
        AuthStore::invalidate(&mut tokens, &changed);
        assert_eq!(store.user(&mut tokens, Some(&token), S), Err(Error::InvalidAuthToken));
    }
}
