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
    "/redraw.js", SCRIPT, "redraw.js";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions;
    use twinspan_core::model::Reason;

    /// The names in a list of one language.
    fn names<'a>(language: &str, list: &str, texts: &'a str) -> Vec<&'a str> {
        let (_, of_language) = texts.split_once(&format!("\n  {language}: {{")).unwrap();
        let (_, of_list) = of_language.split_once(&format!("\n    {list}: {{")).unwrap();
        let (inside, _) = of_list.split_once('}').unwrap();
        let names = inside.split('"').step_by(2).filter_map(|between| between.trim().strip_suffix(':'));
        names.map(|name| name.trim_start_matches(',').trim()).collect()
    }

    #[test]
    fn chinese_has_a_word_for_each_reason_and_state() {
        let texts = std::str::from_utf8(asset("/texts.js").unwrap().bytes).unwrap();
        let lacks = |language: &str, list: &str, wanted: &[&str]| {
            let known = names(language, list, texts);
            let missing: Vec<&str> = wanted.iter().filter(|word| !known.contains(word)).copied().collect();
            assert!(missing.is_empty(), "{language}.{list} has no {missing:?}, but {known:?}");
        };
        // Sessions, and the states of instances of refused services, are reasons of conditions.
        let of_conditions: Vec<&str> = conditions::Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        lacks("zh", "reasons", &of_conditions);
        let skipped: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        lacks("zh", "outcomes", &skipped);
        for language in ["en", "zh"] {
            lacks(language, "policies", &["Sync", "Observe"]);
            lacks(language, "messages", &["SecretUnusable", "TLSFailed", "SeeRegistry"]);
            let states = ["InSync", "Observing", "Pending", "Differs", "Lost", "Held", "Refused", "Unknown"];
            lacks(language, "states", &states);
            lacks(language, "stateMeanings", &states);
        }
    }
}
