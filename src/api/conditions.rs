//! Condition types and reasons, the words that users and their alerts look for.
//!
//! Owns the vocabulary. Refuses to decide: which condition holds follows from a plan, in `controllers`.

/// Everything that was asked for is done.
pub const READY: &str = "Ready";
/// The RegisteredService can be acted upon.
pub const ACCEPTED: &str = "Accepted";
/// The registry has what the cluster has.
pub const EXPORTED: &str = "Exported";
/// The cluster has what the registry has.
pub const IMPORTED: &str = "Imported";
/// Deletions are held back.
pub const DELETIONS_HELD: &str = "DeletionsHeld";
/// The registry answers.
pub const CONNECTED: &str = "Connected";
/// A complete list of the registry has arrived and is being followed.
pub const SYNCED: &str = "Synced";
