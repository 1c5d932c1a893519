//! The status page: every registry and every service with the instances of both sides, live, for people.
//!
//! - [`rows`]: one line of the page, as a value; [`board`]: all lines, and what changed since a version.
//! - [`answer`]: the lines as JSON; [`detail`]: one service in full; [`text`]: texts of others, made fit to show.
//! - [`door`]: who is answered at all, and with which headers; [`stream`]: live changes; [`assets`]: the files of the
//!   page; [`source`]: what all answers are made from; [`server`]: the paths.
//!
//! Owns the form of the page's data and every bound on its readers. Refuses to look at views and objects: passes put
//! their lines on the board, and the composition hands in the explanation of one service. Nothing is written from here.

mod answer;
mod assets;
pub mod board;
pub mod detail;
pub mod door;
pub mod rows;
pub mod server;
mod source;
mod stream;
pub mod text;

#[cfg(test)]
mod board_tests;
#[cfg(test)]
mod server_tests;

pub use board::Board;
pub use server::{bounds, pages};
pub use source::Page;
