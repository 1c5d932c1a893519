//! Faults of an etcd: restarts, lost and restored data, revoked leases, compaction, alarms, changed passwords.

use anyhow::{Context, Result, ensure};
use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, DeleteOptions, Permission, RoleRevokePermissionOptions, Txn, TxnOp,
};

use tokio::process::Command;

use super::Etcd;
use crate::namespace;

impl Etcd {
    /// Starts etcd again with its data.
    pub async fn start_again(&self) -> Result<()> {
        self.part.start_again()?;
        self.ready().await
    }

    /// Starts etcd again without data: another cluster, as after a lost volume.
    pub async fn start_empty(&self) -> Result<()> {
        self.data.remove()?;
        self.start_again().await
    }

    /// Turns authentication on: `root` may do everything, and `name` may read and write below the prefixes.
    pub async fn require_password(&self, name: &str, password: &str, prefixes: &[&str]) -> Result<()> {
        let mut client = self.client().await?;
        client.user_add("root", "root", None).await?;
        client.user_grant_role("root", "root").await?;
        client.role_add("sync").await?;
        for prefix in prefixes {
            client.role_grant_permission("sync", Permission::read_write(*prefix).with_prefix()).await?;
        }
        client.user_add(name, password, None).await?;
        client.user_grant_role(name, "sync").await?;
        client.auth_enable().await?;
        let root = || "root".to_owned();
        self.user.set((root(), root())).ok().context("authentication is on already")
    }

    /// Grants the user another prefix.
    pub async fn permit(&self, prefix: &str) -> Result<()> {
        let mut client = self.client().await?;
        client.role_grant_permission("sync", Permission::read_write(prefix).with_prefix()).await?;
        Ok(())
    }

    /// Takes a prefix from the user again.
    pub async fn forbid(&self, prefix: &str) -> Result<()> {
        let options = RoleRevokePermissionOptions::new().with_prefix();
        self.client().await?.role_revoke_permission("sync", prefix, Some(options)).await?;
        Ok(())
    }

    /// Gives a user another password.
    pub async fn change_password(&self, name: &str, password: &str) -> Result<()> {
        self.client().await?.user_change_password(name, password).await?;
        Ok(())
    }

    /// Ends a lease and deletes its keys, as etcd does without keep-alives.
    pub async fn revoke(&self, lease: i64) -> Result<()> {
        self.client().await?.lease_revoke(lease).await?;
        Ok(())
    }

    /// Does the same as `etcdctl del --prefix`.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        self.client().await?.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
        Ok(())
    }

    /// Deletes several keys in one revision.
    pub async fn delete_at_once(&self, keys: &[String]) -> Result<()> {
        let deletes: Vec<TxnOp> = keys.iter().map(|key| TxnOp::delete(key.as_str(), None)).collect();
        self.client().await?.txn(Txn::new().and_then(deletes)).await?;
        Ok(())
    }

    /// Copies the data for [`Etcd::start_restored`]. etcd must not run.
    pub fn save(&self) -> Result<()> {
        Ok(self.data.save()?)
    }

    /// Starts etcd again with the copied data: an older revision of the same cluster, as after a restore.
    pub async fn start_restored(&self) -> Result<()> {
        self.data.restore()?;
        self.start_again().await
    }

    /// Starts etcd again from the copied data as a snapshot, with a revision that is higher than any before: only the
    /// newest revision is raised, and no watch survives. The cluster ID stays.
    pub async fn start_bumped(&self) -> Result<()> {
        self.data.remove()?;
        let snapshot = self.data.saved().join("member/snap/db");
        let output = Command::new(namespace::binary("etcdutl")?)
            .args(["snapshot", "restore"])
            .arg(&snapshot)
            .arg("--data-dir")
            .arg(self.data.dir())
            .args(["--name=bed", "--skip-hash-check", "--bump-revision=1000000", "--mark-compacted"])
            .arg(format!("--initial-cluster=bed={}", self.peer))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer))
            .output()
            .await
            .context("cannot run etcdutl")?;
        ensure!(output.status.success(), "etcdutl: {}", String::from_utf8_lossy(&output.stderr));
        self.start_again().await
    }

    /// Starts etcd again from the copied data as the only member of a new cluster, as after the loss of the others.
    pub async fn start_as_new_cluster(&self) -> Result<()> {
        self.data.restore()?;
        self.part.start_again_with(&["--force-new-cluster"])?;
        self.ready().await
    }

    pub async fn revision(&self) -> Result<i64> {
        Ok(self.client().await?.status().await?.header().context("no header")?.revision())
    }

    /// Others write to etcd until its revision is above this one.
    pub async fn write_past(&self, revision: i64) -> Result<()> {
        while self.revision().await? <= revision {
            let mut client = self.client().await?;
            for _ in 0..20 {
                client.put("somebody-else/key", "value", None).await?;
            }
        }
        Ok(())
    }

    /// Compacts every revision but the last.
    pub async fn compact(&self) -> Result<()> {
        let mut client = self.client().await?;
        let status = client.status().await?;
        let revision = status.header().context("no header")?.revision();
        client.compact(revision, None).await?;
        Ok(())
    }

    /// Raises or ends the alarm of a used-up quota, under which etcd refuses every put.
    pub async fn no_space(&self, raised: bool) -> Result<()> {
        let mut client = self.client().await?;
        let member = client.status().await?.header().context("no header")?.member_id();
        let action = if raised { AlarmAction::Activate } else { AlarmAction::Deactivate };
        let mut options = AlarmOptions::new();
        options.with_member(member);
        client.alarm(action, AlarmType::Nospace, Some(options)).await?;
        Ok(())
    }
}
