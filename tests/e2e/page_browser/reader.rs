//! A reader of the page: what somebody sees and does there, with deadlines.
//!
//! Owns the words of stories about the page, and the rule that no story leaves an error in the console or a request to
//! another host. Refuses to know what is shown.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use twinspan_testbed::eventually;

use super::driver::Driver;
use crate::harness::SOON;

/// A light or a dark screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    Light,
    Dark,
}

pub struct Reader {
    pub driver: Driver,
    origin: String,
}

impl Reader {
    /// Opens the page of an origin, such as `http://127.0.0.1:9080`, and waits until it is live.
    pub async fn open(dir: &Path, name: &str, origin: &str) -> Result<Self> {
        let reader = Self::start(dir, name, origin).await?;
        reader.look().await?;
        reader.is_live().await?;
        Ok(reader)
    }

    /// Starts a browser that does not look yet.
    pub async fn start(dir: &Path, name: &str, origin: &str) -> Result<Self> {
        Ok(Self { driver: Driver::start(dir, name).await?, origin: origin.to_owned() })
    }

    /// Opens the page.
    pub async fn look(&self) -> Result<()> {
        self.driver.open(&format!("{}/", self.origin)).await
    }

    /// Runs a script in each page before its own scripts.
    pub async fn prepare(&self, script: &str) -> Result<()> {
        let source = json!({"source": script});
        self.driver.devtools("Page.addScriptToEvaluateOnNewDocument", source).await.map(drop)
    }

    /// Lets the page write and read the clipboard, as a reader does who is asked.
    pub async fn allow_clipboard(&self) -> Result<()> {
        let permissions =
            json!({"origin": self.origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
        self.driver.devtools("Browser.grantPermissions", permissions).await.map(drop)
    }

    pub async fn is_live(&self) -> Result<()> {
        self.sees("the page is live", "return document.querySelector('.is-live') !== null").await
    }

    /// Waits until a script returns true.
    pub async fn sees(&self, what: &str, script: &str) -> Result<()> {
        self.sees_within(what, SOON, script).await
    }

    pub async fn sees_within(&self, what: &str, within: Duration, script: &str) -> Result<()> {
        eventually(what, within, || async {
            let found = self.driver.run(script).await?;
            ensure!(
                found == Value::Bool(true),
                "{script} returns {found}; the page shows:\n{}",
                self.text("body").await?
            );
            Ok(())
        })
        .await
    }

    /// The visible text of an element; empty if there is none.
    pub async fn text(&self, selector: &str) -> Result<String> {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
        Ok(self.driver.run(&script).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the visible text of an element has all of these parts.
    pub async fn reads(&self, selector: &str, parts: &[&str]) -> Result<()> {
        self.reads_within(selector, SOON, parts).await
    }

    pub async fn reads_within(&self, selector: &str, within: Duration, parts: &[&str]) -> Result<()> {
        eventually(&format!("{selector} reads {parts:?}"), within, || async {
            let text = self.text(selector).await?;
            let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
            ensure!(missing.is_empty(), "{missing:?} is not in:\n{text}");
            Ok(())
        })
        .await
    }

    /// Types into the search, in the place of what is there.
    pub async fn search(&self, text: &str) -> Result<()> {
        let script = format!(
            "const search = document.getElementById('search'); search.value = {}; search.dispatchEvent(new Event('input'));",
            json!(text)
        );
        self.driver.run(&script).await.map(drop)
    }

    /// Opens the details of a service by its address, as a link does.
    pub async fn follow(&self, key: &str) -> Result<()> {
        self.follow_as(key, key).await
    }

    /// The same for a key that is shown in another way than it is written.
    pub async fn follow_as(&self, key: &str, shown: &str) -> Result<()> {
        self.driver.run(&format!("location.hash = 'service=' + encodeURIComponent({})", json!(key))).await?;
        self.reads("#detail-title", &[shown]).await
    }

    pub async fn use_theme(&self, theme: Theme) -> Result<()> {
        let value = if theme == Theme::Light { "light" } else { "dark" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.driver.devtools("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// The language of the page becomes `en` or `zh-CN`.
    pub async fn use_language(&self, language: &str) -> Result<()> {
        let script = format!("return document.documentElement.lang === {}", json!(language));
        if self.driver.run(&script).await? != Value::Bool(true) {
            self.driver.click("#language").await?;
        }
        self.sees(language, &script).await
    }

    /// Ends the browser, if nothing went wrong that a reader does not see.
    pub async fn leave(self) -> Result<()> {
        self.nothing_went_wrong().await?;
        self.driver.quit().await
    }

    /// The console is empty, and every request went to the page's own host.
    pub async fn nothing_went_wrong(&self) -> Result<()> {
        let console = self.driver.console().await?;
        ensure!(console.is_empty(), "the console says:\n{}", console.join("\n"));
        let own = format!("{}/", self.origin);
        let requests = self.driver.requests().await?;
        ensure!(requests.contains(&own), "the log has the page itself: {requests:?}");
        let others: Vec<_> = requests.iter().filter(|url| !url.starts_with(&own)).collect();
        ensure!(others.is_empty(), "asked others: {others:?}");
        Ok(())
    }
}
