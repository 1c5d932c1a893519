//! The rules of the house: which room may import which, where a request that writes is sent, and what the core may
//! name.
//!
//! Owns the tables. Refuses to know how sources are read ([`super::source`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Function, Module, Modules, Name};

/// A room, and the rooms that it may import; each arrow runs down. An arrow that no code uses is removed.
const ROOMS: &[(&str, &[&str])] = &[
    ("twinspan_core::model", &[]),
    ("twinspan_core::codec", &["model"]),
    ("twinspan_core::plan", &["model", "codec"]),
    ("twinspan::causes", &[]),
    ("twinspan::env", &[]),
    ("twinspan::tasks", &["env"]),
    ("twinspan::telemetry", &["env"]),
    ("twinspan::leadership", &["causes", "env"]),
    ("twinspan::api", &["codec", "model", "plan"]),
    ("twinspan::page", &["env", "leadership", "model", "telemetry"]),
    ("twinspan::probe", &["env", "leadership", "model", "plan"]),
    ("twinspan::registry", &["api", "causes", "codec", "env", "leadership", "model", "plan", "tasks"]),
    ("twinspan::cluster", &["api", "causes", "env", "leadership", "model", "plan", "tasks", "telemetry"]),
    (
        "twinspan::controllers",
        &[
            "api",
            "cluster",
            "codec",
            "env",
            "leadership",
            "model",
            "page",
            "plan",
            "probe",
            "registry",
            "tasks",
            "telemetry",
        ],
    ),
    (
        "twinspan::tools",
        &[
            "api",
            "causes",
            "cluster",
            "codec",
            "controllers",
            "env",
            "leadership",
            "model",
            "page",
            "plan",
            "probe",
            "registry",
            "tasks",
        ],
    ),
    ("twinspan::drain", &["api", "cluster", "controllers", "env", "model", "registry", "telemetry"]),
    (
        "twinspan::operator",
        &[
            "causes",
            "cluster",
            "controllers",
            "drain",
            "env",
            "leadership",
            "model",
            "page",
            "probe",
            "registry",
            "tasks",
            "telemetry",
        ],
    ),
    ("twinspan::cli", &["api", "causes", "env", "model", "operator", "page", "telemetry", "tools"]),
];

/// Crates of the core. `std` is checked apart.
const CORE_CRATES: &[&str] = &["ipnet", "jiff", "litemap", "serde", "serde_json", "sha2", "std", "thiserror"];
/// Parts of `std` that do I/O, read a clock, or share state.
const IMPURE: &[&str] = &["env", "fs", "io", "process", "sync::mpsc", "sync::Mutex", "sync::RwLock", "thread", "time"];
/// Ends of the names of things that are alive.
const ALIVE: &[&str] =
    &["Client", "Connection", "Handle", "Instant", "Mutex", "Notify", "Receiver", "Sender", "SystemTime"];
/// The only room that speaks to etcd itself.
const ETCD: (&str, &str) = ("etcd_client", "twinspan::registry::etcd");

/// A request that writes: the method, the least number of its arguments, and the modules that send it.
const WRITES: &[(&str, usize, &[&str])] = &[
    // The Kubernetes API. `approve` is a person's command; `rbac` creates SelfSubjectAccessReviews, which only ask; the
    // election writes the Lease, by which the claim comes about.
    ("create", 2, &[CLUSTER, EVENTS, ELECTION, "twinspan::tools::doctor::rbac"]),
    ("replace", 3, &[CLUSTER, ELECTION]),
    ("replace_status", 3, &[]),
    ("patch", 3, &[CLUSTER, EVENTS, "twinspan::tools::approve"]),
    ("patch_status", 3, &[STATUSES]),
    ("patch_subresource", 4, &[CLUSTER]),
    ("patch_metadata", 3, &[]),
    ("delete", 2, &[CLUSTER]),
    ("delete_collection", 2, &[]),
    ("publish", 2, &[EVENTS, "twinspan::cluster::events", "twinspan::controllers"]),
    // etcd. A takeover raises the epoch; a keepalive changes no key, so every replica sends it.
    ("commit", 1, &[REGISTRY, "twinspan::registry::takeover", OBSERVED]),
    ("grant", 2, &["twinspan::registry::leases", ETCD.1, OBSERVED]),
    ("keep_alive", 1, &["twinspan::registry::leases", "twinspan::registry::keepalive", ETCD.1, OBSERVED]),
    ("txn", 1, &[ETCD.1]),
];
const CLUSTER: &str = "twinspan::cluster::writer";
const ELECTION: &str = "twinspan::leadership::election";
const EVENTS: &str = "twinspan::cluster::event_api";
const STATUSES: &str = "twinspan::cluster::status_writer";
/// A connection that passes on what it is asked, and measures it.
const OBSERVED: &str = "twinspan::registry::observed";
const REGISTRY: &str = "twinspan::registry::writer";
/// The questions whether this process may write; `ask` is that of the doors themselves. That it leads is not enough.
const QUESTIONS: &[&str] = &["may_write", "ask"];

