//! Faults of the registry as an etcd of three members.
//!
//! Owns the calls to etcd, each with a deadline, of whichever member answers. Refuses to know why.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, ConnectOptions};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use twinspan_testbed::{Etcd, namespace};

const DEADLINE: Duration = Duration::from_secs(5);

/// A client of one member that fails soon.
pub async fn connect(member: &Etcd) -> Result<Client> {
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(2))
        .with_timeout(DEADLINE)
        .with_require_leader(true)
        .with_keep_alive(Duration::from_secs(3), Duration::from_secs(2))
        .with_keep_alive_while_idle(true);
    Ok(Client::connect([member.endpoint()], Some(options)).await?)
}

/// A client of a member that answers now.
pub async fn any(members: impl IntoIterator<Item = &Etcd>) -> Result<Client> {
    let mut last = anyhow::anyhow!("no member");
    for member in members {
        match timeout(DEADLINE, answering(member)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => last = error,
            Err(_) => last = anyhow::anyhow!("{}: no answer", member.endpoint()),
        }
    }
    Err(last).context("no member of the registry answers")
}

async fn answering(member: &Etcd) -> Result<Client> {
    let mut client = connect(member).await?;
    // A read that needs a quorum.
    client.get("chaos", None).await?;
    Ok(client)
}

async fn id(member: &Etcd) -> Result<u64> {
    let status = connect(member).await?.status().await?;
    Ok(status.header().context("no header")?.member_id())
}

pub async fn move_leader(members: &[Etcd]) -> Result<()> {
    let mut ids = Vec::new();
    for member in members {
        let status = timeout(DEADLINE, async { anyhow::Ok(connect(member).await?.status().await?) }).await;
        let Ok(Ok(status)) = status else { continue };
        ids.push((status.header().context("no header")?.member_id(), status.leader(), member));
    }
    let leads = |(id, leader, _): &&(u64, u64, &Etcd)| id == leader;
    let (leader, _, member) = ids.iter().find(leads).context("no leader")?;
    let (next, ..) = ids.iter().find(|(id, ..)| id != leader).context("no other member answers")?;
    connect(member).await?.move_leader(*next).await?;
    Ok(())
}

fn others(members: &[Etcd], number: usize) -> impl Iterator<Item = &Etcd> {
    members.iter().enumerate().filter(move |(n, _)| *n != number).map(|(_, member)| member)
}

pub async fn remove_member(members: &[Etcd], number: usize) -> Result<()> {
    let gone = id(&members[number]).await?;
    let mut client = any(others(members, number)).await?;
    client.member_remove(gone).await?;
    Ok(())
}

pub async fn add_member(members: &[Etcd], number: usize) -> Result<()> {
    let peer = members[number].endpoint().replace(":2379", ":2380");
    let mut client = any(others(members, number)).await?;
    let listed = client.member_list().await?;
    // An earlier try may have added it, and its answer was lost.
    if !listed.members().iter().any(|member| member.peer_urls().contains(&peer)) {
        client.member_add([peer], None).await?;
    }
    members[number].part().start_again_with(&["--initial-cluster-state=existing"])
}

pub async fn defragment(members: &[Etcd], number: usize) -> Result<()> {
    connect(&members[number]).await?.defragment().await?;
    Ok(())
}

pub async fn compact(members: &[Etcd]) -> Result<()> {
    let mut client = any(members).await?;
    let revision = client.get("chaos", None).await?.header().context("no header")?.revision();
    client.compact(revision, None).await?;
    Ok(())
}

/// Raises or ends the alarm of a used-up quota.
pub async fn no_space(members: &[Etcd], number: usize, raised: bool) -> Result<()> {
    let mut options = AlarmOptions::new();
    options.with_member(id(&members[number]).await?);
    let action = if raised { AlarmAction::Activate } else { AlarmAction::Deactivate };
    let mut client = any(members).await?;
    client.alarm(action, AlarmType::Nospace, Some(options)).await?;
    Ok(())
}

pub async fn save(members: &[Etcd], file: &Path) -> Result<()> {
    let mut client = any(members).await?;
    let mut stream = client.snapshot().await?;
    let mut out = tokio::fs::File::create(file).await?;
    while let Some(piece) = stream.message().await? {
        out.write_all(piece.blob()).await?;
    }
    out.flush().await?;
    Ok(())
}

/// Writes the data of every member anew from a snapshot. None may run.
pub async fn restore(members: &[Etcd], file: &Path) -> Result<()> {
    let peers: Vec<(String, String)> = members
        .iter()
        .map(|member| (member.part().name().to_owned(), member.endpoint().replace(":2379", ":2380")))
        .collect();
    let cluster: Vec<String> = peers.iter().map(|(name, peer)| format!("{name}={peer}")).collect();
    for (member, (name, peer)) in members.iter().zip(&peers) {
        wipe(member.data())?;
        let output = Command::new(namespace::binary("etcdutl")?)
            .args(["snapshot", "restore"])
            .arg(file)
            .arg("--data-dir")
            .arg(member.data())
            .arg(format!("--name={name}"))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .output()
            .await
            .context("cannot run etcdutl")?;
        ensure!(output.status.success(), "etcdutl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Empties a directory that may be the root of a file system.
pub fn wipe(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}

fn filler(member: &Etcd) -> PathBuf {
    member.data().join("filler")
}

/// Writes to the file system of a member until there is no room left.
pub fn fill(member: &Etcd) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(filler(member))?;
    for size in [1 << 20, 4096, 1] {
        let piece = vec![0u8; size];
        while file.write_all(&piece).is_ok() {}
    }
    Ok(())
}

pub fn free(member: &Etcd) -> Result<()> {
    std::fs::remove_file(filler(member))?;
    Ok(())
}
