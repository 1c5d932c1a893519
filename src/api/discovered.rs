//! The label of RegisteredServices that discovery made.
//!
//! Owns its key, and the question whether an object has it. Refuses to know how objects are discovered.

use kube::ResourceExt;

use super::RegisteredService;

/// The label; its value is the UID of the ServiceRegistry whose discovery made the object.
pub const DISCOVERED_BY: &str = "twinspan.dev/discovered-by";

/// The UID of the ServiceRegistry whose discovery made the object; none for an object that a person wrote.
pub fn discovered_by(object: &RegisteredService) -> Option<&str> {
    object.labels().get(DISCOVERED_BY).map(String::as_str)
}
