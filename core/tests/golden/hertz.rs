//! hertz v0.10.4 with hertz-contrib/registry/etcd at 8a220332.

use twinspan_core::codec::Format;
use twinspan_core::model::Reason;

use super::kitex::{says_what_it_shows, table};
use super::{captured, odd};

#[test]
fn every_captured_record_decodes_to_what_its_text_shows() {
    use Reason::{AddressMalformed, LoopbackAddress};
    let table = [
        ("server-ipv4-defaults", None, "g.echo", Err(LoopbackAddress)),
        ("server-weight-10", None, "g.echo", Err(LoopbackAddress)),
        ("server-weight-25-tags-unicode-html", None, "g.echo", Err(LoopbackAddress)),
        ("server-empty-tag-map", None, "g.echo", Err(LoopbackAddress)),
        ("server-ipv6-loopback", None, "g.echo", Err(LoopbackAddress)),
        ("server-ttl-20", None, "g.echo", Err(LoopbackAddress)),
        ("register-ipv6-doc-addr", None, "g.echo", Ok("[2001:db8::1]:8888")),
        ("register-env-ipv6", None, "g.echo", Ok("[2001:db8::1]:8888")),
        ("register-env-ipv6-bracketed", None, "g.echo", Err(AddressMalformed)),
        // Readers of the service `g` read this record too; no RegisteredService can have the name `g/echo`.
        ("register-name-with-slash", None, "g", Ok("10.0.0.1:8888")),
        ("register-mixed-case", None, "G.Echo", Ok("10.0.0.1:8888")),
        ("register-weight-negative", None, "g.echo", Ok("10.0.0.1:8888")),
        ("two-instances", None, "g.echo", Err(LoopbackAddress)),
        ("two-instances", None, "g.echo", Err(LoopbackAddress)),
    ];
    captured(Format::Hertz, include_str!("hertz.json"), 14, &table, says_what_it_shows);
}

#[test]
fn every_odd_record_has_our_verdict_beside_the_readers() {
    odd(Format::Hertz, "hertz", &table("skip"));
}
