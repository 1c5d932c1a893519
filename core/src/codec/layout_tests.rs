use super::*;
use crate::model::{Kind, LeaseId, OWNER_TAG, ServiceKey, Tags};

fn owner() -> Owner {
    Owner { cluster_id: "c-1".into(), service: ServiceKey::new("shop", "echo.v1") }
}

fn name() -> RegistryName {
    RegistryName::new("echo").unwrap()
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

fn instance(format: Format, text: &str) -> Instance {
    let mut instance = Instance::single(addr(text), 20, Tags::from_iter([("lane".to_owned(), "blue".to_owned())]));
    if format.has_schemes() {
        instance.endpoints = vec![("grpc".to_owned(), instance.addr), ("http".to_owned(), addr("10.0.0.1:81"))];
    }
    instance
}

fn layout(format: Format) -> Layout {
    Layout::new(format, format.default_prefix())
}

fn record(layout: &Layout, key: &RecordKey, value: Vec<u8>) -> Record {
    layout.decode(&RawRecord { key: key.clone(), value, mod_revision: 1, lease: LeaseId(1) })
}

#[test]
fn keys_are_those_that_readers_look_under() {
    let odd = "twinspan~c-1~shop~echo.v1";
    for (format, prefix, root, key) in [
        (Format::Kitex, None, "kitex/registry-etcd/echo/", "10.0.0.1:80".to_owned()),
        (Format::Kitex, Some(""), "/echo/", "10.0.0.1:80".to_owned()),
        (Format::Kitex, Some("/my"), "/my/echo/", "10.0.0.1:80".to_owned()),
        (Format::Hertz, None, "hertz/registry-etcd/echo/", "10.0.0.1:80".to_owned()),
        (Format::Kratos, None, "/microservices/echo/", format!("{odd}~10.0.0.1")),
        (Format::GoZero, None, "echo/", format!("{odd}~10.0.0.1:80")),
        (Format::Grpc, None, "echo/", format!("{odd}~10.0.0.1:80")),
        (Format::Grpc, Some("svc"), "svc/echo/", format!("{odd}~10.0.0.1:80")),
    ] {
        let layout = Layout::new(format, prefix.unwrap_or(format.default_prefix()));
        assert_eq!(layout.service_root(&name()), root, "{format:?}");
        let written = layout.key(&name(), &owner(), &instance(format, "10.0.0.1:80"));
        assert_eq!(written.to_string(), format!("{root}{key}"), "{format:?}");
        assert_eq!(layout.split_key(&written), Some((&b"echo"[..], key.as_bytes())), "{format:?}");
        let common = layout.root().is_some_and(|root| written.as_bytes().starts_with(root.as_bytes()));
        assert_eq!(common, !layout.prefix().is_empty(), "{format:?}");
    }
    let v6 = instance(Format::Hertz, "[2001:db8::1]:80");
    assert!(layout(Format::Hertz).key(&name(), &owner(), &v6).to_string().ends_with("/echo/[2001:db8::1]:80"));
}

#[test]
fn a_leading_slash_precedes_every_key_once() {
    let layout = |format, prefix: &str| Layout::new(format, prefix).with_leading_slash(true);
    for (format, prefix, root, common) in [
        (Format::Grpc, "", "/echo/", None),
        (Format::GoZero, "", "/echo/", None),
        (Format::Kratos, "", "/echo/", None),
        (Format::Kitex, "", "/echo/", None),
        (Format::Grpc, "svc", "/svc/echo/", Some("/svc/")),
        (Format::GoZero, "svc/", "/svc//echo/", Some("/svc//")),
        (Format::Kitex, "kitex/registry-etcd", "/kitex/registry-etcd/echo/", Some("/kitex/registry-etcd/")),
        (Format::Kratos, "/microservices", "/microservices/echo/", Some("/microservices/")),
    ] {
        let layout = layout(format, prefix);
        assert_eq!(layout.service_root(&name()), root, "{format:?} {prefix}");
        assert_eq!(layout.root().as_deref(), common, "{format:?} {prefix}");
        let instance = instance(format, "10.0.0.1:80");
        let key = layout.key(&name(), &owner(), &instance);
        assert!(key.to_string().starts_with(root), "{key}");
        assert_eq!(layout.split_key(&key).map(|(name, _)| name), Some(&b"echo"[..]));
        let value = layout.encode(&layout.registration(&name(), &owner(), &instance));
        assert_eq!(record(&layout, &key, value).kind("c-1"), Kind::Own(&owner()), "{format:?} {prefix}");
    }
    // Hand-written registrars: etcd's own examples and jetcd use keys such as this one.
    let grpc = layout(Format::Grpc, "");
    let key = RecordKey::from("/greeter/10.0.0.1:50051");
    assert_eq!(grpc.split_key(&key), Some((&b"greeter"[..], &b"10.0.0.1:50051"[..])));
    // The slash is part of the place.
    assert!(!grpc.same_keyspace(&Layout::new(Format::Grpc, "")));
    assert!(grpc.same_keyspace(&Layout::new(Format::Kitex, "")));
    assert!(layout(Format::Kitex, "p").same_keyspace(&Layout::new(Format::Kitex, "/p")));
    assert!(!layout(Format::Kitex, "p").same_keyspace(&Layout::new(Format::Kitex, "p")));
    // A slash at the end of the prefix keeps its meaning.
    assert_eq!(Layout::new(Format::Grpc, "/").service_root(&name()), "//echo/");
}

#[test]
fn what_is_written_is_read_back_as_our_own_in_every_format() {
    for &format in Format::ALL {
        let layout = layout(format);
        let instance = instance(format, "10.0.0.1:80");
        let key = layout.key(&name(), &owner(), &instance);
        let says = layout.registration(&name(), &owner(), &instance);
        let record = record(&layout, &key, layout.encode(&says));
        let Content::Registered { registration, .. } = &record.content else { panic!("{format:?}: {record:?}") };
        assert_eq!(registration, &says, "{format:?}: an own record that is as it should be is not written again");
        assert_eq!(record.kind("c-1"), Kind::Own(&owner()), "{format:?}");
        assert_eq!(record.kind("c-2"), Kind::OtherCluster, "{format:?}");
        let addrs: Vec<InstanceAddr> = record.endpoint_addresses().collect();
        assert_eq!(addrs, instance.addresses().collect::<Vec<_>>(), "{format:?}");
    }
}

#[test]
fn every_format_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
    assert_eq!(names.len(), Format::ALL.len());
    assert!(names.contains("Toy"), "the tests over all formats cover one that was added by one file and one line");
}

