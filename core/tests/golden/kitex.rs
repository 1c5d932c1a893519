//! kitex v0.16.3 with registry-etcd v0.2.6.

use std::collections::BTreeMap;

use serde::Deserialize;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{Content, Reason, Record};

use super::{Expected, Golden, captured, decode, odd, ours};

#[derive(Deserialize)]
struct Shown {
    network: String,
    address: String,
    weight: i64,
    tags: Option<BTreeMap<String, String>>,
}

/// The registration says what its text shows.
pub fn says_what_it_shows(golden: &Golden, record: &Record) {
    let Content::Registered { registration, .. } = &record.content else { panic!("{}: {record:?}", golden.case) };
    let shown: Shown = serde_json::from_str(&golden.value_text).unwrap();
    assert_eq!(registration.network, shown.network, "{}", golden.case);
    assert_eq!(registration.endpoints, [shown.address], "{}", golden.case);
    assert_eq!(registration.weight, shown.weight, "{}", golden.case);
    assert_eq!(registration.tags, shown.tags.into_iter().flatten().collect(), "{}", golden.case);
}

#[test]
fn every_captured_record_decodes_to_what_its_text_shows() {
    use Reason::{HostnameAddress, LoopbackAddress, UnspecifiedAddress};
    // Servers that were captured on loopback decode like any other, but cannot be endpoints.
    let table = [
        ("server-ipv4-defaults", None, "g.echo", Err(LoopbackAddress)),
        ("server-basicinfo-tags", None, "g.echo", Err(LoopbackAddress)),
        ("server-basicinfo-notags", None, "g.echo", Err(LoopbackAddress)),
        ("server-weight-25-tags-unicode-html", None, "g.echo", Err(LoopbackAddress)),
        ("server-empty-tag-map", None, "g.echo", Err(LoopbackAddress)),
        ("server-ipv6-loopback", None, "g.echo", Err(LoopbackAddress)),
        ("server-wildcard-v4", None, "g.echo", Ok("192.0.2.2:18801")),
        ("server-wildcard-any", None, "g.echo", Ok("192.0.2.2:18801")),
        ("server-wildcard-v6", None, "g.echo", Ok("192.0.2.2:18801")),
        ("server-prefix-custom", Some("my/prefix"), "g.echo", Err(LoopbackAddress)),
        ("server-prefix-leading-slash", Some("/my"), "g.echo", Err(LoopbackAddress)),
        ("server-prefix-trailing-slash", Some("my/"), "g.echo", Err(LoopbackAddress)),
        // A '%' in the prefix is refused by the CRD: the framework corrupts the key.
        ("server-prefix-percent", Some("my%!p(string=              g.echo)"), "%!v(MISSING)", Err(LoopbackAddress)),
        ("server-prefix-empty", Some(""), "g.echo", Err(LoopbackAddress)),
        ("server-ctor-auth-empty-prefix", Some(""), "g.echo", Err(LoopbackAddress)),
        ("server-ctor-retry", None, "g.echo", Err(LoopbackAddress)),
        ("server-ttl-20", None, "g.echo", Err(LoopbackAddress)),
        ("server-env-ip-port", None, "g.echo", Ok("10.1.2.3:9999")),
        ("server-env-ipv6", None, "g.echo", Ok("[2001:db8::1]:18801")),
        ("server-env-ipv6-bracketed", None, "g.echo", Ok("[2001:db8::1]:18801")),
        ("server-fixed-ipv6", None, "g.echo", Ok("[2001:db8::1]:8888")),
        ("server-name-dots-case-underscore", None, "Wsp.earn_QA.int-1", Err(LoopbackAddress)),
        ("register-ipv6-doc-addr", None, "g.echo", Ok("[2001:db8::1]:8888")),
        ("register-weight-0", None, "g.echo", Ok("10.0.0.1:8888")),
        ("register-weight-negative", None, "g.echo", Ok("10.0.0.1:8888")),
        ("register-hostname", None, "g.echo", Err(HostnameAddress)),
        ("register-name-with-percent", None, "g%20echo", Ok("10.0.0.1:8888")),
        ("two-instances", None, "g.echo", Err(LoopbackAddress)),
        ("two-instances", None, "g.echo", Err(LoopbackAddress)),
        ("register-wildcard-0000-verbatim", None, "g.echo", Err(UnspecifiedAddress)),
    ];
    captured(Format::Kitex, include_str!("kitex.json"), 30, &table, says_what_it_shows);
}

