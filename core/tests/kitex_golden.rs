//! What real Kitex programs wrote and how real Kitex readers took it, with our own verdict beside theirs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{Content, LeaseId, RawRecord, Reason, Record};

#[derive(Deserialize)]
struct Golden {
    case: String,
    key: String,
    value_text: String,
}

#[derive(Deserialize)]
struct Odd {
    framework: String,
    case: String,
    #[serde(default)]
    put: BTreeMap<String, String>,
    verdict: String,
}

#[derive(Deserialize)]
struct Shown {
    network: String,
    address: String,
    weight: i64,
    tags: Option<BTreeMap<String, String>>,
}

type Verdict = Result<&'static str, Reason>;

fn decode(layout: &Layout, key: &str, value: &str) -> Record {
    layout.decode(&RawRecord { key: key.into(), value: value.into(), mod_revision: 1, lease: LeaseId(1) })
}

fn ours(record: &Record) -> Result<String, Reason> {
    match &record.content {
        Content::Undecodable(_) => Err(Reason::Undecodable),
        Content::Registered { addr, .. } => addr.map(|a| a.to_string()),
    }
}

#[test]
fn every_captured_record_decodes_to_what_its_text_shows() {
    use Reason::{HostnameAddress, LoopbackAddress, UnspecifiedAddress};
    // (case, prefix, service, our verdict); "" is the default prefix. Servers that were captured on loopback are
    // records like any other, and no endpoints.
    let table: &[(&str, &str, &str, Verdict)] = &[
        ("server-ipv4-defaults", "", "g.echo", Err(LoopbackAddress)),
        ("server-basicinfo-tags", "", "g.echo", Err(LoopbackAddress)),
        ("server-basicinfo-notags", "", "g.echo", Err(LoopbackAddress)),
        ("server-weight-25-tags-unicode-html", "", "g.echo", Err(LoopbackAddress)),
        ("server-empty-tag-map", "", "g.echo", Err(LoopbackAddress)),
        ("server-ipv6-loopback", "", "g.echo", Err(LoopbackAddress)),
        ("server-wildcard-v4", "", "g.echo", Ok("192.0.2.2:18801")),
        ("server-wildcard-any", "", "g.echo", Ok("192.0.2.2:18801")),
        ("server-wildcard-v6", "", "g.echo", Ok("192.0.2.2:18801")),
        ("server-prefix-custom", "my/prefix", "g.echo", Err(LoopbackAddress)),
        ("server-prefix-leading-slash", "/my", "g.echo", Err(LoopbackAddress)),
        ("server-prefix-trailing-slash", "my/", "g.echo", Err(LoopbackAddress)),
        // A '%' in the prefix is refused by the CRD: the framework corrupts the key.
        ("server-prefix-percent", "my%!p(string=              g.echo)", "%!v(MISSING)", Err(LoopbackAddress)),
        ("server-prefix-empty", "", "/g.echo", Err(LoopbackAddress)),
        ("server-ctor-auth-empty-prefix", "", "/g.echo", Err(LoopbackAddress)),
        ("server-ctor-retry", "", "g.echo", Err(LoopbackAddress)),
        ("server-ttl-20", "", "g.echo", Err(LoopbackAddress)),
        ("server-env-ip-port", "", "g.echo", Ok("10.1.2.3:9999")),
        ("server-env-ipv6", "", "g.echo", Ok("[2001:db8::1]:18801")),
        ("server-env-ipv6-bracketed", "", "g.echo", Ok("[2001:db8::1]:18801")),
        ("server-fixed-ipv6", "", "g.echo", Ok("[2001:db8::1]:8888")),
        ("server-name-dots-case-underscore", "", "Wsp.earn_QA.int-1", Err(LoopbackAddress)),
        ("register-ipv6-doc-addr", "", "g.echo", Ok("[2001:db8::1]:8888")),
        ("register-weight-0", "", "g.echo", Ok("10.0.0.1:8888")),
        ("register-weight-negative", "", "g.echo", Ok("10.0.0.1:8888")),
        ("register-hostname", "", "g.echo", Err(HostnameAddress)),
        ("register-name-with-percent", "", "g%20echo", Ok("10.0.0.1:8888")),
        ("two-instances", "", "g.echo", Err(LoopbackAddress)),
        ("register-wildcard-0000-verbatim", "", "g.echo", Err(UnspecifiedAddress)),
    ];
    let records: Vec<Golden> = serde_json::from_str(include_str!("golden/kitex.json")).unwrap();
    assert_eq!(records.len(), 30);
    for golden in &records {
        let (case, prefix, service, verdict) =
            table.iter().find(|row| row.0 == golden.case).unwrap_or_else(|| panic!("{} has no verdict", golden.case));
        let prefix = match (*prefix, service.starts_with('/')) {
            ("", false) => Format::Kitex.default_prefix(),
            (prefix, _) => prefix,
        };
        let layout = Layout::new(Format::Kitex, prefix);
        let record = decode(&layout, &golden.key, &golden.value_text);
        let Content::Registered { registration, .. } = &record.content else { panic!("{case}: {record:?}") };
        let shown: Shown = serde_json::from_str(&golden.value_text).unwrap();
        assert_eq!(registration.network, shown.network, "{case}");
        assert_eq!(registration.address, shown.address, "{case}");
        assert_eq!(registration.weight, shown.weight, "{case}");
        assert_eq!(registration.tags, shown.tags.unwrap_or_default(), "{case}");
        assert_eq!(ours(&record), verdict.map(ToOwned::to_owned), "{case}");
        let (name, rest) = layout.split_key(&record.key).unwrap_or_else(|| panic!("{case}: not under {prefix:?}"));
        assert_eq!(name, service.trim_start_matches('/').as_bytes(), "{case}");
        assert!(!rest.is_empty(), "{case}");
    }
    let seen: BTreeSet<&str> = records.iter().map(|r| r.case.as_str()).collect();
    assert_eq!(seen.len(), table.len(), "every row of the table is a captured case");
}

