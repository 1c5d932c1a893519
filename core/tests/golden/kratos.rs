//! kratos v2.9.2 and v3.0.0, both with contrib/registry/etcd/v2 at b9fab9a5.

use std::collections::BTreeMap;

use serde::Deserialize;
use twinspan_core::codec::{Format, kratos};
use twinspan_core::model::{Content, Reason};

use super::{Expected, captured, odd};

#[derive(Deserialize)]
struct Shown {
    id: String,
    name: String,
    version: String,
    metadata: Option<BTreeMap<String, String>>,
    endpoints: Vec<String>,
}

#[test]
fn every_captured_record_decodes_to_what_its_text_shows() {
    use Reason::{AddressMissing, LoopbackAddress, OtherName};
    let table = [
        ("server-grpc-ipv4-defaults", None, "g.echo", Err(LoopbackAddress)),
        ("server-two-endpoints-metadata-version", None, "g.echo", Err(LoopbackAddress)),
        ("server-ipv6-loopback", None, "g.echo", Err(LoopbackAddress)),
        ("server-wildcard", None, "g.echo", Ok("192.0.2.2:18801")),
        ("explicit-endpoints-ipv6-tls", None, "g.echo", Ok("[2001:db8::1]:9000")),
        ("no-endpoints", None, "g.echo", Err(AddressMissing)),
        ("namespace-custom", Some("/ns/sub"), "g.echo", Ok("10.0.0.1:9000")),
        ("namespace-empty", Some(""), "g.echo", Ok("10.0.0.1:9000")),
        ("ttl-30", None, "g.echo", Ok("10.0.0.1:9000")),
        // The readers filter by the name in the value; no RegisteredService can have this name.
        ("name-with-slash", None, "g", Err(OtherName)),
        ("two-instances", None, "g.echo", Ok("10.0.0.1:9000")),
        ("two-instances", None, "g.echo", Ok("10.0.0.2:9000")),
        ("kratos3-server", None, "echo", Ok("10.77.64.3:9000")),
    ];
    captured(Format::Kratos, include_str!("kratos.json"), 13, &table, |golden, record| {
        let Content::Registered { registration, listeners, .. } = &record.content else { panic!("{}", golden.case) };
        let shown: Shown = serde_json::from_str(&golden.value_text).unwrap();
        assert_eq!(registration.endpoints, shown.endpoints, "{}", golden.case);
        assert_eq!(registration.tags, shown.metadata.into_iter().flatten().collect(), "{}", golden.case);
        for (field, text) in [(kratos::ID, shown.id), (kratos::NAME, shown.name), (kratos::VERSION, shown.version)] {
            assert_eq!(kratos::text(registration, field), text, "{}", golden.case);
        }
        assert_eq!(listeners.len(), shown.endpoints.len(), "{}", golden.case);
    });
}

#[test]
fn every_odd_record_has_our_verdict_beside_the_readers() {
    use Reason::{AddressMissing, OtherName, Undecodable};
    const FAILS: &str = "FAIL (whole read)";
    const GOOD: Expected = Ok("10.0.0.1:9000");
    odd(
        Format::Kratos,
        "kratos",
        &[
            ("bad-json", FAILS, Err(Undecodable)),
            ("empty-value", FAILS, Err(Undecodable)),
            ("empty-object", "skip", Err(AddressMissing)),
            ("null", "PANIC", Err(Undecodable)),
            ("json-array", FAILS, Err(Undecodable)),
            ("json-string", FAILS, Err(Undecodable)),
            ("json-number", FAILS, Err(Undecodable)),
            ("trailing-garbage", FAILS, Err(Undecodable)),
            ("utf8-bom", FAILS, Err(Undecodable)),
            ("unknown-top-level", "accept", GOOD),
            ("unknown-metadata", "accept", GOOD),
            ("metadata-non-string", FAILS, Err(Undecodable)),
            ("missing-name", "skip", Err(OtherName)),
            ("other-name", "skip", Err(OtherName)),
            ("suffix-not-id", "accept", GOOD),
            ("duplicate-id-two-keys", "accept", Ok("10.9.9.9:9999")),
            ("bad-json-under-other-service-with-same-prefix", FAILS, Err(Undecodable)),
            ("null-under-other-service-with-same-prefix", "PANIC", Err(Undecodable)),
            ("good-under-other-service-with-same-prefix", "skip", Err(AddressMissing)),
            ("foobar-beside-foo", "skip", Ok("10.9.9.9:9999")),
            ("child-service-a/b", "skip", Err(OtherName)),
            ("only-entry-is-bad-json", FAILS, Err(Undecodable)),
        ],
    );
}
