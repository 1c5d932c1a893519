//! Condition types and reasons: the words that users and their alerts look for.
//!
//! Owns the vocabulary: a condition can have no other type and no other reason, and `docs/api.md` is printed from here.
//! Sets conditions as `meta.SetStatusCondition` of k8s.io/apimachinery does: `lastTransitionTime` moves only with the
//! status. Refuses to decide which condition holds: that follows from a plan, in `controllers`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use twinspan_core::Timestamp;

/// Everything that the spec asks for is done.
pub const READY: &str = "Ready";
/// The RegisteredService can be acted upon.
pub const ACCEPTED: &str = "Accepted";
/// The registry has what the cluster has.
pub const EXPORTED: &str = "Exported";
/// The cluster has what the registry has.
pub const IMPORTED: &str = "Imported";
/// Deletions are held back.
pub const DELETIONS_HELD: &str = "DeletionsHeld";
/// Nothing but a change by a person helps. A word of kstatus, for which Failed follows; absent where it is not True.
pub const STALLED: &str = "Stalled";
/// No weights give the share that the spec asks for. Absent where it is not True.
pub const SHARE_LIMITED: &str = "ShareLimited";
/// The registry answers.
pub const CONNECTED: &str = "Connected";
/// Every Service and name that discovery selects has its RegisteredService.
pub const DISCOVERED: &str = "Discovered";
/// A complete list of the registry has arrived and is being followed.
pub const SYNCED: &str = "Synced";

/// The condition types of a RegisteredService, in the order of its status, and what True says.
pub const OF_REGISTERED_SERVICE: [(&str, &str); 7] = [
    (
        READY,
        "Everything that was asked for is done, also where `spec.suspend` or policy Observe asks for nothing: the reason says so. \
         A reason of False or Unknown is that of the first of the next three that is not True.",
    ),
    (ACCEPTED, "The spec can be acted upon."),
    (EXPORTED, "The registry has the instances that the cluster has."),
    (IMPORTED, "The cluster has the instances that the registry has."),
    (
        DELETIONS_HELD,
        "Deletions that nothing explains are held back; the message says until when and what releases them.",
    ),
    (
        SHARE_LIMITED,
        "Weights from 1 to 10000 miss `spec.export.share` by more than 3 points; the message has the share that they give, and \
         the weight of foreign records that would do. Absent otherwise.",
    ),
    (
        STALLED,
        "The spec can never work with the objects that there are, until a person changes one of them. The reason is that of \
         Accepted. Absent otherwise.",
    ),
];

/// The condition types of a ServiceRegistry, in the order of its status, and what True says.
pub const OF_SERVICE_REGISTRY: [(&str, &str); 6] = [
    (READY, "The registry is followed, and may be written."),
    (CONNECTED, "The registry answers."),
    (SYNCED, "A complete list of the registry has arrived, and is being followed."),
    (DELETIONS_HELD, "Deletions of many services are held back; the message says until when and what releases them."),
    (
        DISCOVERED,
        "Every Service and name that `spec.discovery` selects has its RegisteredService, but for those that `status.discovery` counts \
         as refused. Absent without discovery.",
    ),
    (
        STALLED,
        "The registry cannot be used until a person changes this object or another that is there. The reason is that of Ready. \
         Absent otherwise.",
    ),
];

/// A list of reasons: the word, the conditions that may have it besides Ready, and its meaning with advice.
macro_rules! reasons {
    ($($name:ident [$($kind:ident),+]: $meaning:literal;)*) => {
        /// The reason of a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// In the order in which people meet them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in CamelCase, as the API conventions require.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The condition types that may have it; Ready may have any.
            pub fn carried_by(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($kind),+],)* }
            }

            /// Whether only a person can end it, by a change of an object that is there. Where an object that may still
            /// come, the registry or time helps, nothing is stalled, or tools would give up on a mere order of events.
            pub fn stalls(self) -> bool {
                self.carried_by().contains(&STALLED)
            }

            /// The meaning, and the advice if something must be done.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

