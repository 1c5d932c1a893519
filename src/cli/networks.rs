//! The networks of the cluster that its API server does not tell.
//!
//! Owns their flags, and the reading of a list of networks. Refuses to know what a network means for an address.

use twinspan_core::model::Cidr;

use crate::operator::NamedNetworks;

/// Networks of the cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NetworkArgs {
    /// Networks of the cluster's ClusterIPs, separated by commas, in addition to those of ServiceCIDRs: records with
    /// addresses in them are not imported. Kubernetes before 1.33 has no ServiceCIDRs
    #[arg(long, env = "TWINSPAN_SERVICE_CIDRS", value_name = "CIDRS", value_parser = Cidrs::parse, overrides_with = "service_cidrs")]
    service_cidrs: Option<Cidrs>,
}

impl NetworkArgs {
    pub fn named(&self) -> NamedNetworks {
        NamedNetworks { services: self.service_cidrs.clone().unwrap_or_default().into_networks() }
    }
}

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cidrs(Vec<Cidr>);

impl Cidrs {
    /// Networks, separated by commas; none where the text is empty.
    ///
    /// # Errors
    /// A message that names the text that is no network.
    pub fn parse(text: &str) -> Result<Self, String> {
        let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
        let parsed = |network| {
            Cidr::parse(network)
                .ok_or_else(|| format!("{network:?} is no network; write it as 10.96.0.0/16 or fd96::/108"))
        };
        networks.map(parsed).collect::<Result<_, _>>().map(Self)
    }

    pub fn into_networks(self) -> Vec<Cidr> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_separated_by_commas() {
        let cidrs = |texts: &[&str]| Cidrs(texts.iter().map(|text| Cidr::parse(text).unwrap()).collect());
        assert_eq!(Cidrs::parse("10.96.0.0/16, fd96::/108,"), Ok(cidrs(&["10.96.0.0/16", "fd96::/108"])));
        assert_eq!(Cidrs::parse(""), Ok(cidrs(&[])));
        for odd in ["10.96.0.0", "10.96.0.0/33", "services", "10.96.0.0/16;fd96::/108", "::ffff:10.96.0.0/112"] {
            assert!(Cidrs::parse(odd).unwrap_err().starts_with(&format!("{odd:?} is no network")), "{odd}");
        }
    }
}
