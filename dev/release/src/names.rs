//! Where the parts of a release are, below the registry that it was given. Owns these two names and nothing else.

/// The repository of the image.
pub fn image(registry: &str) -> String {
    format!("{registry}/twinspan")
}

/// The repository of the chart.
pub fn chart(registry: &str) -> String {
    format!("{registry}/charts/twinspan")
}
