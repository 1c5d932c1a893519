//! The epoch: which leader's writes a registry takes.
//!
//! Owns what a leader does about the epoch that it finds. Losing a Lease does not stop a process that is frozen; a
//! value in the registry that every batch compares does. Refuses to know how the Lease is read: the caller says whom it
//! explains.

use std::fmt;
use std::str::FromStr;

/// The value of the epoch key, `<counter>/<holder>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub counter: u64,
    /// Empty where a leader that ended gave it back.
    pub holder: String,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.counter, self.holder)
    }
}

/// The text is no epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch: want <counter>/<holder>")]
pub struct NotAnEpoch;

impl FromStr for Epoch {
    type Err = NotAnEpoch;

    fn from_str(text: &str) -> Result<Self, NotAnEpoch> {
        let (counter, holder) = text.split_once('/').ok_or(NotAnEpoch)?;
        Ok(Self { counter: counter.parse().map_err(|_| NotAnEpoch)?, holder: holder.to_owned() })
    }
}

/// What a leader finds.
#[derive(Clone, Copy, Debug)]
pub struct FenceInput<'a> {
    /// The value of the key; `None` where there is none.
    pub found: Option<&'a str>,
    /// What this leader raised it to; `None` where it has just become the leader.
    pub ours: Option<&'a Epoch>,
    /// This process.
    pub me: &'a str,
    /// Whether the holder of what was found is, or lately was, the holder of the Lease.
    pub explained: bool,
    /// The value that an administrator lets us raise.
    pub approved: Option<&'a str>,
}

/// What it does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is ours.
    Hold,
    /// To be written by compare-and-swap, once the Lease is confirmed.
    Raise {
        to: Epoch,
        /// Nothing explains who held it before: whatever it wrote may be somebody's who lives.
        unexplained: bool,
    },
    /// Somebody else uses our cluster ID: nothing is written until an administrator approves.
    InUse,
}

pub fn decide(input: &FenceInput<'_>) -> Decision {
    let raise = |above: u64, unexplained| Decision::Raise {
        to: Epoch { counter: above.saturating_add(1), holder: input.me.to_owned() },
        unexplained,
    };
    let ours = input.ours.map_or(0, |epoch| epoch.counter);
    let Some(text) = input.found else { return raise(ours, false) };
    // What is no epoch was written by somebody who knows nothing of epochs: it is older than all.
    let found = text.parse::<Epoch>().ok();
    let counter = found.as_ref().map_or(0, |epoch| epoch.counter);
    match input.ours {
        Some(ours) if found.as_ref() == Some(ours) => Decision::Hold,
        None => raise(counter, !input.explained),
        // Deleted and made anew, or set back with the registry.
        Some(ours) if counter < ours.counter => raise(ours.counter, false),
        Some(_) if input.explained || input.approved == Some(text) => raise(counter, false),
        Some(_) => Decision::InUse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_round_trip_and_anything_else_is_none() {
        for text in ["1/a", "7/", "12/host_1/x"] {
            assert_eq!(text.parse::<Epoch>().map(|e| e.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "a/b", "/a", "-1/a", "7"] {
            assert_eq!(text.parse::<Epoch>(), Err(NotAnEpoch), "{text}");
        }
    }

    #[test]
    fn every_case() {
        let raise = |counter, unexplained| Decision::Raise { to: Epoch { counter, holder: "me".into() }, unexplained };
        for (found, ours, explained, approved, expected) in [
            // A new leader raises whatever it finds; what nothing explains makes it careful.
            (None, None, false, None, raise(1, false)),
            (Some("4/other"), None, true, None, raise(5, false)),
            (Some("4/other"), None, false, None, raise(5, true)),
            (Some("garbage"), None, false, None, raise(1, true)),
            // Nothing happened to it.
            (Some("5/me"), Some("5/me"), false, None, Decision::Hold),
            // Gone, or set back with the registry.
            (None, Some("5/me"), false, None, raise(6, false)),
            (Some("4/other"), Some("5/me"), false, None, raise(6, false)),
            (Some("4/me"), Some("5/me"), false, None, raise(6, false)),
            (Some("garbage"), Some("5/me"), false, None, raise(6, false)),
            // A leader that was stopped and went on, which the Lease explains.
            (Some("6/other"), Some("5/me"), true, None, raise(7, false)),
            // A clone of the cluster.
            (Some("6/other"), Some("5/me"), false, None, Decision::InUse),
            (Some("5/other"), Some("5/me"), false, None, Decision::InUse),
            (Some("6/other"), Some("5/me"), false, Some("5/other"), Decision::InUse),
            (Some("6/other"), Some("5/me"), false, Some("6/other"), raise(7, false)),
        ] {
            let ours = ours.map(|text| text.parse::<Epoch>().unwrap());
            let input = FenceInput { found, ours: ours.as_ref(), me: "me", explained, approved };
            assert_eq!(decide(&input), expected, "{input:?}");
        }
    }
}
