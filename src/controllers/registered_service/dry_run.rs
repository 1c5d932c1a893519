//! The log of a dry run: the writes that a leader would send.
//!
//! Owns their words, and the rule that a pass that plans the same again is silent. Refuses to plan or to write.

use tracing::info;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::service::Plan;
use twinspan_core::plan::slices::SliceOp;

/// The number of writes that one line names.
const NAMED: usize = 10;

/// Logs the planned writes, unless the last pass planned the same. Returns their words, for the next pass.
pub(super) fn log(key: &ServiceKey, plan: &Plan, last: &str) -> String {
    let (words, ServiceKey { namespace, name }) = (words(plan), key);
    if words != last {
        match words.as_str() {
            "" => info!(namespace, name, "dry run: {key} has nothing to write any more"),
            words => info!(namespace, name, "dry run: would write for {key}: {words}"),
        }
    }
    words
}

fn words(plan: &Plan) -> String {
    let mut all: Vec<String> = Vec::new();
    all.extend(plan.create.iter().map(|new| format!("create Service {}", new.key.name)));
    all.extend(plan.amend.iter().map(|(new, _)| format!("patch the ports of Service {}", new.key.name)));
    all.extend(plan.adopt.iter().map(|service| format!("adopt Service {}", service.name)));
    all.extend(plan.remove.iter().map(|service| format!("delete Service {}", service.name)));
    for (registry, ops) in &plan.records {
        all.extend(ops.iter().map(|op| format!("{} {} in {registry}", op.label(), op.key())));
    }
    all.extend(plan.slices.ops.iter().map(|op| match op {
        SliceOp::Create(spec) | SliceOp::Update { spec, .. } => format!("{} EndpointSlice {}", op.label(), spec.name),
        SliceOp::Delete { name, .. } => format!("delete EndpointSlice {name}"),
    }));
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(format!("{more} more"));
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::plan::RecordOp;

    #[test]
    fn many_writes_are_counted() {
        let op = |n: usize| RecordOp::Create { key: format!("p/echo/10.0.0.1:{n}").as_str().into(), value: Vec::new() };
        let plan = |n| Plan { records: vec![("main".to_owned(), (1..=n).map(op).collect())], ..Plan::default() };
        assert_eq!(words(&plan(1)), "create p/echo/10.0.0.1:1 in main");
        assert!(words(&plan(12)).ends_with("create p/echo/10.0.0.1:10 in main, 2 more"), "{}", words(&plan(12)));
        assert_eq!(log(&ServiceKey::new("shop", "echo"), &Plan::default(), "x"), "");
    }
}
