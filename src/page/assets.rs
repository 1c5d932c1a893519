//! The files of the page, which are part of the program: nothing is loaded from elsewhere.
//!
//! Owns the list and the types. Refuses to know what is in them.

/// A file, by its path.
pub struct Asset {
    pub path: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($path:literal, $content_type:expr, $file:literal;)*) => {
        const ASSETS: &[Asset] = &[
            $(Asset {
                path: $path,
                content_type: $content_type,
                bytes: include_bytes!(concat!("assets/", $file)),
            },)*
        ];
    };
}

assets! {
    "/", HTML, "index.html";
    "/page.css", CSS, "page.css";
    "/page.js", SCRIPT, "page.js";
    "/texts.js", SCRIPT, "texts.js";
}

/// The file of a path.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}
