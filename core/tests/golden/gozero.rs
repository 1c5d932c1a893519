//! go-zero v1.10.3.

use twinspan_core::codec::Format;
use twinspan_core::model::{Content, Reason};

use super::{Expected, captured, odd};

#[test]
fn every_captured_record_decodes_to_what_its_text_shows() {
    let table = [
        ("lease-id", None, "g.rpc", Ok("10.0.0.1:8080")),
        ("custom-id-7", None, "g.rpc", Ok("10.0.0.1:8080")),
        ("negative-id", None, "g.rpc", Ok("10.0.0.1:8080")),
        ("ipv6", None, "g.rpc", Ok("[2001:db8::1]:8080")),
        ("wildcard-verbatim", None, "g.rpc", Err(Reason::UnspecifiedAddress)),
        // Readers of `g` read this record too, as they read every key below their own.
        ("key-with-slash", None, "g", Ok("10.0.0.1:8080")),
        ("two-instances", None, "g.rpc", Ok("10.0.0.2:8080")),
        ("two-instances", None, "g.rpc", Ok("10.0.0.1:8080")),
    ];
    captured(Format::GoZero, include_str!("gozero.json"), 8, &table, |golden, record| {
        let Content::Registered { registration, .. } = &record.content else { panic!("{}", golden.case) };
        assert_eq!(registration.endpoints, std::slice::from_ref(&golden.value_text), "{}", golden.case);
    });
}

#[test]
fn every_odd_record_has_our_verdict_beside_the_readers() {
    use Reason::{AddressMalformed, AddressMissing, PortMissing};
    const GOOD: Expected = Ok("10.0.0.1:8080");
    // Its readers take any text for an address, and fail when they dial it.
    odd(
        Format::GoZero,
        "gozero",
        &[
            ("bad-json", "accept", Err(PortMissing)),
            ("empty-value", "accept", Err(AddressMissing)),
            ("empty-object", "accept", Err(PortMissing)),
            ("null", "accept", Err(PortMissing)),
            ("json-array", "accept", Err(AddressMalformed)),
            ("json-string", "accept", Err(PortMissing)),
            ("json-number", "accept", Err(PortMissing)),
            ("trailing-garbage", "accept", Err(PortMissing)),
            ("utf8-bom", "accept", Err(PortMissing)),
            ("json-value", "accept", Err(AddressMalformed)),
            ("value-with-suffix", "accept", Err(AddressMalformed)),
            ("non-numeric-id", "accept", GOOD),
            ("nested-key", "accept", GOOD),
            // Two records of one address are one endpoint.
            ("same-value-two-keys", "skip", Ok("10.9.9.9:9999")),
            ("space-and-newline", "accept", Err(AddressMalformed)),
            ("foobar-beside-foo", "skip", Ok("10.9.9.9:9999")),
            ("child-service-a/b", "accept", Ok("10.7.7.7:9999")),
            ("only-entry-is-bad-json", "accept", Err(PortMissing)),
        ],
    );
}
