//! The registered instances: every name in every registry, with and without a RegisteredService.
//!
//! - [`instance`]: one address of one record, in words. [`contents`]: one registry, read page by page.
//! - [`gather`]: every registry of the cluster, and the RegisteredServices that use its names.
//! - [`answer`]: the tables. [`follow`]: the changes from then on.
//!
//! Owns the bounds of what is read. Refuses to start the views of an operator: neither pods nor slices are listed for
//! it, and nothing is written.

mod answer;
mod contents;
mod follow;
mod gather;
mod instance;

pub use answer::{Answer, Detailed, Name, RegistryAnswer};
pub use contents::{Contents, MOST_RECORDS, Wanted};
pub use follow::{Change, ChangeKind, follow};
pub use gather::{Gathered, Request, Source, gather};
pub use instance::Instance;