/// Every breach, in words.
pub fn breaches(modules: &Modules) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(arrows(modules));
    found.extend(circles(modules));
    found.extend(modules.iter().filter(|(name, _)| name.starts_with("twinspan_core")).flat_map(|(_, m)| impure(m)));
    found.extend(modules.iter().flat_map(|(name, module)| writes(name, module)));
    found.extend([CLUSTER, EVENTS, STATUSES, REGISTRY].iter().flat_map(|door| unasked(&modules[*door])));
    found
}

fn room(name: &str) -> Option<&str> {
    let room = name.splitn(3, "::").take(2).collect::<Vec<_>>().join("::");
    ROOMS.iter().map(|(known, _)| *known).find(|known| *known == room)
}

fn short(room: &str) -> &str {
    room.rsplit("::").next().unwrap_or(room)
}

fn arrows(modules: &Modules) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (name, module) in modules {
        let Some(from) = room(name) else {
            if !module.file.ends_with("lib.rs") {
                found.push(format!("{}: a room that has no rules", module.file));
            }
            continue;
        };
        let allowed = ROOMS.iter().find(|(known, _)| *known == from).map(|(_, allowed)| *allowed).unwrap();
        for import in &module.imports {
            let Some(to) = room(import).filter(|to| *to != from) else { continue };
            used.insert((from, short(to)));
            if !allowed.contains(&short(to)) {
                found.push(format!("{}: {from} may not import {import}", module.file));
            }
        }
        let named =
            module.words.contains(ETCD.0) || module.crates.iter().any(|path| path.split("::").next() == Some(ETCD.0));
        if named && !name.starts_with(ETCD.1) {
            found.push(format!("{}: only {} may name {}", module.file, ETCD.1, ETCD.0));
        }
    }
    for (index, (from, allowed)) in ROOMS.iter().enumerate() {
        let earlier = |to: &str| ROOMS[..index].iter().any(|(room, _)| short(room) == to);
        found
            .extend(allowed.iter().filter(|to| !earlier(to)).map(|to| format!("the rules let {from} import up, {to}")));
        let unused = allowed.iter().filter(|to| !used.contains(&(*from, **to)));
        found.extend(unused.map(|to| format!("the rules let {from} import {to}, and it does not")));
    }
    found
}

/// Files that lead back to themselves, one path for each group (Tarjan would name the group; a reader wants the path).
fn circles(modules: &Modules) -> Vec<String> {
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for name in modules.keys() {
        walk(modules, name, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

fn walk<'a>(
    modules: &'a Modules,
    name: &'a Name,
    path: &mut Vec<&'a Name>,
    done: &mut BTreeSet<&'a Name>,
    found: &mut Vec<String>,
) {
    if let Some(start) = path.iter().position(|at| *at == name) {
        let circle: Vec<&str> = path[start..].iter().map(|name| name.as_str()).chain([name.as_str()]).collect();
        found.push(format!("a circle: {}", circle.join(" → ")));
        return;
    }
    if done.contains(name) {
        return;
    }
    path.push(name);
    for import in &modules[name].imports {
        walk(modules, import, path, done, found);
    }
    path.pop();
    done.insert(name);
}

fn impure(module: &Module) -> Vec<String> {
    let file = &module.file;
    let mut found = Vec::new();
    for path in &module.crates {
        let (krate, rest) = path.split_once("::").unwrap_or((path, ""));
        let alive = krate == "std" && IMPURE.iter().any(|part| rest == *part || rest.starts_with(&format!("{part}::")));
        if !CORE_CRATES.contains(&krate) || alive {
            found.push(format!("{file}: the core may not import {path}"));
        }
    }
    let alive = module.words.iter().filter(|word| ALIVE.iter().any(|end| word.ends_with(end)));
    found.extend(alive.map(|word| format!("{file}: the core may not name {word}")));
    found
}

fn writes(name: &str, module: &Module) -> Vec<String> {
    let calls: BTreeMap<&str, usize> = module.calls.iter().map(|(method, n)| (method.as_str(), *n)).collect();
    let sent = WRITES.iter().filter(|(method, least, allowed)| {
        calls.get(method).is_some_and(|n| n >= least)
            && !allowed.iter().any(|door| name == *door || name.starts_with(&format!("{door}::")))
    });
    sent.map(|(method, ..)| format!("{}: .{method}(…) writes outside the two doors", module.file)).collect()
}

/// Functions of a door that send a request that writes although neither they nor all of their callers ask.
fn unasked(door: &Module) -> Vec<String> {
    let sends = |function: &&Function| function.calls.iter().any(|(method, n)| is_write(method, *n));
    let silent = door.functions.iter().filter(sends).filter(|function| !asks(door, function, 0));
    silent.map(|function| format!("{}: {} writes without asking {}", door.file, function.name, QUESTIONS[0])).collect()
}

/// Whether a function asks by itself, or is private and asked for by each of its callers.
fn asks(door: &Module, function: &Function, depth: usize) -> bool {
    if QUESTIONS.iter().any(|question| function.words.contains(*question)) {
        return true;
    }
    let calls = |other: &&Function| other.words.contains(&function.name) && other.name != function.name;
    let callers: Vec<&Function> = door.functions.iter().filter(calls).collect();
    !function.public && !callers.is_empty() && depth < 8 && callers.iter().all(|caller| asks(door, caller, depth + 1))
}

fn is_write(method: &str, arguments: usize) -> bool {
    WRITES.iter().any(|(write, least, _)| *write == method && arguments >= *least)
}
