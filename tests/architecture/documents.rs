//! The documents: links lead somewhere, and translations are in step.
//!
//! Owns the list of pages, and the planted faults that show each check fail. Refuses to know what two pages of a pair
//! share ([`translations`]), and to read Markdown ([`pages`]).

use std::collections::BTreeMap;
use std::path::Path;

use crate::pages::{self, Page};
use crate::translations;

/// Pages by their path from the root of the repository.
type Texts = BTreeMap<String, String>;

/// Every page of the repository by its path: those of its root, and those below `docs` and `charts`.
fn texts() -> Texts {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut texts, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && (folder != root || path.ends_with("docs") || path.ends_with("charts")) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                texts.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
}

fn page(texts: &Texts, file: &str) -> Page {
    pages::read(file, texts.get(file).unwrap_or_else(|| panic!("{file} does not exist")))
}

#[test]
fn translations_have_the_headings_and_the_code_of_the_original() {
    let texts = texts();
    let mut found = Vec::new();
    for (english, chinese) in translations::PAIRS {
        found.extend(translations::differences(&page(&texts, english), &page(&texts, chinese)));
    }
    let known: Vec<&str> = translations::PAIRS.iter().map(|(_, chinese)| *chinese).chain(translations::ALONE).collect();
    for file in texts.keys().filter(|file| file.starts_with("docs/zh/") || file.ends_with("_cn.md")) {
        if !known.contains(&file.as_str()) {
            found.push(format!("{file}: name it in tests/architecture/translations.rs, as one of a pair or alone"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_translation_that_is_out_of_step_is_found() {
    let english = "# A\n\n[中文](b.md)\n\nIn 5 s.\n\n![x](p.svg)\n\n## B\n\n| 1 | 2 |\n|---|---|\n| a | 3 |\n\n```sh\nls # all\n```\n";
    let chinese = english.replace("中文](b.md)", "English](a.md)").replace("In 5 s.", "5 秒。");
    let compare =
        |chinese: &str| translations::differences(&pages::read("a.md", english), &pages::read("b.md", chinese));
    assert_eq!(compare(&chinese), Vec::<String>::new());
    for (from, to, expected) in [
        ("## B", "### B", "b.md:9 has a heading of level 3, and a.md:9 has a heading of level 2"),
        ("ls # all", "ls # 全部", "b.md:16 has `ls # 全部`, and a.md:16 has `ls # all`"),
        ("```sh", "```bash", "b.md:15 has ````bash`, and a.md:15 has ````sh`"),
        ("| a | 3 |\n", "| a | 4 |\n", "b.md:13: the row has the figures [\"4\"], and [\"3\"] in a.md:13"),
        ("| a | 3 |\n", "", "b.md:14 has a block of code, and a.md:13 has a row of a table"),
        ("p.svg", "q.svg", "b.md:7: the picture is q.svg, and p.svg in a.md:7"),
        ("5 秒", "六秒", "b.md: the section has no 5, which a.md:5 has"),
        ("(a.md)", "(c.md)", "b.md: link to a.md before the first section"),
        ("```sh\nls # all\n```\n", "", "b.md ends before a block of code of a.md:15"),
    ] {
        let changed = chinese.replace(from, to);
        assert_ne!(changed, chinese, "{from}");
        let found = compare(&changed);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
    let found = compare(&format!("{chinese}\n## C\n"));
    assert!(found.len() == 1 && found[0].starts_with("b.md:19: a heading of level 2 is not in a.md"), "{found:?}");
}

/// The number of links, and those to files and to headings that are not there.
fn dead_links(texts: &Texts) -> (usize, Vec<String>) {
    let pages: BTreeMap<&str, Page> = texts.keys().map(|file| (file.as_str(), page(texts, file))).collect();
    let (mut count, mut dead) = (0, Vec::new());
    for page in pages.values() {
        let relative = |target: &str| !target.contains("://") && !target.starts_with("mailto:");
        for link in page.links.iter().filter(|link| relative(&link.what)) {
            count += 1;
            let (target, heading) = link.what.split_once('#').unwrap_or((&link.what, ""));
            let path = if target.is_empty() { page.file.clone().into() } else { page.beside(target) };
            let there = || pages.get(&*path.to_string_lossy());
            if !Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists() {
                dead.push(format!("{}:{}: {} is not there", page.file, link.line, link.what));
            } else if !heading.is_empty() && !there().is_some_and(|there| there.anchors.contains(heading)) {
                dead.push(format!("{}:{}: {} has no such heading", page.file, link.line, link.what));
            }
        }
    }
    (count, dead)
}

#[test]
fn every_link_leads_somewhere() {
    let mut texts = texts();
    let (count, dead) = dead_links(&texts);
    assert!(count > 100, "{count} links were found");
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    let planted = "\n[a](no-such-page.md) [b](quick-start.md#no-such-heading) `[c](code)`\n";
    texts.get_mut("docs/concepts.md").unwrap().push_str(planted);
    assert_eq!(dead_links(&texts).1.len(), 2);
}
