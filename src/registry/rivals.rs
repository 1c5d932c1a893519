//! Rivals: older ServiceRegistries that may lead to the same etcd.
//!
//! Owns the proof that two sessions lead to one etcd or to two. etcd's cluster ID proves nothing, because another etcd
//! may have the same one, and neither does the incarnation, because a snapshot carries it along: only an epoch that was
//! raised since both sessions began does. Refuses to know the consequence; the names that a rival serves are in
//! [`super::taken_names`].

use twinspan_core::model::{RawRecord, RecordKey};
use twinspan_core::plan::fence::Epoch;

use super::handle::RegistryHandle;
use super::{Registry, Result};

/// The knowledge about two sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    SameEtcd,
    OtherEtcd,
    /// Not connected, or the epoch has to be raised first.
    Unproven,
}

/// Compares the etcds of two sessions, by their epoch keys.
///
/// # Errors
/// One of them does not answer, or its user may not read the other's key.
pub async fn compare(older: &RegistryHandle, younger: &RegistryHandle) -> Result<Comparison> {
    let (Some(theirs), Some(ours)) = (&older.fence, &younger.fence) else { return Ok(Comparison::Unproven) };
    let keys = [RecordKey::from(theirs.key()), RecordKey::from(ours.key())];
    let registry = younger.connection()?;
    let Ok(rival) = older.connection() else {
        // Nobody can ask the rival now, but its last session may have met an epoch that our etcd never had.
        let found = epoch(read(registry.as_ref(), &keys[..1]).await?.first());
        let known = older.view().last_known().and_then(|known| known.epoch);
        let lower = known.is_some_and(|known| found.is_none_or(|found| found.counter < known));
        return Ok(if lower { Comparison::OtherEtcd } else { Comparison::Unproven });
    };
    // A raise from before either session began may be in a snapshot that made one of the two etcds.
    let began = older.connected_at().max(younger.connected_at());
    let raised = ours.raised_since(began);
    let before = read(rival.as_ref(), &keys).await?;
    let found = read(registry.as_ref(), &keys).await?;
    let after = read(rival.as_ref(), &keys).await?;
    if before != after {
        return Ok(Comparison::Unproven);
    }
    if before != found {
        return Ok(Comparison::OtherEtcd);
    }
    match raised {
        Some(raised) if epoch(found.get(1)).as_ref() == Some(&raised) => Ok(Comparison::SameEtcd),
        _ => {
            ours.raise_again();
            Ok(Comparison::Unproven)
        }
    }
}

async fn read(registry: &dyn Registry, keys: &[RecordKey]) -> Result<Vec<Option<RawRecord>>> {
    Ok(registry.read(keys).await?.records.into_iter().map(|(_, record)| record).collect())
}

fn epoch(record: Option<&Option<RawRecord>>) -> Option<Epoch> {
    std::str::from_utf8(&record?.as_ref()?.value).ok()?.parse().ok()
}
