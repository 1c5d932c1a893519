//! Values and revisions above every bound: strangers choose their size.

use super::*;

stories![values_and_revisions_of_any_size];

/// Strangers choose the size of values, and an administrator may let them be larger than any message that is read.
async fn values_and_revisions_of_any_size(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    many_large(&bed.start_registry("registry-large").await?).await?;
    one_huge(&bed.start_registry_with("registry-huge", &["--max-request-bytes=33554432"]).await?).await
}

async fn many_large(etcd: &Etcd) -> Result<()> {
    let registry = connector_to(etcd).connect().await?;
    registry.grant(LEASE, 600).await?;
    let before = registry.list(ROOT).await?.revision;
    let mut stranger = etcd.client().await?.kv_client();

    // 28 MB in 20 values, in a list, in a backlog, as the answers to one read and to one lost race.
    let large = "x".repeat(1_400_000);
    let names: Vec<String> = (0..20).map(|n| format!("large/{n:02}")).collect();
    for name in &names {
        stranger.put(key(name).as_bytes(), large.as_str(), None).await?;
    }
    registry.commit(&batch(vec![create("large/small", "1")])).await?;
    let all = registry.list(ROOT).await?.records;
    ensure!(all.len() == 21 && all.iter().filter(|record| record.is_too_long()).count() == 20, "{} records", all.len());
    let mut watch = registry.watch(&follow(1, ROOT, before + 1)).await?;
    let backlog = changes(watch.as_mut(), 21).await?;
    let told: Vec<RawRecord> = backlog
        .into_iter()
        .filter_map(|change| if let Change::Put(record) = change { Some(record) } else { None })
        .collect();
    ensure!(told == all, "the backlog has what the list has");
    let keys: Vec<RecordKey> = all.iter().map(|record| record.key.clone()).collect();
    let read = registry.read(&keys).await?.records;
    ensure!(read.iter().map(|(_, record)| record.as_ref()).eq(all.iter().map(Some)), "a read has what the list has");
    let races = names.iter().map(|name| create(name, "1")).collect();
    let lost = registry.commit(&batch(races)).await;
    ensure!(matches!(&lost, Err(error) if error.is_ambiguous()), "{lost:?}");

    // One revision of more than 16 MiB: only its watch ends.
    let long = "k".repeat(20_000);
    for n in 0..20 {
        let puts = (0..60).map(|m| TxnOp::put(format!("{ROOT}mass/{n}-{m:03}-{long}"), "", None));
        stranger.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
    }
    let listed = registry.list(&format!("{ROOT}mass/")).await?;
    ensure!(listed.records.len() == 1200, "{} records", listed.records.len());
    watch.follow(&follow(2, &format!("{ROOT}mass/"), listed.revision + 1)).await?;
    watch.unwatch(1).await?;
    watch.follow(&follow(3, &format!("{ROOT}small/"), listed.revision + 1)).await?;
    stranger.delete(format!("{ROOT}mass/"), Some(DeleteOptions::new().with_prefix())).await?;
    loop {
        match next(watch.as_mut()).await? {
            WatchItem::Lost { watch_id: 2, error: RegistryError::TooLarge(_) } => break,
            WatchItem::Alive | WatchItem::Progress(_) => {}
            other => bail!("{other:?}"),
        }
    }
    registry.commit(&batch(vec![create("small/a", "1")])).await?;
    ensure!(matches!(&changes(watch.as_mut(), 1).await?[..], [Change::Put(record)] if record.key == key("small/a")));

    Ok(())
}

/// One value above the limit. The stream that it ends is followed by one that passes over it.
async fn one_huge(etcd: &Etcd) -> Result<()> {
    let connector = connector_to(etcd);
    let registry = connector.connect().await?;
    registry.grant(LEASE, 600).await?;
    let mut stranger = etcd.client().await?.kv_client();
    stranger.put(key("huge/a").as_bytes(), "x".repeat(17 << 20), None).await?;
    let huge = registry.list(&format!("{ROOT}huge/")).await?;
    ensure!(
        huge.records.len() == 1 && huge.records.iter().all(RawRecord::is_too_long),
        "{} records",
        huge.records.len()
    );
    let mut watch = registry.watch(&follow(1, &format!("{ROOT}huge/"), huge.revision + 1)).await?;
    let ended = next(watch.as_mut()).await;
    ensure!(ended.is_err(), "{ended:?}");
    let again = connector.connect().await?;
    let mut watch = again.watch(&follow(1, &format!("{ROOT}huge/"), huge.revision + 1)).await?;
    let quiet = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    ensure!(quiet.is_err(), "{quiet:?}");
    ensure!(!watch.request_progress().await?, "etcd would not answer");
    registry.commit(&batch(vec![create("huge/b", "1")])).await?;
    ensure!(matches!(&changes(watch.as_mut(), 1).await?[..], [Change::Put(record)] if record.key == key("huge/b")));
    ensure!(watch.request_progress().await?);
    ensure!(matches!(next(watch.as_mut()).await?, WatchItem::Progress(_)));
    Ok(())
}
