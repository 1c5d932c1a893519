//! The doctor: checks of a cluster and its registries, from the place where the command runs.
//!
//! - [`cluster`]: the API server, CRDs, permissions and the leader; [`registries`]: every endpoint of every registry.
//! - [`discovery`]: the permissions of one whose discovery writes; [`gates`]: those to open readiness gates.
//! - [`service_ranges`]: the ranges of Services, where the API server does not tell them.
//! - [`audit`]: etcd, slices and own records, compared. [`reach`]: every exported address, tried.
//! - [`etcd`]: an etcd by itself, before anything is installed.
//! - [`rbac`]: the permissions of the operator; [`versions`]: versions of servers with known faults.
//! - [`request`]: the choice of checks; [`finding`]: the result of each.
//!
//! Owns the list of checks, and the advice for each finding. Refuses to change anything: permissions are asked for, and
//! tried only in ways that cannot succeed.

mod audit;
mod cluster;
mod discovery;
mod etcd;
mod finding;
mod gates;
pub mod rbac;
mod reach;
mod registries;
mod request;
mod service_ranges;
mod versions;

pub use audit::audit;
pub use etcd::{EtcdSettings, SettingsError, examine_etcd};
pub use finding::{Finding, Level, Report};
pub use rbac::{Grant, Place, granted, granted_to_discover, granted_to_open_gates};
pub use reach::reach;
pub use request::Request;

/// Runs all checks. A check that cannot run is a finding too; where the API server does not answer, there is one
/// finding and no other check.
pub async fn examine(request: &Request<'_>) -> Report {
    let (findings, asked) = cluster::examine(request).await;
    let mut report = Report { findings, asked };
    if asked {
        report.findings.extend(service_ranges::examine(request).await);
        report.findings.extend(gates::examine(request).await);
        report.findings.extend(registries::examine(request).await);
    }
    report
}