#[test]
fn every_odd_record_has_our_verdict_beside_the_readers() {
    odd(Format::Kitex, "kitex", &table("FAIL (whole read)"));
    let layout = Layout::new(Format::Kitex, Format::Kitex.default_prefix());
    let value = r#"{"network":"tcp","address":"10.0.0.1:1"}"#;
    assert_eq!(ours(&decode(&layout, "k/10.0.0.2:1", value)), Err(Reason::KeyValueMismatch));
}

/// Kitex and Hertz have one value, and their readers differ only about a service without a valid record, which is
/// `alone`.
pub fn table(alone: &'static str) -> Vec<(&'static str, &'static str, Expected)> {
    use Reason::{AddressMissing, HostnameAddress, NotTCP, PortMissing, PortZero, Undecodable};
    const GOOD: Expected = Ok("10.0.0.1:8888");
    // If a reader accepts and we refuse, no EndpointSlice could hold the address, or clients could not dial it (an
    // empty network is an UnknownNetworkError in kitex v0.16.3).
    vec![
        ("bad-json", "skip", Err(Undecodable)),
        ("empty-value", "skip", Err(Undecodable)),
        ("empty-object", "accept", Err(NotTCP)),
        ("null", "accept", Err(NotTCP)),
        ("json-array", "skip", Err(Undecodable)),
        ("json-string", "skip", Err(Undecodable)),
        ("json-number", "skip", Err(Undecodable)),
        ("trailing-garbage", "skip", Err(Undecodable)),
        ("utf8-bom", "skip", Err(Undecodable)),
        ("weight-string", "skip", Err(Undecodable)),
        ("weight-float-10.0", "skip", Err(Undecodable)),
        ("weight-1e1", "skip", Err(Undecodable)),
        ("weight-overflow", "skip", Err(Undecodable)),
        ("weight-null", "accept", GOOD),
        ("weight-absent", "accept", GOOD),
        ("weight-0", "accept", GOOD),
        ("weight-negative", "accept", GOOD),
        ("unknown-top-level", "accept", GOOD),
        ("unknown-top-level-first", "accept", GOOD),
        ("extra-tags", "accept", GOOD),
        ("tags-non-string", "skip", Err(Undecodable)),
        ("tags-value-null", "accept", GOOD),
        ("tags-array", "skip", Err(Undecodable)),
        ("missing-network", "accept", Err(NotTCP)),
        ("missing-address", "accept", Err(AddressMissing)),
        ("capitalised-fields", "accept", GOOD),
        ("duplicate-field-last-wins", "accept", GOOD),
        ("whitespace-reordered", "accept", GOOD),
        ("ipv6-bracketed", "accept", Ok("[2001:db8::1]:8888")),
        ("ipv6-unbracketed", "accept", Ok("[2001:db8::1]:8888")),
        ("suffix-not-address", "accept", GOOD),
        ("suffix-nested", "accept", GOOD),
        ("suffix-empty", "accept", GOOD),
        ("hostname", "accept", Err(HostnameAddress)),
        ("port-0", "accept", Err(PortZero)),
        ("no-port", "accept", Err(PortMissing)),
        ("unix", "accept", Err(NotTCP)),
        ("invalid-utf8-tag", "accept", GOOD),
        // Two records of one address are one endpoint.
        ("duplicate-address-two-keys", "accept", Ok("10.9.9.9:9999")),
        ("foobar-beside-foo", "skip", Ok("10.9.9.9:9999")),
        ("child-service-a/b", "accept", Ok("10.7.7.7:9999")),
        ("only-entry-is-bad-json", alone, Err(Undecodable)),
    ]
}
