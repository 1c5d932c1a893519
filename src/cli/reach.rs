//! The reach of `twinspan run`: which namespaces it looks at, and which ServiceRegistries it serves.
//!
//! Owns these flags, and that namespaced mode begins with everything it needs or not at all: without the networks of
//! the cluster nobody could tell a pod of another namespace from a machine. Refuses to know how they are obeyed.

use std::collections::BTreeSet;

use super::networks::Cidrs;
use twinspan_core::model::Cidr;

use crate::operator::{Limits, Reach};

#[derive(Debug, clap::Args)]
pub struct ReachArgs {
    /// The ServiceRegistries to serve, separated by commas; without it all of them. Releases with others run beside
    /// this one
    #[arg(long, env = "TWINSPAN_REGISTRIES", value_name = "NAMES", value_delimiter = ',')]
    registries: Vec<String>,
    /// Namespaced mode: the namespaces to look at, separated by commas; without it the whole cluster. It needs
    /// --registries, --cluster-id, --pod-cidrs, --service-cidrs and --node-cidrs as well
    #[arg(long, env = "TWINSPAN_WATCH_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// In namespaced mode: the cluster ID in the records of this release, which no other release may have: 1 to 63 of
    /// a-z, 0-9 and -
    #[arg(long, env = "TWINSPAN_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,
    /// In namespaced mode: the networks of pods, separated by commas. An address in them is imported only as that of a
    /// pod of the same namespace, and so is every address of a family that none of them has
    #[arg(long, env = "TWINSPAN_POD_CIDRS", value_name = "CIDRS", value_parser = Cidrs::parse, overrides_with = "pod_cidrs")]
    pod_cidrs: Option<Cidrs>,
    /// In namespaced mode: the networks of Nodes and of the API server, separated by commas. No address in them is
    /// imported
    #[arg(long, env = "TWINSPAN_NODE_CIDRS", value_name = "CIDRS", value_parser = Cidrs::parse, overrides_with = "node_cidrs")]
    node_cidrs: Option<Cidrs>,
}

/// The reason why the flags cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    #[error(
        "--watch-namespaces needs {0} as well: in namespaced mode Nodes, ServiceCIDRs and other releases cannot be looked at"
    )]
    Missing(String),
    #[error("{0} is only for namespaced mode; give --watch-namespaces as well, or leave it out")]
    Superfluous(&'static str),
    #[error(
        "{flag} has no {family} network, and --pod-cidrs has one: name those of the cluster, or leave out the {family} networks of pods"
    )]
    Family { flag: &'static str, family: &'static str },
    #[error("--cluster-id: {0:?} is not 1 to 63 of a-z, 0-9 and -")]
    ClusterId(String),
    #[error("{flag}: {text:?} is not the name of an object")]
    Name { flag: &'static str, text: String },
}

impl ReachArgs {
    /// The reach of the release in a namespace. A dry run is no release: it writes nothing. `service_cidrs` are the
    /// networks of Services.
    ///
    /// # Errors
    /// [`ReachError`] if a flag is missing, or says nothing.
    pub fn reach(self, release: &str, dry_run: bool, service_cidrs: &[Cidr]) -> Result<Reach, ReachError> {
        let namespaces = names("--watch-namespaces", self.watch_namespaces)?;
        let registries = names("--registries", self.registries)?;
        let pod_cidrs = self.pod_cidrs.unwrap_or_default().into_networks();
        let node_cidrs = self.node_cidrs.unwrap_or_default().into_networks();
        let cluster_id = self.cluster_id.filter(|id| !id.is_empty()).unwrap_or_default();
        let given = [
            ("--cluster-id", !cluster_id.is_empty()),
            ("--pod-cidrs", !pod_cidrs.is_empty()),
            ("--node-cidrs", !node_cidrs.is_empty()),
        ];
        let release = (!dry_run).then(|| release.to_owned());
        if namespaces.is_empty() {
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(ReachError::Superfluous(flag)),
                None => Ok(Reach { release, registries, limits: None }),
            };
        }
        let needed = [("--registries", !registries.is_empty()), ("--service-cidrs", !service_cidrs.is_empty())];
        let missing = needed.into_iter().chain(given).filter(|(_, is_given)| !is_given);
        let missing: Vec<&str> = missing.map(|(flag, _)| flag).collect();
        if !missing.is_empty() {
            return Err(ReachError::Missing(missing.join(", ")));
        }
        covers(&pod_cidrs, "--node-cidrs", &node_cidrs)?;
        covers(&pod_cidrs, "--service-cidrs", service_cidrs)?;
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if cluster_id.len() > 63 || !cluster_id.chars().all(legal) {
            return Err(ReachError::ClusterId(cluster_id));
        }
        let limits = Limits { namespaces, cluster_id, pod_cidrs, node_cidrs };
        Ok(Reach { release, registries, limits: Some(limits) })
    }
}

