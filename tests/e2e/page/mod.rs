//! The status page of a running operator: what it shows, how soon, and what it never shows.

mod live;
mod opening;
mod reader;
mod secrets;

use crate::harness::stories;

stories![modules: live, opening, secrets];
