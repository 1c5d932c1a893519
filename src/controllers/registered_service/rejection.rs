//! The rejection of a spec.
//!
//! Owns the reason of the `Accepted` condition, and the consequence for existing records and slices. Refuses to judge a
//! spec, which [`super::validate`] does.

use twinspan_core::plan::departure::guard::Limits;

use crate::api::conditions::Reason;

/// The reason for the `Accepted` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    pub message: String,
    pub(super) consequence: Consequence,
}

/// The consequence of a rejection for existing records and slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Nothing is added and what ended is removed, because only the spec cannot be carried out.
    Reduce,
    Withdraw,
    /// Withdraw whatever the spec says about writing, because the administrator does not allow the name.
    Revoke,
    /// Withdraw within the limits, because perhaps only a list shows the reason.
    WithdrawGuarded(Limits),
}

pub(super) type Check<T> = Result<T, Rejection>;

pub(super) fn reject<T>(reason: Reason, message: impl Into<String>) -> Check<T> {
    Err(Rejection { reason, message: message.into(), consequence: Consequence::Reduce })
}

pub(super) fn reject_and_withdraw<T>(reason: Reason, message: impl Into<String>) -> Check<T> {
    Err(Rejection { reason, message: message.into(), consequence: Consequence::Withdraw })
}
