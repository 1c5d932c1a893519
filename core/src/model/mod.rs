//! The nouns, one in each file.
//!
//! Owns the types that codecs, planners and the operator share. Refuses to decide: the planners in [`crate::plan`] do.

mod address;
mod cidr;
mod instance;
mod names;
mod node;
mod outcome;
mod owner;
mod pod;
mod ports;
mod precedence;
mod readiness_gate;
mod reason;
mod record;
mod selector;
mod service;
mod slice;

pub use address::{Family, InstanceAddr, named_address};
pub use cidr::{Cidr, CidrSet};
pub use instance::{Instance, Tags};
pub use names::{InvalidName, ObjectKey, RegistryName, ServiceKey, matches_wildcard};
pub use node::{EXPORT_ADDRESS_ANNOTATION, ExportAddress, NodeAddressType, NodeChoice, NodeView, Nodes};
pub use outcome::{InstanceOutcome, Outcome, Subject};
pub use owner::{HEALED_TAG, OWNER_TAG, Owner, TAG_PREFIX};
pub use pod::{HostPort, Labels, PodView, WEIGHT_ANNOTATION};
pub use ports::{MAX_PORTS, PortSet};
pub use precedence::Precedence;
pub use readiness_gate::{
    GATES_NOT_READY, READINESS_GATE, REGISTERED_TIMEOUT_ANNOTATION, ReadinessGate, registered_timeout,
};
pub use reason::Reason;
pub use record::{
    BEGINNING, Content, Kind, LeaseId, Listener, MAX_VALUE, Mark, RawRecord, Record, RecordKey, Records, Registration,
    Revision, Written,
};
#[cfg(test)]
pub use record::{LOOKS, LOOKS_AT_WRITERS};
pub use selector::{Operator, Requirement, Selector};
pub use service::{
    EXPORT_ANNOTATION, NewService, PORT_ANNOTATION, REGISTRY_NAME_ANNOTATION, ServicePortView, ServiceView,
    TrafficDistribution,
};
pub use slice::{
    AddressType, Conditions, EndpointAddress, HEADLESS_LABEL, Hints, IMPORTED_FROM_ANNOTATION, LOST_UNTIL_ANNOTATION,
    MANAGED_BY, MANAGED_BY_LABEL, MERGED_ANNOTATION, MIRRORED_ANNOTATION, SERVICE_NAME_LABEL, Slice, SliceEndpoint,
    SlicePort, TCP, TRIGGER_TIME_ANNOTATION, TargetPod,
};
