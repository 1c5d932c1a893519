//! client/v3/naming of etcd v3.5.21.

use serde::Deserialize;
use serde_json::Value;
use twinspan_core::codec::Format;
use twinspan_core::model::{Content, Reason};

use super::{Expected, captured, odd};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    addr: String,
    metadata: Value,
}

#[test]
fn every_captured_record_decodes_to_what_its_text_shows() {
    let table = [
        ("no-lease", None, "g.svc", Ok("10.0.0.1:9090")),
        ("lease-30", None, "g.svc", Ok("10.0.0.1:9090")),
        ("ipv6-metadata-object", None, "g.svc", Ok("[2001:db8::1]:9090")),
        ("metadata-string-key-other", None, "g.svc", Ok("10.0.0.1:9090")),
        ("two-instances", None, "g.svc", Ok("10.0.0.1:9090")),
        ("two-instances", None, "g.svc", Ok("10.0.0.2:9090")),
    ];
    captured(Format::Grpc, include_str!("grpc.json"), 6, &table, |golden, record| {
        let Content::Registered { registration, .. } = &record.content else { panic!("{}", golden.case) };
        let shown: Shown = serde_json::from_str(&golden.value_text).unwrap();
        assert_eq!(registration.endpoints, [shown.addr], "{}", golden.case);
        let kept = registration.rest.get("Metadata").cloned().unwrap_or(Value::Null);
        assert_eq!(kept, shown.metadata, "{}", golden.case);
    });
}

#[test]
fn every_odd_record_has_our_verdict_beside_the_readers() {
    use Reason::{AddressMissing, Undecodable};
    const GOOD: Expected = Ok("10.0.0.1:9000");
    odd(
        Format::Grpc,
        "grpc",
        &[
            ("bad-json", "skip", Err(Undecodable)),
            ("empty-value", "skip", Err(Undecodable)),
            ("empty-object", "accept", Err(AddressMissing)),
            ("null", "accept", Err(AddressMissing)),
            ("json-array", "skip", Err(Undecodable)),
            ("json-string", "skip", Err(Undecodable)),
            ("json-number", "skip", Err(Undecodable)),
            ("trailing-garbage", "skip", Err(Undecodable)),
            ("utf8-bom", "skip", Err(Undecodable)),
            ("unknown-top-level", "accept", GOOD),
            // The reader hands the object on, and grpc-go ends the process because of it; our records have none.
            ("metadata-object", "accept", GOOD),
            ("lowercase-fields", "accept", GOOD),
            ("op-1-delete", "accept", GOOD),
            ("op-string", "skip", Err(Undecodable)),
            ("op-absent", "accept", GOOD),
            ("foobar-beside-foo", "skip", Ok("10.9.9.9:9999")),
            ("child-service-a/b", "accept", Ok("10.7.7.7:9999")),
            ("only-entry-is-bad-json", "skip", Err(Undecodable)),
        ],
    );
}
