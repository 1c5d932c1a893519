//! Words that users meet outside the fields: reasons, annotations, labels and tags.
//!
//! Owns the meaning of each annotation, label and tag. Refuses to spell one: the names are the constants in use.

use std::fmt::{self, Write};

use twinspan_core::model::{
    self, EXPORT_ADDRESS_ANNOTATION, EXPORT_ANNOTATION, HEADLESS_LABEL, HEALED_TAG, IMPORTED_FROM_ANNOTATION,
    LOST_UNTIL_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, MERGED_ANNOTATION, MIRRORED_ANNOTATION, OWNER_TAG,
    PORT_ANNOTATION, REGISTRY_NAME_ANNOTATION, SERVICE_NAME_LABEL, TRIGGER_TIME_ANNOTATION,
};

use crate::api::conditions::Reason;
use crate::api::discovered::DISCOVERED_BY;
use twinspan_core::model::WEIGHT_ANNOTATION;
use twinspan_core::plan::discovery::refusals::Why;

use crate::api::{APPROVE_DELETIONS, APPROVE_EPOCH, APPROVE_HOLDER, APPROVE_WITHDRAWAL};
use crate::leadership::{REGISTRIES_ANNOTATION, VERSION_ANNOTATION};
use crate::tools::explanation::meaning;

