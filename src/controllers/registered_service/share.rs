//! The condition of a share that no weights reach.
//!
//! Owns its words. Refuses to compute: the plan of the export has the numbers.

use twinspan_core::plan::export::ShareLimit;
use twinspan_core::plan::service::{Accepted, Plan};

use crate::api::RegisteredServiceStatus;
use crate::api::conditions::{ConditionStatus, DesiredCondition, Reason, SHARE_LIMITED, find_true};

/// Absent where it is not True: most services ask for no share. While nothing can be planned the last one stays.
pub(super) fn limited(accepted: &Accepted, known: &RegisteredServiceStatus, plan: &Plan) -> Option<DesiredCondition> {
    let percent = accepted.share.filter(|_| accepted.exports)?;
    let Some(directions) = &plan.directions else {
        let last = find_true(&known.conditions, SHARE_LIMITED)?;
        let reasons = [Reason::ForeignWeightsTooLow, Reason::ForeignWeightsTooHigh];
        let reason = reasons.into_iter().find(|reason| reason.as_str() == last.reason)?;
        return Some(DesiredCondition::new(SHARE_LIMITED, ConditionStatus::True, reason, last.message.clone()));
    };
    let ShareLimit { permille, over, others_weight } = directions.export.share_limit?;
    let share = format!("{}.{} % instead of {percent} %", permille / 10, permille % 10);
    let (reason, message) = if over {
        let advice = format!("give each foreign record a weight of {others_weight} or more, or run fewer pods");
        (Reason::ForeignWeightsTooLow, format!("weights of 1 give the exported instances {share}; {advice}"))
    } else {
        let advice = format!("give each foreign record a weight of {others_weight} or less, or run more pods");
        (Reason::ForeignWeightsTooHigh, format!("weights of 10000 give the exported instances {share}; {advice}"))
    };
    Some(DesiredCondition::new(SHARE_LIMITED, ConditionStatus::True, reason, message))
}
