//! The list of formats.
//!
//! Owns which frameworks exist, and the only place that maps a format to its framework. Refuses to know any of them:
//! callers get a [`Framework`].

use jiff::SignedDuration;

use super::framework::Framework;
use super::goframe::GoFrame;
use super::gozero::GoZero;
use super::grpc::Grpc;
use super::hertz::Hertz;
use super::kitex::Kitex;
use super::kratos::Kratos;
#[cfg(test)]
use super::toy::Toy;
use crate::model::{Listener, Registration};

/// A list of unit structs that implement [`Framework`]; the enum, the list as a whole and the dispatch follow from it.
macro_rules! formats {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// The frameworks whose records are understood.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Format {
            $($(#[$attribute])* $name,)*
        }

        impl Format {
            pub const ALL: &'static [Self] = &[$($(#[$attribute])* Self::$name),*];

            /// Everything that differs from one format to the next.
            pub fn framework(self) -> &'static dyn Framework {
                match self { $($(#[$attribute])* Self::$name => &$name,)* }
            }
        }
    };
}

formats! {
    Kitex,
    Hertz,
    Kratos,
    GoZero,
    Grpc,
    GoFrame,
    #[cfg(test)]
    Toy,
}

/// Questions that rooms outside the codecs ask.
impl Format {
    /// See [`Framework::name`].
    pub fn as_str(self) -> &'static str {
        self.framework().name()
    }

    /// See [`Framework::default_prefix`].
    pub fn default_prefix(self) -> &'static str {
        self.framework().default_prefix()
    }

    /// See [`Framework::has_schemes`].
    pub fn has_schemes(self) -> bool {
        self.framework().has_schemes()
    }

    /// See [`Framework::default_scheme`].
    pub fn default_scheme(self) -> &'static str {
        self.framework().default_scheme()
    }

    /// See [`Framework::has_tags`].
    pub fn has_tags(self) -> bool {
        self.framework().has_tags()
    }

    /// See [`Framework::weight`].
    pub fn weight(self, registration: &Registration) -> Option<i64> {
        self.framework().weight(registration)
    }

    /// Whether clients tell the instances of a service by weight.
    pub fn has_weights(self) -> bool {
        self.weight(&Registration::default()).is_some()
    }

    /// See [`Framework::heals`].
    pub fn heals(self) -> bool {
        self.framework().heals()
    }

    /// The addresses that a client dials that looks for a scheme: the first one that has it, or every one, see
    /// [`Framework::dials_every_address`].
    pub fn dialled<'a>(self, listeners: &'a [Listener], scheme: &'a str) -> impl Iterator<Item = &'a Listener> {
        let most = if self.framework().dials_every_address() { usize::MAX } else { 1 };
        listeners.iter().filter(move |listener| listener.scheme == scheme).take(most)
    }

    /// See [`Framework::bears_ipv6`].
    pub fn bears_ipv6(self) -> bool {
        self.framework().bears_ipv6()
    }

    /// See [`Framework::clients_learn_within`].
    pub fn clients_learn_within(self) -> SignedDuration {
        self.framework().clients_learn_within()
    }

    /// See [`Framework::leaves_by_revoking`].
    pub fn leaves_by_revoking(self) -> bool {
        self.framework().leaves_by_revoking()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_ask_every_five_seconds_have_more_than_that() {
        let within = |format: Format| format.clients_learn_within().as_millis();
        for format in Format::ALL {
            let polls = matches!(format, Format::Kitex | Format::Hertz);
            assert_eq!(within(*format), if polls { 5_500 } else { 500 }, "{format:?}");
        }
    }
}