/// Name, place and meaning of a word.
type Word = (&'static str, &'static str, &'static str);

const YOU_WRITE: [Word; 11] = [
    (
        EXPORT_ANNOTATION,
        "annotation of a Service or a Namespace",
        "Where `spec.discovery.export` of a ServiceRegistry selects the namespace: `true` exports the Service, or all Services of the \
         namespace, `false` none. That of the Service wins.",
    ),
    (
        REGISTRY_NAME_ANNOTATION,
        "annotation of a Service",
        "There: its name in the registry, instead of `nameTemplate`.",
    ),
    (
        PORT_ANNOTATION,
        "annotation of a Service",
        "There: the port that is exported, by name or number, where it has several.",
    ),
    (WEIGHT_ANNOTATION, "annotation of a Service", "There: `spec.export.weight` of its RegisteredService, 1 to 10000."),
    (
        WEIGHT_ANNOTATION,
        "annotation of a Pod",
        "The weight of its record, 1 to 10000, instead of `spec.export.weight`; with `spec.export.share` its proportion to the others. Anything \
         else is passed over, and the message of the condition `Exported` says so.",
    ),
    (
        EXPORT_ADDRESS_ANNOTATION,
        "annotation of a Node",
        "The address that exports give to clients instead of one in the Node's status, with `spec.export.address: Node`; at most one of \
         each IP family, with a comma between. One that cannot be called exports nothing of the Node, and the message of the condition \
         `Exported` says so.",
    ),
    (
        APPROVE_DELETIONS,
        "annotation of a RegisteredService",
        "Releases one hold of deletions, once; its value is the hash in `status.hold`. `twinspan approve` sets it.",
    ),
    (APPROVE_DELETIONS, "annotation of a ServiceRegistry", "The same for what the registry as a whole holds."),
    (
        APPROVE_EPOCH,
        "annotation of a ServiceRegistry",
        "Takes over from a cluster that wrote with this cluster's ID and is gone; its value is the epoch that the reason `ClusterIDInUse` comes \
         with. `twinspan approve` sets it.",
    ),
    (
        APPROVE_HOLDER,
        "annotation of a ServiceRegistry",
        "The release that serves it from now on, by its namespace, where several releases run in one cluster. The one in `status.holder` \
         stops once its own name is no longer there.",
    ),
    (
        APPROVE_WITHDRAWAL,
        "annotation of a ServiceRegistry",
        "Namespaces, separated by commas, that its release in namespaced mode no longer looks at: what it exported for them is withdrawn.",
    ),
];

const TWINSPAN_WRITES: [Word; 13] = [
    (
        DISCOVERED_BY,
        "label of a RegisteredService",
        "The UID of the ServiceRegistry whose discovery made it. Edits of such an object are undone; without the label it is yours.",
    ),
    (
        VERSION_ANNOTATION,
        "annotation of the operator's Lease",
        "The version of the replica that leads, or led last; `twinspan version` reads it.",
    ),
    (
        REGISTRIES_ANNOTATION,
        "annotation of the operator's Lease",
        "The ServiceRegistries that the release serves, separated by commas; default: all. Another release that serves one of them \
         does not start beside it.",
    ),
    (SERVICE_NAME_LABEL, "label of an EndpointSlice", "The Service that the slice belongs to."),
    (MANAGED_BY_LABEL, "label of an EndpointSlice", "The manager of the slice; Twinspan leaves all others alone."),
    (HEADLESS_LABEL, "label of an EndpointSlice", "On slices of headless Services, as Kubernetes itself does."),
    (
        TRIGGER_TIME_ANNOTATION,
        "annotation of an EndpointSlice",
        "When the change that the slice shows began, RFC 3339.",
    ),
    (
        IMPORTED_FROM_ANNOTATION,
        "annotation of an EndpointSlice",
        "From where it was filled: `<ServiceRegistry>/<registry name>`.",
    ),
    (
        LOST_UNTIL_ANNOTATION,
        "annotation of an EndpointSlice",
        "Until when endpoints are kept that lost their registration: `<IP>=<RFC 3339>`, separated by commas.",
    ),
    (
        MIRRORED_ANNOTATION,
        "annotation of an EndpointSlice",
        "The addresses in it that are pods of the other Service and no imports, separated by commas (`spec.import.into: Together`).",
    ),
    (
        MERGED_ANNOTATION,
        "annotation of an EndpointSlice",
        "For a moment, on a slice that took over the endpoints of another one which is about to be deleted.",
    ),
    (
        OWNER_TAG,
        "tag of a Kitex, Hertz or Kratos record",
        "The exporter: `<clusterID>/<namespace>/<RegisteredService>`.",
    ),
    (HEALED_TAG, "tag of a Kitex, Hertz or Kratos record", "Marks a lost registration that Twinspan restored."),
];

pub fn write(page: &mut String) -> fmt::Result {
    let head = "A False or Unknown condition names one of these as its reason, and its message says which object, port or address is meant. \
                `Ready` may carry any of them.";
    writeln!(
        page,
        "\n## Reasons of conditions\n\n{head}\n\n| reason | of | what it means, and what to do |\n|---|---|---|"
    )?;
    for reason in Reason::ALL {
        writeln!(page, "| `{}` | {} | {} |", reason.as_str(), reason.carried_by().join(", "), reason.meaning())?;
    }
    let head = "`status.differences[].reason`, the metric `twinspan_skipped_instances` and `twinspan parity` use the same words.";
    writeln!(page, "\n## Reasons why an instance is skipped\n\n{head}\n\n| reason | what it means |\n|---|---|")?;
    for reason in model::Reason::ALL {
        writeln!(page, "| `{}` | {} |", reason.label(), meaning(*reason))?;
    }
    let head = "`status.discovery.refusals[].reason` of a ServiceRegistry is one of these.";
    writeln!(page, "\n## Reasons why discovery makes no object\n\n{head}\n\n| reason | what it means |\n|---|---|")?;
    for why in Why::ALL {
        writeln!(page, "| `{}` | {} |", why.as_str(), why.meaning())?;
    }
    writeln!(page, "\n## Annotations that you may write\n\n| name | where | what it says |\n|---|---|---|")?;
    words(page, &YOU_WRITE)?;
    let head = format!(
        "On records of the formats GoZero and GRPC the key itself says who exported it. The value of `{MANAGED_BY_LABEL}` is `{MANAGED_BY}`."
    );
    writeln!(
        page,
        "\n## Labels, annotations and tags that Twinspan writes\n\n{head}\n\n| name | where | what it says |\n|---|---|---|"
    )?;
    words(page, &TWINSPAN_WRITES)
}

fn words(page: &mut String, all: &[Word]) -> fmt::Result {
    all.iter().try_for_each(|(name, place, meaning)| writeln!(page, "| `{name}` | {place} | {meaning} |"))
}
