//! The status page, and the dashboard of the chart, in a real headless Chromium.
//!
//! - [`cluster`]: stories on a real cluster and a real registry, whose objects are in [`scene`]. [`pictures`]: how the
//!   page looks there.
//! - [`alone`]: stories on the page's own server with lines that a cluster would take long to have ([`served`]).
//! - [`in_use`]: the reader acts while the page changes. [`unsure`]: the page knows little, or the way to its operator
//!   is gone ([`relay`]).
//! - [`dashboard`]: the panels of the dashboard with the data of a run.
//! - [`driver`]: the browser. [`reader`]: somebody who looks at the page.
//!
//! Owns nothing. Refuses to know how the page is made.

mod alone;
mod cluster;
mod dashboard;
mod driver;
mod in_use;
mod pictures;
mod reader;
mod relay;
mod scene;
mod served;
mod unsure;

use crate::harness::stories;

stories![modules: alone, cluster, dashboard, in_use, unsure];
