//! Properties of the types: whatever the schema admits is read, and whatever else is stored is refused alone.
//!
//! Owns any object as input. Refuses to know what follows from one.

use kube::core::ObjectList;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::testing::{
    Scratched, json, object_of, registered_service_spec, repeatable, schema, scratched, service_registry_spec, valid,
};
use super::{PartlyReadable, RegisteredService, ServiceRegistry, Stored};

fn read<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"))
}

/// Whether everything in `part` is in `whole` as it is there.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, field)| whole.get(name).is_some_and(|other| is_within(field, other)) || is_empty(field)),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(item, other)| is_within(item, other))
        }
        (part, whole) => part == whole,
    }
}

/// Empty lists and maps are not written.
fn is_empty(field: &Value) -> bool {
    field.as_array().is_some_and(Vec::is_empty) || field.as_object().is_some_and(serde_json::Map::is_empty)
}

/// One object whose spec was scratched is refused alone, and the rest of it is read.
fn is_refused_alone<K>(kind: &str, Scratched { spec, scratched, path, status }: &Scratched) -> Result<(), TestCaseError>
where
    K: PartlyReadable + Serialize + Clone + std::fmt::Debug,
{
    let (whole, broken) = (object_of(kind, "a", spec, &Value::Null), object_of(kind, "b", scratched, status));
    let readable = serde_json::from_value::<K>(object_of(kind, "b", scratched, &Value::Null)).is_ok();
    let list =
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "9"}, "items": [broken, whole]});
    let list: ObjectList<Stored<K>> = read(&list);
    let [Stored { object, unreadable }, other] = list.items.try_into().unwrap();
    prop_assert!(other.unreadable.is_none());
    prop_assert_eq!(serde_json::to_value(&other.object).unwrap(), serde_json::to_value(read::<K>(&whole)).unwrap());
    prop_assert_eq!(unreadable.is_none(), readable, "{:?}", unreadable);
    let unbroken = read::<K>(&object_of(kind, "b", spec, &Value::Null));
    prop_assert_eq!(object.meta(), unbroken.meta(), "it is there by its name");
    let Some(unreadable) = unreadable else { return Ok(()) };
    prop_assert!(!unreadable.problems.is_empty() && unreadable.message().contains(&unreadable.problems[0]));
    prop_assert_eq!(&unreadable.raw["spec"], scratched, "nothing of it is lost");
    // A stand-in says nothing that the object does not say, but for defaults, and lacks only what cannot be read.
    if scratched.is_object() {
        let top = path.first().unwrap();
        let named = |field: &String| field == top || field.starts_with(&format!("{top}."));
        prop_assert!(unreadable.fields.iter().all(named), "{:?} for {:?}", unreadable.fields, path);
        prop_assert!(!unreadable.fields.is_empty());
        let stand_in = serde_json::to_value(&object).unwrap();
        for (name, field) in spec.as_object().unwrap().iter().filter(|(name, _)| *name != top) {
            if *name != "suspend" {
                prop_assert!(is_within(field, &stand_in["spec"][name]), "{}: {} in {}", name, field, stand_in["spec"]);
            }
        }
        prop_assert!(unreadable.has_read(&[]) && !unreadable.has_read(&[top]));
    }
    Ok(())
}

proptest! {
    #![proptest_config(repeatable(150))]

    #[test]
    fn every_registered_service_that_the_schema_admits_is_read_whole(
        spec in registered_service_spec(),
        status in valid(&schema("registeredservices.yaml")["properties"]["status"]),
    ) {
        let object = object_of("RegisteredService", "a", &spec, &status);
        let stored: Stored<RegisteredService> = read(&object);
        prop_assert!(stored.unreadable.is_none(), "{:?}", stored.unreadable);
        let again = serde_json::to_value(&stored.object).unwrap();
        prop_assert!(is_within(&spec, &again["spec"]), "{} in {}", spec, again["spec"]);
        prop_assert_eq!(read::<RegisteredService>(&again).spec, stored.object.spec);
    }

    #[test]
    fn every_service_registry_that_the_schema_admits_is_read_whole(spec in service_registry_spec()) {
        let stored: Stored<ServiceRegistry> = read(&object_of("ServiceRegistry", "a", &spec, &Value::Null));
        prop_assert!(stored.unreadable.is_none(), "{:?}", stored.unreadable);
        let again = serde_json::to_value(&stored.object).unwrap();
        prop_assert!(is_within(&spec, &again["spec"]), "{} in {}", spec, again["spec"]);
    }

    #[test]
    fn a_registered_service_with_any_json_in_it_is_refused_alone(all in scratched(registered_service_spec())) {
        is_refused_alone::<RegisteredService>("RegisteredService", &all)?;
    }

    #[test]
    fn a_service_registry_with_any_json_in_it_is_refused_alone(all in scratched(service_registry_spec())) {
        is_refused_alone::<ServiceRegistry>("ServiceRegistry", &all)?;
    }

    #[test]
    fn any_json_as_spec_and_status_is_an_object_all_the_same(spec in json(), status in json()) {
        let stored: Stored<RegisteredService> = read(&object_of("RegisteredService", "a", &spec, &status));
        prop_assert_eq!(stored.object.metadata.uid.as_deref(), Some("a"));
        prop_assert!(!stored.unreadable.unwrap().has_read(RegisteredService::NAMES), "it names no registry");
        let stored: Stored<ServiceRegistry> = read(&object_of("ServiceRegistry", "a", &spec, &status));
        prop_assert_eq!(stored.object.metadata.uid.as_deref(), Some("a"));
        prop_assert!(!stored.unreadable.unwrap().has_read(ServiceRegistry::CONNECTION_FIELDS));
    }
}