#[test]
fn what_lies_in_a_place_inside_ours_is_not_ours() {
    for &format in Format::ALL {
        let outer = Layout::new(format, "p");
        let inner = Layout::new(format, "p/staging");
        let instance = instance(format, "10.0.0.1:80");
        let key = inner.key(&name(), &owner(), &instance);
        let value = inner.encode(&inner.registration(&name(), &owner(), &instance));
        assert_eq!(record(&inner, &key, value.clone()).own("c-1"), Some(&owner()), "{format:?}");
        assert_eq!(outer.split_key(&key).map(|(name, _)| name), Some(&b"staging"[..]), "a client of `staging` sees it");
        assert_eq!(record(&outer, &key, value).ours("c-1"), None, "{format:?}");
        assert!(outer.same_keyspace(&Layout::new(Format::Kitex, "p")) && !outer.same_keyspace(&inner));
    }
    let (kitex, grpc) = (Layout::new(Format::Kitex, ""), Layout::new(Format::Grpc, ""));
    assert!(!kitex.same_keyspace(&grpc), "one has a slash where the other has none");
    assert!(grpc.same_keyspace(&layout(Format::GoZero)));
}

#[test]
fn bytes_are_those_of_the_framework() {
    let of = |format: Format| {
        let text =
            layout(format).encode(&layout(format).registration(&name(), &owner(), &instance(format, "10.0.0.1:80")));
        String::from_utf8(text).unwrap()
    };
    let kitex = r#"{"network":"tcp","address":"10.0.0.1:80","weight":20,"tags":{"lane":"blue","twinspan.dev/owner":"c-1/shop/echo.v1"}}"#;
    assert_eq!(of(Format::Kitex), kitex);
    assert_eq!(of(Format::Hertz), kitex);
    assert_eq!(
        of(Format::Kratos),
        r#"{"id":"twinspan~c-1~shop~echo.v1~10.0.0.1","name":"echo","version":"","metadata":{"lane":"blue","twinspan.dev/owner":"c-1/shop/echo.v1","weight":"20"},"endpoints":["grpc://10.0.0.1:80","http://10.0.0.1:81"]}"#
    );
    assert_eq!(of(Format::GoZero), "10.0.0.1:80");
    assert_eq!(of(Format::Grpc), r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#);
}

#[test]
fn a_healed_registration_says_what_its_server_said_and_who_put_it_back() {
    for format in Format::ALL.iter().copied().filter(|format| format.heals()) {
        let layout = layout(format);
        let mut lost = layout.registration(&name(), &owner(), &instance(format, "10.0.0.9:80"));
        lost.tags.remove(OWNER_TAG);
        lost.tags.insert("a".to_owned(), "1".to_owned());
        // GoFrame has texts among the tags.
        let more = if format == Format::GoFrame { 2.into() } else { serde_json::Value::from("2") };
        lost.rest.insert("more".to_owned(), more.clone());
        let key = match format.framework().directory() {
            "" => format!("{}x", layout.service_root(&name())),
            directory => format!("{}{directory}10.0.0.9:80", layout.service_root(&name())),
        };
        let key = RecordKey::from(key);
        let before = record(&layout, &key, layout.encode(&lost));
        let Content::Registered { registration, .. } = &before.content else { panic!("{before:?}") };
        let after = record(&layout, &key, layout.encode(&layout.healed(registration, &owner())));
        assert_eq!(after.kind("c-1"), Kind::Healed(&owner()), "{format:?}");
        assert_eq!(after.kind("c-2"), Kind::Healed(&owner()), "whichever cluster looks");
        assert_eq!(after.listeners(), before.listeners(), "{format:?}");
        let Content::Registered { registration: healed, .. } = &after.content else { panic!("{after:?}") };
        assert_eq!((&healed.rest, healed.weight), (&registration.rest, registration.weight), "{format:?}");
        assert_eq!(healed.rest["more"], more, "{format:?}");
        assert_eq!(healed.tags.get("a").unwrap(), "1");
    }
}

#[test]
fn a_kratos_record_under_another_services_key_is_nobodys_endpoint() {
    let layout = layout(Format::Kratos);
    let value =
        |name: &str| format!(r#"{{"id":"b","name":"{name}","endpoints":["grpc://10.0.0.1:9000"]}}"#).into_bytes();
    let verdict = |name: &str| record(&layout, &"/microservices/echo/b".into(), value(name)).listeners()[0].addr;
    assert_eq!(verdict("echo"), Ok(addr("10.0.0.1:9000")));
    assert_eq!(verdict("other"), Err(Reason::OtherName));
    assert_eq!(verdict(""), Err(Reason::OtherName));
}

/// Programs set the ID of a Kratos instance to the address of its HTTP server (go-kratos/kratos#1711); its own reader
/// dials the endpoints and never looks at the ID.
#[test]
fn an_id_that_is_an_address_tells_the_host_alone() {
    let verdicts = |format: Format, last: &str, endpoints: &[&str]| {
        let layout = Layout::new(format, "p");
        let value = match format {
            Format::Kratos => serde_json::json!({"id": last, "name": "echo", "endpoints": endpoints}).to_string(),
            Format::Grpc => serde_json::json!({"Op": 0, "Addr": endpoints[0]}).to_string(),
            Format::GoZero => endpoints[0].to_owned(),
            _ => serde_json::json!({"network": "tcp", "address": endpoints[0]}).to_string(),
        };
        let found = record(&layout, &format!("p/echo/{last}").as_str().into(), value.into_bytes());
        found.listeners().iter().map(|listener| listener.addr).collect::<Vec<_>>()
    };
    let both = ["http://10.0.0.1:8000", "grpc://10.0.0.1:9000"];
    for id in
        ["10.0.0.1:8000", "10.0.0.1:9000", "10.0.0.1:1", "0.0.0.0:8000", "[::]:8000", "127.0.0.1:8000", "vm-1:8000"]
    {
        assert_eq!(verdicts(Format::Kratos, id, &both), [Ok(addr("10.0.0.1:8000")), Ok(addr("10.0.0.1:9000"))], "{id}");
    }
    let mismatch = Err(Reason::KeyValueMismatch);
    assert_eq!(verdicts(Format::Kratos, "10.0.0.2:8000", &both), [mismatch, mismatch], "another host");
    let mixed = ["http://10.0.0.1:8000", "grpc://10.0.0.2:9000"];
    assert_eq!(verdicts(Format::Kratos, "10.0.0.1:8000", &mixed), [Ok(addr("10.0.0.1:8000")), mismatch]);
    for format in [Format::GoZero, Format::Grpc] {
        assert_eq!(verdicts(format, "10.0.0.1:8000", &["10.0.0.1:9000"]), [Ok(addr("10.0.0.1:9000"))], "{format:?}");
        assert_eq!(verdicts(format, "10.0.0.2:8000", &["10.0.0.1:9000"]), [mismatch], "{format:?}");
    }
    for format in [Format::Kitex, Format::Hertz] {
        assert_eq!(verdicts(format, "10.0.0.1:8000", &["10.0.0.1:9000"]), [mismatch], "{format:?}");
        assert_eq!(verdicts(format, "0.0.0.0:9000", &["10.0.0.1:9000"]), [mismatch], "{format:?}");
    }
}

#[test]
fn a_value_that_is_too_long_decodes_in_no_format() {
    for &format in Format::ALL {
        let layout = layout(format);
        let key = layout.key(&name(), &owner(), &instance(format, "10.0.0.1:80"));
        let long = record(&layout, &key, vec![b'x'; MAX_VALUE + 1]);
        let omitted = layout.decode(&RawRecord::without_value(key, 1, LeaseId(1)));
        assert_eq!(long, omitted, "{format:?}");
        assert_eq!(omitted.kind("c-1"), Kind::Undecodable, "{format:?}: not ours, whatever its key says");
    }
}
