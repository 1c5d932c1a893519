//! gf v2.10.0 with contrib/registry/etcd v2.9.0.

use twinspan_core::codec::Format;
use twinspan_core::model::{Content, Reason};

use super::captured;

#[test]
fn every_captured_record_decodes_to_what_its_key_shows() {
    let table = [
        ("server-ipv4", None, "g.echo", Ok("10.77.0.1:18851")),
        // One record for each server, however many addresses it has.
        ("server-all-interfaces", None, "g.echo", Ok("10.77.0.1:18852")),
        // The framework cuts an IPv6 address at its first colon, so nobody can call it.
        ("server-ipv6", None, "g.echo", Err(Reason::AddressMalformed)),
        ("server-two-listeners", None, "g.echo", Ok("10.77.0.1:18854")),
        ("server-mixed-case-name", None, "G_Echo.v2", Ok("10.77.0.2:18856")),
    ];
    captured(Format::GoFrame, include_str!("goframe.json"), 5, &table, |golden, record| {
        let Content::Registered { registration, .. } = &record.content else { panic!("{}", golden.case) };
        let endpoints = golden.key.rsplit('/').next().unwrap();
        assert_eq!(registration.endpoints.join(","), endpoints, "{}", golden.case);
        // Metadata of other types than strings is no tag.
        let shown: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&golden.value_text).unwrap();
        let shown = shown.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let tags = registration.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(tags.collect::<Vec<_>>(), shown.collect::<Vec<_>>(), "{}", golden.case);
    });
}