#[test]
fn every_odd_record_has_our_verdict_beside_the_readers() {
    use Reason::{AddressMissing, HostnameAddress, KeyValueMismatch, NotTCP, PortMissing, PortZero, Undecodable};
    const GOOD: Verdict = Ok("10.0.0.1:8888");
    // (case, what Kitex's resolver did, what we do). Where it accepts and we refuse, no EndpointSlice could hold the
    // address, or clients could not dial it (an empty network is an UnknownNetworkError in kitex v0.16.3).
    let table: &[(&str, &str, Verdict)] = &[
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
        // Refused only as a second record of its address: one endpoint stands for both.
        ("duplicate-address-two-keys", "accept", Ok("10.9.9.9:9999")),
        ("foobar-beside-foo", "skip", Ok("10.9.9.9:9999")),
        ("child-service-a/b", "accept", Ok("10.7.7.7:9999")),
        ("only-entry-is-bad-json", "FAIL (whole read)", Err(Undecodable)),
    ];
    let layout = Layout::new(Format::Kitex, Format::Kitex.default_prefix());
    let all: Vec<Odd> = serde_json::from_str(include_str!("golden/reader-verdicts.json")).unwrap();
    let mut seen = 0;
    for odd in all.iter().filter(|odd| odd.framework == "kitex") {
        let [(key, value)] = odd.put.iter().collect::<Vec<_>>()[..] else {
            // `no-keys` and `many-2000` put nothing, or only ordinary records.
            assert!(matches!(odd.case.as_str(), "no-keys" | "many-2000"), "{}", odd.case);
            continue;
        };
        let (case, theirs, verdict) =
            table.iter().find(|row| row.0 == odd.case).unwrap_or_else(|| panic!("{} has no verdict", odd.case));
        assert_eq!(*theirs, odd.verdict, "{case}");
        let record = decode(&layout, key, value);
        assert_eq!(ours(&record), verdict.map(ToOwned::to_owned), "{case}");

        // The reader that was asked for `tort.kitex.40` does not see `tort.kitex.40bar`, and neither do we.
        let (name, _) = layout.split_key(&record.key).unwrap();
        let asked_for = name.strip_suffix(b"bar").is_none();
        assert_eq!(asked_for, odd.case != "foobar-beside-foo", "{case}");
        seen += 1;
    }
    assert_eq!(seen, table.len());
    assert_eq!(
        ours(&decode(&layout, "k/10.0.0.2:1", r#"{"network":"tcp","address":"10.0.0.1:1"}"#)),
        Err(KeyValueMismatch)
    );
}
