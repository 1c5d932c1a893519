//! RegisteredServices that are not accepted: one for each reason, with an instance that it concerns.
//!
//! Owns their specs. Refuses to know which commands ask about them.

use anyhow::Result;
use serde_json::json;

use super::stage::{Stage, at};

pub async fn services(shop: &mut Stage<'_>, guest: &mut Stage<'_>) -> Result<()> {
    let web = json!({"ports": [{"name": "web", "port": 80}]});
    let two = json!({"ports": [{"name": "rpc", "port": 80}, {"name": "web", "port": 8080}]});
    shop.headless("port-not-found", web).await?;
    shop.headless("port-ambiguous", two).await?;
    shop.headless("not-supported", json!({})).await?;
    shop.sandbox.service("external-name", json!({"type": "ExternalName", "externalName": "db.example"})).await?;
    shop.headless("no-registry", json!({})).await?;
    let rpc = json!({"service": {"ports": [{"name": "rpc"}]}});
    let scheme = json!({"service": {"ports": [{"name": "rpc", "scheme": "http"}]}});
    let nowhere = json!({"registryRef": {"name": "nowhere"}});
    for (name, host, spec, reason) in [
        ("service-missing", 46, json!({}), "ServiceMissing"),
        ("port-not-found", 47, rpc, "PortNotFound"),
        ("port-ambiguous", 48, json!({}), "PortAmbiguous"),
        ("not-supported", 49, scheme, "NotSupported"),
        ("external-name", 56, json!({}), "ExternalName"),
        ("no-registry", 55, nowhere, "RegistryNotFound"),
    ] {
        shop.foreign(name, at(host, 9000)).await?;
        shop.register(name, spec).await?;
        shop.sandbox.condition(name, "Accepted", "False", reason).await?;
    }
    shop.ready("no-registry", 57).await?;
    shop.ready("not-supported", 58).await?;
    shop.put("not-supported", "nonsense", "{").await?;

    // The registry does not allow its namespace.
    let end = at(59, 9000).to_string();
    shop.foreign("visitor", at(59, 9000)).await?;
    shop.ask_key("visitor", end);
    guest.both("visitor", json!({"registryRef": {"name": shop.sandbox.name}})).await?;
    guest.ready("visitor", 60).await?;
    guest.sandbox.condition("visitor", "Accepted", "False", "NotAllowed").await?;
    Ok(())
}
