//! The recorded scene: each state that an instance keeps, at addresses that are the same in every run.
//!
//! - [`working`]: RegisteredServices that are accepted; [`refused`]: the others. [`stage`]: the setup of a part.
//!
//! Owns the objects, records and questions. Two states are left out: a foreign record that dials an exported pod but
//! has another key or form, and an exportable address that another cluster's Twinspan registered. Refuses to know the
//! answers.

mod refused;
mod stage;
mod working;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_testbed::{Bed, Etcd};

use super::placeholders::Placeholders;
use crate::harness::Sandbox;
use stage::{Stage, at};

/// An address without a listener.
const NOBODY: &str = "http://10.77.240.250:2379";

/// The command lines of each command.
pub type Questions = BTreeMap<&'static str, Vec<Vec<String>>>;

pub struct Scene<'a> {
    pub questions: Questions,
    pub placeholders: Placeholders,
    bed: &'a Bed,
    shop: Stage<'a>,
    kratos: Stage<'a>,
    guest: Stage<'a>,
    /// Listeners that accept connections although their registrations are lost.
    _alive: Vec<TcpListener>,
}

/// The scene while every registry answers.
pub async fn set(bed: &Bed) -> Result<Scene<'_>> {
    node(bed).await?;
    let stage = |sandbox| Stage::new(sandbox, &bed.registry);
    let mut shop = stage(Sandbox::without_registry_object(bed, "shop", &bed.registry).await?);
    let mut kratos = stage(Sandbox::without_registry_object(bed, "kratos", &bed.registry).await?);
    let mut guest = stage(Sandbox::without_registry_object(bed, "guest", &bed.registry).await?);
    let policy = json!({"allowCIDRs": ["10.77.240.0/24"], "denyCIDRs": ["10.77.242.0/24"]});
    shop.open(json!({"importPolicy": policy})).await?;
    kratos.open(json!({"format": "Kratos"})).await?;
    let api_server = api_server(bed).await?;

    let mut alive = working::main_service(&mut shop, &mut guest, api_server).await?;
    working::shared(&mut shop).await?;
    working::one_way_and_observed(&mut shop).await?;
    working::suspended(&mut shop).await?;
    alive.push(working::held_and_healed(&mut shop).await?);
    working::kratos(&mut kratos).await?;
    refused::services(&mut shop, &mut guest).await?;

    let dns = bed.dns.address().to_string();
    let mut placeholders = Placeholders::default();
    placeholders.add(&dns, "<dns>");
    placeholders.add(api_server.to_string(), "<api-server>");
    for (stage, placeholder) in [(&shop, "<shop>"), (&kratos, "<kratos>"), (&guest, "<guest>")] {
        placeholders.add(&stage.sandbox.name, placeholder);
    }
    let mut questions = questions(&[&shop, &kratos, &guest], &dns);
    let here = &shop.sandbox.name;
    let more = [
        ("explain", vec!["explain", "10.77.240.1"]),
        ("explain", vec!["explain", "10.77.240.71"]),
        ("explain", vec!["explain", "192.0.2.77"]),
        ("explain", vec!["explain", "nobody/has/this"]),
        ("parity", vec!["parity", "nobody", "-n", here]),
        ("plan", vec!["plan", "-n", here, "renamed"]),
        ("plan", vec!["plan", "-n", here, "nobody"]),
        ("status", vec!["status", "-n", here]),
    ];
    for (command, line) in more {
        questions.entry(command).or_default().push(line.into_iter().map(ToOwned::to_owned).collect());
    }
    Ok(Scene { questions, placeholders, bed, shop, kratos, guest, _alive: alive })
}

impl Scene<'_> {
    /// Adds two registries that do not answer, one of which did before. Later questions are about them.
    pub async fn lose_registries(&mut self) -> Result<()> {
        let bed = self.bed;
        let down: Etcd = bed.start_registry("registry-recording").await?;
        let mut torn = Stage::new(Sandbox::without_registry_object(bed, "torn", &down).await?, &down);
        let mut away = Stage::new(Sandbox::without_registry_object(bed, "away", &bed.registry).await?, &bed.registry);
        torn.open(json!({})).await?;
        away.open(json!({"etcd": {"endpoints": [NOBODY]}})).await?;
        for stage in [&mut torn, &mut away] {
            stage.both("echo", json!({})).await?;
        }
        torn.exported("echo", 81).await?;
        torn.foreign("echo", at(82, 9000)).await?;
        torn.becomes(at(82, 9000), "Imported").await?;
        away.ready("echo", 83).await?;
        down.part().kill().await?;
        for stage in [&torn, &away] {
            stage.sandbox.registry_condition("Ready", "False", "Unreachable").await?;
        }
        torn.becomes(at(82, 9000), "RegistryUnavailable").await?;

        for (stage, placeholder) in [(&torn, "<torn>"), (&away, "<away>")] {
            self.placeholders.add(&stage.sandbox.name, placeholder);
        }
        self.placeholders.add(down.endpoint().trim_start_matches("http://"), "<registry>");
        self.questions = questions(&[&torn, &away], &bed.dns.address().to_string());
        let explained = self.questions.entry("explain").or_default();
        explained
            .extend([at(1, 80).to_string(), "192.0.2.77".to_owned()].map(|about| vec!["explain".to_owned(), about]));
        Ok(())
    }

    pub async fn nothing_foreign_was_touched(&self) -> Result<()> {
        for stage in [&self.shop, &self.kratos, &self.guest] {
            stage.sandbox.nothing_foreign_was_touched().await?;
        }
        Ok(())
    }
}

fn questions(stages: &[&Stage<'_>], dns: &str) -> Questions {
    let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let mut questions = Questions::from([("plan", vec![line(&["plan"])]), ("status", vec![line(&["status"])])]);
    for stage in stages {
        let namespace = stage.sandbox.name.as_str();
        let explained = stage.asked.iter().map(|about| line(&["explain", about]));
        questions.entry("explain").or_default().extend(explained);
        let parity = stage.services.iter().map(|name| line(&["parity", name, "-n", namespace, "--dns", dns]));
        questions.entry("parity").or_default().extend(parity);
    }
    questions
}

/// The Node has an address, and a range for its pods.
async fn node(bed: &Bed) -> Result<()> {
    let nodes: Api<Node> = Api::all(bed.client());
    let name = "bed-node";
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"podCIDR": "10.77.241.0/24", "podCIDRs": ["10.77.241.0/24"]},
    }))?;
    nodes.create(&Default::default(), &node).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.77.243.1"}]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// The address of the control plane, from the Service `kubernetes`.
async fn api_server(bed: &Bed) -> Result<SocketAddr> {
    let slices: Api<EndpointSlice> = Api::namespaced(bed.client(), "default");
    let slice = slices.get("kubernetes").await?;
    let ip = slice.endpoints.first().and_then(|e| e.addresses.first()).context("an address")?.parse()?;
    let port = slice.ports.unwrap_or_default().first().and_then(|port| port.port).context("a port")?;
    Ok(SocketAddr::new(ip, u16::try_from(port)?))
}
