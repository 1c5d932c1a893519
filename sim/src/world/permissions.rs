//! The user of the replicas in the registry: its password and its permissions.
//!
//! Owns what the user may do at a time, and the Secret that names it. Refuses to know why that changes. The user may do
//! everything but in a place of somebody else, and where it is forbidden for a while.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde_json::{Value, json};
use sim_etcd::{Auth, Permission};

use super::{OPERATOR, World, service_name};

/// The name of the Secret.
pub const SECRET: &str = "etcd-user";
const USER: &str = "twinspan";
const ROLE: &str = "bridge";
/// The passwords that the user has in turns, and each in base64, as a Secret has it.
const PASSWORDS: [(&str, &str); 2] = [("one", "b25l"), ("two", "dHdv")];
/// The place of somebody else, whose lease the user may not see either.
const ELSEWHERE: &str = "elsewhere/";
/// The end of all keys, as etcd's requests name it.
const END: &[u8] = &[0];

/// Departures from what the user usually may do.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    /// How often the password was changed.
    rotations: usize,
    /// How many prohibitions forbid to write the records of each service, and how many to read them too.
    forbidden: BTreeMap<usize, (usize, usize)>,
}

impl World {
    fn permissions<T>(&self, look: impl FnOnce(&mut Permissions) -> T) -> T {
        look(&mut self.permissions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The registry asks for a password, if it does in this world, and permits what it does at this time.
    pub fn permit(&self) {
        if !self.size.password {
            return;
        }
        let auth = self.permissions(|permissions| {
            let (password, _) = PASSWORDS[permissions.rotations % PASSWORDS.len()];
            let mut auth = Auth::default().with_user(USER, password, &[ROLE]);
            let of = |reads: bool| {
                let services = permissions.forbidden.iter().filter(|(_, (writes, reading))| {
                    let count = if reads { *reading } else { writes + reading };
                    count > 0
                });
                let names = services.map(|(service, _)| self.key_of(&service_name(*service), ""));
                names.chain([ELSEWHERE.to_owned()]).collect::<Vec<_>>()
            };
            let mut all = all_but(of(true), true);
            all.extend(all_but(of(false), false));
            auth.roles.insert(ROLE.to_owned(), all);
            auth
        });
        self.etcd.set_auth(Some(auth));
    }

    /// Somebody else has a record with a lease in the registry, which the user may not see. Without a prefix each
    /// session would look every possible lease up, which takes seconds of a run.
    pub fn settle_elsewhere(&self) {
        if self.size.password && !self.size.bare && self.seed.is_multiple_of(2) {
            let lease = self.etcd.grant(0, 1_000_000).unwrap_or_default();
            let _ = self.etcd.put("somebody", format!("{ELSEWHERE}1"), "x", lease);
        }
    }

    /// From now on the user may not write the records of a service, or, with `reads`, not read them either; or no
    /// longer.
    pub fn forbid(&self, service: usize, reads: bool, begins: bool) {
        self.permissions(|permissions| {
            let (writing, reading) = permissions.forbidden.entry(service).or_default();
            let count = if reads { reading } else { writing };
            *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        });
        self.permit();
    }

    /// The user has another password from now on.
    pub fn rotate_password(&self) {
        self.permissions(|permissions| permissions.rotations += 1);
        self.permit();
    }

    /// The Secret with the password of this time.
    pub fn secret(&self) -> Value {
        let password = self.permissions(|permissions| PASSWORDS[permissions.rotations % PASSWORDS.len()].1);
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
            "metadata": {"name": SECRET, "namespace": OPERATOR},
            "data": {"username": "dHdpbnNwYW4=", "password": password},
        })
    }
}

/// Permissions to read, or to write, all keys that do not begin with one of these.
fn all_but(mut prefixes: Vec<String>, reads: bool) -> Vec<Permission> {
    prefixes.sort();
    let mut permissions = Vec::new();
    let mut permit = |key: Vec<u8>, range_end: Vec<u8>| {
        permissions.push(Permission { key, range_end, read: reads, write: !reads });
    };
    let mut from = END.to_vec();
    for prefix in prefixes {
        let mut after = prefix.clone().into_bytes();
        if let Some(last) = after.last_mut() {
            *last += 1;
        }
        permit(std::mem::replace(&mut from, after), prefix.into_bytes());
    }
    permit(from, END.to_vec());
    permissions
}
