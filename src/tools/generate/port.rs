//! The choice of the ports of a RegisteredService.
//!
//! Owns the names by which a port is recognised. Refuses to know addresses.

use serde_json::{Value, json};
use twinspan_core::codec::Format;
use twinspan_core::model::{ServicePortView, ServiceView};

/// The ports of `spec.service.ports`, and a remark for whoever reads the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    pub list: Vec<Value>,
    pub remark: Option<String>,
}

/// Names that say which port a framework's server listens on, most telling first.
const RPC: [&str; 5] = ["grpc", "rpc", "thrift", "kitex", "http"];
const WEB: [&str; 5] = ["http", "web", "hertz", "grpc", "rpc"];

/// `None` if the Service has no TCP port.
pub fn choose(format: Format, service: &ServiceView) -> Option<Ports> {
    let tcp: Vec<&ServicePortView> = service.ports.iter().filter(|port| port.tcp).collect();
    let first = *tcp.first()?;
    if format.has_schemes() {
        return Some(with_schemes(format, first, &tcp));
    }
    if tcp.len() == 1 {
        return Some(Ports::default());
    }
    let order = if format == Format::Hertz { WEB } else { RPC };
    let by_name = order.iter().find_map(|word| tcp.iter().find(|port| speaks(port, word)));
    let (port, how) = by_name.map_or((first, "the first one"), |port| (*port, "by its name"));
    let names: Vec<&str> = tcp.iter().map(|port| port.name.as_str()).collect();
    let remark = format!("of the ports {} it takes {}, {how}; check it", names.join(", "), port.name);
    Some(Ports { list: vec![json!({"name": port.name})], remark: Some(remark) })
}

/// One port for each scheme, because clients take the first address with theirs.
fn with_schemes(format: Format, first: &ServicePortView, tcp: &[&ServicePortView]) -> Ports {
    let default = format.default_scheme();
    let mut list = Vec::new();
    for scheme in ["grpc", "http"] {
        if let Some(port) = tcp.iter().find(|port| !port.name.is_empty() && speaks(port, scheme)) {
            list.push(json!({"name": port.name, "scheme": scheme}));
        }
    }
    match (list.as_slice(), tcp.len()) {
        ([only], 1) if only["scheme"] == default => Ports::default(),
        ([], 1) => Ports { list, remark: Some(format!("its port counts as {default}; check it")) },
        ([], _) => {
            let remark = format!("no port is called grpc or http, so it takes the first one, {}; check it", first.name);
            Ports { list: vec![json!({"name": first.name})], remark: Some(remark) }
        }
        (all, count) if all.len() < count => {
            let remark = "the schemes follow from the names of the ports, and the other ports are left out; check it";
            Ports { list, remark: Some(remark.to_owned()) }
        }
        _ => Ports { list, remark: None },
    }
}

/// Whether name or appProtocol of a port has the word as a part of its own.
fn speaks(port: &ServicePortView, word: &str) -> bool {
    let texts = [Some(port.name.as_str()), port.app_protocol.as_deref()];
    texts.into_iter().flatten().any(|text| text.split(['-', '/', '.']).any(|part| part == word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::convert;

    fn service(ports: &Value) -> ServiceView {
        convert::service(&serde_json::from_value(json!({"spec": {"ports": ports}})).unwrap())
    }

    #[test]
    fn a_port_is_named_only_where_the_service_has_several() {
        let chosen = |format, ports: Value| choose(format, &service(&ports)).map(|ports| json!(ports.list).to_string());
        let named = |name: &str| json!({"name": name, "port": 80});
        let udp = json!({"name": "dns", "port": 53, "protocol": "UDP"});
        for (format, ports, wanted) in [
            (Format::Kitex, json!([]), None),
            (Format::Kitex, json!([udp]), None),
            (Format::Kitex, json!([{"port": 80}]), Some("[]")),
            (Format::Kitex, json!([named("x"), udp]), Some("[]")),
            (Format::Kitex, json!([named("metrics"), named("rpc")]), Some(r#"[{"name":"rpc"}]"#)),
            (Format::Kitex, json!([named("http"), named("tcp-thrift")]), Some(r#"[{"name":"tcp-thrift"}]"#)),
            (Format::Hertz, json!([named("rpc"), named("http")]), Some(r#"[{"name":"http"}]"#)),
            (Format::Kitex, json!([named("a"), named("b")]), Some(r#"[{"name":"a"}]"#)),
            (Format::Kratos, json!([named("grpc")]), Some("[]")),
            (Format::Kratos, json!([named("http")]), Some(r#"[{"name":"http","scheme":"http"}]"#)),
            (
                Format::Kratos,
                json!([named("http"), named("grpc"), named("metrics")]),
                Some(r#"[{"name":"grpc","scheme":"grpc"},{"name":"http","scheme":"http"}]"#),
            ),
            (Format::Kratos, json!([named("a"), named("b")]), Some(r#"[{"name":"a"}]"#)),
        ] {
            assert_eq!(chosen(format, ports.clone()).as_deref(), wanted, "{format:?} {ports}");
        }
    }
}