/// Checks that a list has each family that pods have: in a family that pods do not have nothing but their own addresses
/// is admitted, and in another one an address of a Node or of a Service would be.
fn covers(pods: &[Cidr], flag: &'static str, networks: &[Cidr]) -> Result<(), ReachError> {
    let has = |all: &[Cidr], v4: bool| all.iter().any(|net| net.range().0.is_ipv4() == v4);
    let lacks = |(v4, _): &(bool, &str)| has(pods, *v4) && !has(networks, *v4);
    let lacking = [(true, "IPv4"), (false, "IPv6")].into_iter().find(lacks);
    lacking.map_or(Ok(()), |(_, family)| Err(ReachError::Family { flag, family }))
}

/// An empty variable names nothing.
fn given(texts: Vec<String>) -> impl Iterator<Item = String> {
    texts.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn names(flag: &'static str, texts: Vec<String>) -> Result<BTreeSet<String>, ReachError> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let name = |text: String| {
        if text.len() <= 253 && text.chars().all(legal) { Ok(text) } else { Err(ReachError::Name { flag, text }) }
    };
    given(texts).map(name).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use twinspan_core::model::Cidr;

    use super::*;
    use crate::cli::networks::NetworkArgs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reach: ReachArgs,
        #[command(flatten)]
        networks: NetworkArgs,
    }

    fn reach(flags: &str) -> Result<Reach, ReachError> {
        let line = Line::parse_from(["run"].into_iter().chain(flags.split_whitespace()));
        line.reach.reach("team-a", false, &line.networks.named().services)
    }

    const WHOLE: &str = "--watch-namespaces shop,pay --registries main --cluster-id team-a --pod-cidrs 10.244.0.0/16,fd44::/64 \
                         --service-cidrs 10.96.0.0/12,fd96::/108 --node-cidrs 192.168.0.0/24,fd77::/64";

    #[test]
    fn namespaced_mode_needs_all_or_nothing() {
        let limits = reach(WHOLE).unwrap().limits.unwrap();
        assert_eq!(limits.namespaces, ["pay", "shop"].map(String::from).into());
        assert_eq!(limits.pod_cidrs, ["10.244.0.0/16", "fd44::/64"].map(|net| Cidr::parse(net).unwrap()));
        let flags: Vec<&str> = WHOLE.split_whitespace().collect();
        for without in (0..flags.len()).step_by(2) {
            let rest = flags.iter().enumerate().filter(|(at, _)| *at != without && *at != without + 1);
            let rest: Vec<&str> = rest.map(|(_, flag)| *flag).collect();
            let error = reach(&rest.join(" ")).unwrap_err();
            match flags[without] {
                "--watch-namespaces" => assert_eq!(error, ReachError::Superfluous("--cluster-id")),
                flag => assert_eq!(error, ReachError::Missing(flag.to_owned())),
            }
        }
    }

    #[test]
    fn the_whole_cluster_is_the_default_and_registries_may_be_named_in_it() {
        assert_eq!(reach("").unwrap(), Reach { release: Some("team-a".into()), ..Reach::default() });
        let named = reach("--registries main,other").unwrap();
        assert!(named.limits.is_none() && named.serves("other") && !named.serves("third"));
        let dry = Line::parse_from(["run"]).reach.reach("team-a", true, &[]).unwrap();
        assert_eq!(dry, Reach::default(), "a dry run holds nothing");
    }

    #[test]
    fn texts_that_say_nothing_are_refused_by_their_flag() {
        for (flags, refused) in [
            (WHOLE.replace(",fd96::/108", ""), "--service-cidrs has no IPv6 network"),
            (WHOLE.replace("192.168.0.0/24,", ""), "--node-cidrs has no IPv4 network"),
            (WHOLE.replace("--cluster-id team-a", "--cluster-id Team_A"), "--cluster-id: \"Team_A\""),
            (WHOLE.replace("main", "Main"), "--registries: \"Main\""),
        ] {
            let error = reach(&flags).unwrap_err().to_string();
            assert!(error.starts_with(refused), "{error}");
        }
        let flags = WHOLE.replace("192.168.0.0/24", "192.168.0.0");
        let error =
            Line::try_parse_from(["run"].into_iter().chain(flags.split_whitespace())).err().unwrap().to_string();
        assert!(error.contains("--node-cidrs") && error.contains("\"192.168.0.0\" is no network"), "{error}");
    }
}
