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
const PICTURE: &str = "image/svg+xml";

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
    "/icon.svg", PICTURE, "icon.svg";
    "/page.css", CSS, "page.css";
    "/detail.js", SCRIPT, "detail.js";
    "/dom.js", SCRIPT, "dom.js";
    "/filters.js", SCRIPT, "filters.js";
    "/head.js", SCRIPT, "head.js";
    "/list.js", SCRIPT, "list.js";
    "/news.js", SCRIPT, "news.js";
    "/page.js", SCRIPT, "page.js";
    "/registries.js", SCRIPT, "registries.js";
    "/sides.js", SCRIPT, "sides.js";
    "/spark.js", SCRIPT, "spark.js";
    "/store.js", SCRIPT, "store.js";
    "/stream.js", SCRIPT, "stream.js";
    "/texts.js", SCRIPT, "texts.js";
    "/words.js", SCRIPT, "words.js";
}

/// The file of a path.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}