reasons! {
    Accepted [ACCEPTED]: "The spec can be acted upon.";
    Synced [EXPORTED, IMPORTED, SYNCED]: "All is done that the condition speaks of.";
    Connected [CONNECTED]: "The registry answers and is followed.";
    Suspended [READY]: "`spec.suspend` is set: what is written is kept alive, and nothing else is written. `Exported` and `Imported` say whether there is something to write.";
    Observing [READY, DISCOVERED]: "With policy Observe the same: the status says what there would be to write, and nothing is written.";
    NotRequested [EXPORTED, IMPORTED]: "`spec.direction` leaves this direction out.";
    NothingHeld [DELETIONS_HELD]: "No limit is reached; a few deletions may wait seconds for more evidence.";
    Held [DELETIONS_HELD, DISCOVERED]: "More instances, or discovered RegisteredServices, would be removed than the guard allows without an explanation. See whether they were lost; approve if they ended.";
    ForeignWeightsTooLow [SHARE_LIMITED]: "The foreign records have so little weight that weights of 1 are more than the share. Let their servers register with the weight that the message names.";
    ForeignWeightsTooHigh [SHARE_LIMITED]: "The foreign records have so much weight that weights of 10000 are less than the share. Let their servers register with the weight that the message names.";
    Pending [EXPORTED, IMPORTED]: "A complete list of the registry, or a Service that is being created, is waited for; no action is needed.";
    Connecting [CONNECTED, SYNCED]: "The first connection is being made.";
    Listing [CONNECTED, SYNCED, EXPORTED]: "A complete list is being read, at the start or after the watch ended; no action is needed.";
    ClusterChanged [SYNCED]: "Another etcd cluster answers than before. Records of Twinspan that it lacks are restored, and deletions that others' missing records ask for are held.";
    RolledBack [SYNCED]: "The etcd cluster is at an older revision than before, as after a restore. What it lacks is treated as with ClusterChanged.";
    NotAccepted [EXPORTED, IMPORTED]: "The spec cannot be acted upon: see the condition Accepted.";
    NotWritten [EXPORTED, IMPORTED]: "There is something to write, but `spec.suspend` or policy Observe forbids it. `Ready` is True nevertheless.";
    RegistryUnavailable [EXPORTED, IMPORTED, DISCOVERED]: "The ServiceRegistry is not Ready, or does not tell of this name; the message says why. What is there is kept.";
    ClusterUnavailable [EXPORTED, IMPORTED, DISCOVERED]: "The API server told nothing for 90 s of a kind of object that the direction rests on; the message names it. Nothing is removed because of it; see `/readyz?verbose` and the log.";
    WriteFailed [EXPORTED, IMPORTED, DISCOVERED]: "A write to the API server failed; the message says which. The write is tried again.";
    RefusedByCluster [EXPORTED, IMPORTED]: "The API server refuses a slice or the Service, by a quota, a policy, or because the operator lacks the permission; the message has its words. It costs that port alone, and is tried again.";
    AllDiscovered [DISCOVERED]: "Every Service and name that is selected has its RegisteredService, but for those that `status.discovery` counts as refused.";
    Discovering [DISCOVERED]: "RegisteredServices are being made, changed or deleted, a few a second, or one waits for one that a person wrote, which the message names with the reason; otherwise no action is needed.";
    DiscoveryLimited [DISCOVERED]: "The registry has more names than `spec.discovery.import.maxServices`: nothing more is made, and what exists stays. See who writes them; raise the bound, or narrow `include`.";
    DiscoveryForbidden [DISCOVERED]: "The operator may not create, change or delete RegisteredServices: set the chart's value `discovery.enabled` to true.";
    RegistryTooLarge [DISCOVERED]: "The registry has so many records that only the names of RegisteredServices are followed, so that nobody knows the others. What exists stays.";
    NamespaceMissing [DISCOVERED]: "The namespace of `spec.discovery.import` is not there, or is being deleted: create it. Or a release in namespaced mode does not look at it: add it to the chart's value `namespaced.namespaces`.";
    RegistryNotFound [ACCEPTED]: "There is no such ServiceRegistry: create it, or correct `spec.registryRef`.";
    NotAllowed [ACCEPTED, STALLED]: "The ServiceRegistry does not allow the namespace that name: its administrator grants it in `spec.allowed`.";
    ServiceMissing [ACCEPTED]: "There is no such Service: create it, or set `spec.service.create`.";
    NameTaken [ACCEPTED, STALLED]: "Discovery made it for a name, and a Service of that name is there that Twinspan did not create: rename the Service, or remove the label `twinspan.dev/discovered-by` to import into it.";
    PortNotFound [ACCEPTED, STALLED]: "The Service has no TCP port of that name: correct `spec.service.ports`, or the Service.";
    PortAmbiguous [ACCEPTED, STALLED]: "The Service has several ports: name one in `spec.service.ports`.";
    NoNodePort [ACCEPTED]: "`spec.export.address` is Node, and the Service has no nodePort and none of its pods a hostPort: make it a Service of type NodePort or LoadBalancer, or give the container a hostPort.";
    ExternalName [ACCEPTED, STALLED]: "The Service is an ExternalName, which has no endpoints: use another.";
    InvalidName [ACCEPTED, STALLED]: "The registry cannot hold that name, or its clients would never find it: set `spec.registryName`.";
    NotSupported [ACCEPTED, CONNECTED, SYNCED, STALLED]: "The format of the registry has no place for something in the spec, or this version of Twinspan cannot read it; the message names it. Remove it, or run a version that knows it.";
    NamespaceTerminating [ACCEPTED]: "The namespace is being deleted; nothing more is written to it.";
    Unreachable [CONNECTED, SYNCED, EXPORTED]: "No endpoint answers, or none in time: check `spec.etcd.endpoints`, the health of etcd and the network between.";
    AuthFailed [CONNECTED, SYNCED, EXPORTED]: "The registry refuses the user: check the Secret of `spec.etcd.auth`.";
    PermissionDenied [CONNECTED, SYNCED, EXPORTED]: "The user may not do this: grant it read and write on the prefix, or on the names where there is none, and on `spec.fence.keyPrefix`.";
    TLSFailed [CONNECTED, SYNCED, EXPORTED]: "No TLS connection: check the Secrets of `spec.etcd.tls`, and its `serverName`.";
    SecretNotFound [CONNECTED, SYNCED]: "A Secret that the spec names is not in the operator's namespace: create it there.";
    SecretInvalid [CONNECTED, SYNCED, EXPORTED, STALLED]: "A Secret that the spec names lacks a key, or holds something that cannot be read: correct it.";
    ClusterIDUnknown [CONNECTED, SYNCED, STALLED]: "The namespace kube-system, whose UID names the cluster, is not there: set `spec.clusterID`.";
    ClusterIDInUse [CONNECTED, SYNCED, EXPORTED, STALLED]: "Another cluster writes with this cluster's ID. Give one of them another, or approve the epoch if that cluster is gone.";
    Conflict [CONNECTED, SYNCED, ACCEPTED, STALLED]: "An older ServiceRegistry has the same etcd, prefix and cluster ID: delete one, or change its prefix. Without a prefix only the same name in both is a conflict. Or too many older RegisteredServices have the name.";
    NoSpace [CONNECTED, SYNCED, EXPORTED]: "The database of etcd is full: compact and defragment it, then disarm the alarm.";
    ServerError [CONNECTED, SYNCED, EXPORTED]: "etcd answered with an error; the message has it. The request is tried again.";
    LeaseGone [CONNECTED, SYNCED, EXPORTED]: "An etcd lease ended under its records. Another is granted, and the records are restored.";
    NoEpoch [CONNECTED, SYNCED, EXPORTED]: "Writing begins once the epoch is raised; no action is needed.";
    Fenced [CONNECTED, SYNCED, EXPORTED]: "Another leader has taken over; this one writes nothing more.";
    NotLeader [CONNECTED, SYNCED, EXPORTED]: "This replica is not the leader; the leader writes.";
}

