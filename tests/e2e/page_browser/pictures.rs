//! Pictures of the page for the documents.
//!
//! Owns their files and the rule that a picture shows something. With `TWINSPAN_BLESS` set they are written anew into
//! `docs/images`; they differ each time, because clocks and names of test namespaces do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use twinspan_testbed::repository;

use super::driver::{HEIGHT, WIDTH};
use super::reader::{Reader, Theme};

/// An empty page takes a tenth of it.
const LEAST: usize = 60_000;

/// Takes each picture of the page as it is.
pub async fn take(reader: &Reader) -> Result<()> {
    let bless = std::env::var_os("TWINSPAN_BLESS").is_some();
    let mut different = BTreeSet::new();
    for (language, name) in [("en", "en"), ("zh-CN", "zh")] {
        reader.use_language(language).await?;
        for (theme, suffix) in [(Theme::Light, ""), (Theme::Dark, "-dark")] {
            reader.use_theme(theme).await?;
            reader.sees("no animation", "return document.getAnimations().length === 0").await?;
            let picture = reader.driver.picture().await?;
            shows_something(&picture, (WIDTH, HEIGHT)).with_context(|| format!("page-{name}{suffix}"))?;
            if bless {
                let path = file(&format!("page-{name}{suffix}.png"));
                std::fs::write(&path, &picture).with_context(|| path.display().to_string())?;
            }
            let kept = std::fs::read(file(&format!("page-{name}{suffix}.png")))?;
            shows_something(&kept, (WIDTH, HEIGHT)).with_context(|| format!("docs/images/page-{name}{suffix}.png"))?;
            ensure!(different.insert(picture), "{language} {theme:?} looks like another");
        }
    }
    reader.use_language("en").await?;
    reader.use_theme(Theme::Light).await
}

pub fn file(name: &str) -> PathBuf {
    repository().join("docs/images").join(name)
}

/// The picture has the size of the window, and is no even area.
pub fn shows_something(picture: &[u8], (width, height): (u32, u32)) -> Result<()> {
    ensure!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > LEAST, "{} bytes", picture.len());
    let number = |at: usize| picture.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    ensure!((number(16), number(20)) == (Some(width), Some(height)), "{:?} × {:?}", number(16), number(20));
    Ok(())
}
