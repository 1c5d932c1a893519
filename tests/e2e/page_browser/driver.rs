//! One headless Chromium, driven over W3C WebDriver, which is JSON over HTTP.
//!
//! Owns the processes and the few commands that stories use. A client library would bring more than it saves: those
//! that there are switch on features of `serde_json` for the operator under test too, or have licences that are not
//! allowed here, or generate a hundred thousand lines. Refuses to know any page.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use twinspan_testbed::{Part, eventually};

/// A command that takes longer will not be answered.
const PATIENCE: Duration = Duration::from_secs(60);
/// Chromium starts on a machine that is busy with other stories.
const STARTED: Duration = Duration::from_secs(60);

/// The size of the window.
pub const WIDTH: u32 = 1440;
pub const HEIGHT: u32 = 900;

/// Keys that have no character of their own (WebDriver, 17.4.2).
pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';
pub const ESCAPE: char = '\u{e00c}';
pub const END: char = '\u{e010}';
pub const HOME: char = '\u{e011}';
pub const UP: char = '\u{e013}';
pub const RIGHT: char = '\u{e014}';
pub const DOWN: char = '\u{e015}';

/// A browser with one window.
pub struct Driver {
    port: u16,
    /// The path of the session.
    session: String,
    _process: Part,
}

impl Driver {
    /// Starts a browser whose files are in `dir`.
    pub async fn start(dir: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let env = [("TMPDIR", dir.display().to_string()), ("HOME", dir.display().to_string())];
        let process = Part::start(name, dir, "chromedriver", &["--port=0".to_owned()], &env)
            .context("`make setup` installs chromium and chromium-driver")?;
        let port = eventually("chromedriver listens", STARTED, || async {
            process.check_running()?;
            let lines = process.lines();
            let line = lines.iter().find(|line| line.contains("started successfully on port"));
            let port = line.and_then(|line| line.trim_end_matches('.').rsplit(' ').next()).context("no port yet")?;
            Ok(port.parse()?)
        })
        .await?;
        let mut driver = Self { port, session: String::new(), _process: process };
        let size = format!("--window-size={WIDTH},{HEIGHT}");
        let arguments = [
            // The browser runs as root in the namespaces of the test bed, where it cannot make its own.
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--lang=en-US",
            &size,
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "timeouts": {"script": PATIENCE.as_millis()},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let session = driver.call(Method::POST, "/session", Some(capabilities)).await?;
        driver.session = format!("/session/{}", session["sessionId"].as_str().context("no session")?);
        // With --window-size the window has borders.
        let metrics = json!({"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": false});
        driver.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        driver.devtools("Emulation.setTimezoneOverride", json!({"timezoneId": "UTC"})).await?;
        Ok(driver)
    }

    /// Ends the browser. One that is only dropped ends with the namespaces of the test bed.
    pub async fn quit(self) -> Result<()> {
        self.call(Method::DELETE, &self.session, None).await.map(drop)
    }

    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", json!({"url": url})).await.map(drop)
    }

    /// Runs a script in the page, which returns a value.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/sync", json!({"script": script, "args": []})).await
    }

    /// Runs a script in the page, which calls `arguments[0]` with a value.
    pub async fn run_until_done(&self, script: &str) -> Result<Value> {
        self.post("execute/async", json!({"script": script, "args": []})).await
    }

    /// Clicks where a reader would: it fails if something else covers the element.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector).await?;
        self.post(&format!("element/{element}/click"), json!({})).await.map(drop)
    }

    /// Presses the button of the mouse on an element, holds it for some time, and lets it go at the same place.
    pub async fn click_slowly(&self, selector: &str, held: Duration) -> Result<()> {
        let box_of = format!(
            "const box = document.querySelector({}).getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2];",
            json!(selector)
        );
        let at = self.run(&box_of).await?;
        let coordinate = |n: usize| at[n].as_f64().map(f64::round).with_context(|| format!("{selector} is nowhere"));
        let actions = json!([
            {"type": "pointerMove", "duration": 0, "x": coordinate(0)?, "y": coordinate(1)?},
            {"type": "pointerDown", "button": 0},
            {"type": "pause", "duration": held.as_millis()},
            {"type": "pointerUp", "button": 0},
        ]);
        let mouse =
            json!({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions});
        self.post("actions", json!({"actions": [mouse]})).await.map(drop)
    }

    async fn find(&self, selector: &str) -> Result<String> {
        let found = self.post("element", json!({"using": "css selector", "value": selector})).await?;
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        Ok(id.with_context(|| format!("no element {selector}"))?.to_owned())
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: impl IntoIterator<Item = char>) -> Result<()> {
        let strokes = keys
            .into_iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})));
        let actions: Vec<Value> = strokes.collect();
        self.post("actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}))
            .await
            .map(drop)
    }

    /// A command of the Chrome DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// The picture of the window, as PNG.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let encoded = self.call(Method::GET, &format!("{}/screenshot", self.session), None).await?;
        let encoded = encoded.as_str().context("no picture")?;
        Ok(base64::engine::general_purpose::STANDARD.decode(encoded)?)
    }

    /// The console since the last question: errors of scripts and of loading, and breaches of the policy.
    pub async fn console(&self) -> Result<Vec<String>> {
        let entries = self.log("browser").await?;
        Ok(entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect())
    }

    /// The URLs that the page asked for since the last question.
    pub async fn requests(&self) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for entry in self.log("performance").await? {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent" {
                urls.extend(event["params"]["request"]["url"].as_str().map(str::to_owned));
            }
        }
        Ok(urls)
    }

    async fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.post("se/log", json!({"type": kind})).await?;
        entries.as_array().cloned().context("no log")
    }

    async fn post(&self, command: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, &format!("{}/{command}", self.session), Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let what = format!("{method} {path}");
        let answer = timeout(PATIENCE, self.exchange(method, path, body)).await;
        let (status, answer) = answer.with_context(|| format!("{what}: no answer within {PATIENCE:?}"))??;
        ensure!(status == 200, "{what}: {status} {}", answer["value"]["message"]);
        Ok(answer["value"].clone())
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("127.0.0.1:{}", self.port))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        connection.abort();
        match serde_json::from_slice(&bytes) {
            Ok(answer) => Ok((status, answer)),
            Err(_) => bail!("no JSON: {}", String::from_utf8_lossy(&bytes)),
        }
    }
}