/// The `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The desired state of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredCondition {
    pub kind: &'static str,
    pub status: ConditionStatus,
    pub reason: Reason,
    pub message: String,
    /// The transition time, if a better one than that of the last status is known.
    pub since: Option<Timestamp>,
}

impl DesiredCondition {
    pub fn new(kind: &'static str, status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Self {
        debug_assert!(kind == READY || reason.carried_by().contains(&kind), "{kind} is not said to carry {reason:?}");
        Self { kind, status, reason, message: message.into(), since: None }
    }
}

/// The conditions in the given order; a time is kept if the status is the same.
pub fn set(
    known: &[Condition],
    wanted: &[DesiredCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .iter()
        .map(|wanted| {
            let before = find(known, wanted.kind).filter(|c| c.status == wanted.status.as_str());
            Condition {
                type_: wanted.kind.to_owned(),
                status: wanted.status.as_str().to_owned(),
                reason: wanted.reason.as_str().to_owned(),
                message: wanted.message.clone(),
                observed_generation: generation,
                last_transition_time: match (wanted.since, before) {
                    (None, Some(before)) => before.last_transition_time.clone(),
                    (since, _) => Time(whole_seconds(since.unwrap_or(now))),
                },
            }
        })
        .collect()
}

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The condition of a type, if its status is True.
pub fn find_true<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    find(conditions, kind).filter(|condition| condition.status == ConditionStatus::True.as_str())
}

/// The API keeps whole seconds: with fractions a status would never equal the stored one.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds of `metav1.Condition`, and what the API conventions say of reasons.
    #[test]
    fn a_reason_is_one_word_and_says_what_it_means() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.bytes().all(|b| b.is_ascii_alphanumeric()), "{word}");
            assert!(reason.meaning().ends_with('.'), "{word}");
        }
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let first =
            set(&[], &[DesiredCondition::new("Ready", ConditionStatus::False, Reason::Pending, "")], Some(1), at(10));
        let same = set(
            &first,
            &[DesiredCondition::new("Ready", ConditionStatus::False, Reason::Unreachable, "x")],
            Some(2),
            at(20),
        );
        assert_eq!(same[0].last_transition_time, Time(at(10)));
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("Unreachable", Some(2)));
        let turned =
            set(&same, &[DesiredCondition::new("Ready", ConditionStatus::True, Reason::Synced, "")], Some(2), at(30));
        assert_eq!(turned[0].last_transition_time, Time(at(30)));
    }
}
