//! The epoch: a value in the registry that names the leader whose writes it takes.
//!
//! Owns the reaction of a leader to the epoch that it finds. A process that is frozen does not notice that it lost its
//! Lease; every batch compares the epoch and therefore fails. Refuses to know how the Lease is read: the caller says
//! whether the Lease explains a holder.

use std::fmt;
use std::str::FromStr;

/// The value of the epoch key, `<counter>/<holder>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub counter: u64,
    /// Empty if the last leader released the epoch when it ended.
    pub holder: String,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.counter, self.holder)
    }
}

/// The text is not an epoch.
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

/// The facts that a leader finds.
#[derive(Clone, Copy, Debug)]
pub struct FenceInput<'a> {
    /// The value of the key; `None` if the key does not exist.
    pub found: Option<&'a str>,
    /// The epoch that this leader raised; `None` if it has just become the leader.
    pub ours: Option<&'a Epoch>,
    /// The highest counter that this cluster is known to have raised in the registry. A registry that lost its data has
    /// a lower one, and one that gets it back has to have a lower one than ours.
    pub known: u64,
    /// The identity of this process.
    pub me: &'a str,
    /// Whether the holder of the found epoch has the Lease, had it lately, or had it before us.
    pub explained: bool,
    /// The value that an administrator allows us to raise.
    pub approved: Option<&'a str>,
    /// The value at which an earlier leader stopped writing.
    pub refused: Option<&'a str>,
}

/// The reaction of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The epoch is ours.
    Hold,
    /// Write a higher epoch by compare-and-swap, once the Lease is confirmed.
    Raise {
        to: Epoch,
        /// Nothing explains the holder of the found epoch: its records may belong to a process that is still alive.
        unexplained: bool,
    },
    /// Another cluster uses our cluster ID: nothing is written until an administrator approves.
    InUse,
}

pub fn decide(input: &FenceInput<'_>) -> Decision {
    let raise = |above: u64, unexplained| Decision::Raise {
        to: Epoch { counter: above.max(input.known).saturating_add(1), holder: input.me.to_owned() },
        unexplained,
    };
    let ours = input.ours.map_or(0, |epoch| epoch.counter);
    let Some(text) = input.found else { return raise(ours, false) };
    // A value that is not an epoch was written by a program that does not know epochs: it counts as older than all.
    let found = text.parse::<Epoch>().ok();
    let counter = found.as_ref().map_or(0, |epoch| epoch.counter);
    match input.ours {
        Some(ours) if found.as_ref() == Some(ours) => Decision::Hold,
        None if input.approved == Some(text) => raise(counter, false),
        // A restart approves nothing: the holder that stopped the leader before us still writes.
        None if !input.explained && is_refused(input, found.as_ref()) => Decision::InUse,
        None => raise(counter, !input.explained),
        // The key was deleted and made anew, or was restored with the registry.
        Some(ours) if counter < ours.counter => raise(ours.counter, false),
        Some(_) if input.explained || input.approved == Some(text) => raise(counter, false),
        Some(_) => Decision::InUse,
    }
}

/// True if an earlier leader stopped writing because of this holder, at this counter or a lower one.
fn is_refused(input: &FenceInput<'_>, found: Option<&Epoch>) -> bool {
    let refused = input.refused.and_then(|text| text.parse::<Epoch>().ok());
    refused
        .zip(found)
        .is_some_and(|(refused, found)| found.holder == refused.holder && found.counter >= refused.counter)
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
            // A new leader raises every epoch that it finds; an unexplained one makes it careful.
            (None, None, false, None, raise(1, false)),
            (Some("4/other"), None, true, None, raise(5, false)),
            (Some("4/other"), None, false, None, raise(5, true)),
            (Some("garbage"), None, false, None, raise(1, true)),
            // The epoch is unchanged.
            (Some("5/me"), Some("5/me"), false, None, Decision::Hold),
            // The epoch is gone, or was restored with the registry.
            (None, Some("5/me"), false, None, raise(6, false)),
            (Some("4/other"), Some("5/me"), false, None, raise(6, false)),
            (Some("4/me"), Some("5/me"), false, None, raise(6, false)),
            (Some("garbage"), Some("5/me"), false, None, raise(6, false)),
            // The process was stopped and continued; the Lease explains the other holder.
            (Some("6/other"), Some("5/me"), true, None, raise(7, false)),
            // A clone of the cluster.
            (Some("6/other"), Some("5/me"), false, None, Decision::InUse),
            (Some("5/other"), Some("5/me"), false, None, Decision::InUse),
            (Some("6/other"), Some("5/me"), false, Some("5/other"), Decision::InUse),
            (Some("6/other"), Some("5/me"), false, Some("6/other"), raise(7, false)),
        ] {
            let ours = ours.map(|text| text.parse::<Epoch>().unwrap());
            let ours = ours.as_ref();
            let input = FenceInput { found, ours, known: 0, me: "me", explained, approved, refused: None };
            assert_eq!(decide(&input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_successor_stays_refused_by_the_holder_that_stopped_the_leader_before_it() {
        let raise = |counter, unexplained| Decision::Raise { to: Epoch { counter, holder: "me".into() }, unexplained };
        for (found, explained, approved, expected) in [
            ("6/clone", false, None, Decision::InUse),
            ("9/clone", false, None, Decision::InUse),
            ("9/clone", false, Some("9/clone"), raise(10, false)),
            ("5/clone", false, None, raise(6, true)),
            ("9/other", false, None, raise(10, true)),
            ("9/clone", true, None, raise(10, false)),
        ] {
            let (found, refused) = (Some(found), Some("6/clone"));
            let input = FenceInput { found, ours: None, known: 0, me: "me", explained, approved, refused };
            assert_eq!(decide(&input), expected, "{input:?}");
        }
    }

    /// A registry was emptied while nobody led, a new leader raised its epoch there, and a backup was restored: its
    /// epoch is older than ours.
    #[test]
    fn a_counter_never_goes_back_with_the_registry() {
        let known =
            FenceInput { found: None, ours: None, known: 4, me: "me", explained: false, approved: None, refused: None };
        let ours = Epoch { counter: 5, holder: "me".into() };
        assert_eq!(decide(&known), Decision::Raise { to: ours.clone(), unexplained: false });
        let restored = FenceInput { found: Some("4/before"), ours: Some(&ours), ..known };
        let to = Epoch { counter: 6, holder: "me".into() };
        assert_eq!(decide(&restored), Decision::Raise { to, unexplained: false });
    }
}
