//! Refusals: Services and names for which no object is made, and why.
//!
//! Owns the words, and the bound: however many there are, a few are kept. Refuses to decide.

use std::collections::BTreeMap;

/// The refusals that are told; the count tells of the others.
pub const MOST_TOLD: usize = 5;

/// The reason of a refusal; a bounded set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// An annotation has a value that cannot be used.
    InvalidAnnotation,
    /// The registry cannot hold the name.
    InvalidName,
    /// Another Service or name has the name already.
    NameCollision,
    /// An object of that name is there, and is not discovery's.
    NameTaken,
    /// The API server refused the object.
    Refused,
}

impl Why {
    pub const ALL: [Self; 5] =
        [Self::InvalidAnnotation, Self::InvalidName, Self::NameCollision, Self::NameTaken, Self::Refused];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::InvalidName => "InvalidName",
            Self::NameCollision => "NameCollision",
            Self::NameTaken => "NameTaken",
            Self::Refused => "Refused",
        }
    }

    /// The meaning, with advice.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::InvalidAnnotation => "An annotation has a value that cannot be used; the message names it.",
            Self::InvalidName => "The registry cannot hold the name: set the annotation, or another template.",
            Self::NameCollision => {
                "Another Service, or another name, has it already: set the annotation on both to share it, or another template."
            }
            Self::NameTaken => "An object of that name is there, and is not discovery's: rename one of them.",
            Self::Refused => "The API server refused the object; the message has its words. It is tried again.",
        }
    }
}

/// A reason and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: Why,
    pub message: String,
}

/// The refusals of a plan: the first [`MOST_TOLD`] in the order of their subjects, and the number of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    pub count: usize,
    pub told: BTreeMap<String, Refusal>,
}

impl Refusals {
    pub fn add(&mut self, subject: &str, why: Why, message: impl Into<String>) {
        self.count += 1;
        let is_early =
            self.told.len() < MOST_TOLD || self.told.last_key_value().is_some_and(|(last, _)| *subject < **last);
        if is_early {
            self.told.insert(subject.to_owned(), Refusal { why, message: message.into() });
            if self.told.len() > MOST_TOLD {
                self.told.pop_last();
            }
        }
    }
}
