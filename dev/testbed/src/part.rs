//! One process of the bed: it can be started, killed, frozen and started again, and ends when it is dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::network::Place;

/// How long a process may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// One process. Its output goes to a log file; its standard output can be read line by line as well.
#[derive(Debug)]
pub struct Part {
    name: String,
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    pub fn start(
        name: &str,
        place: impl Into<Place>,
        program: &str,
        args: &[String],
        env: &[(&str, String)],
    ) -> Result<Self> {
        let place = place.into();
        let (program, args) = place.command(program, args);
        let part = Self {
            name: name.to_owned(),
            program,
            args,
            env: env.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
            log: place.dir().join(format!("{name}.log")),
            child: Mutex::new(None),
            lines: Arc::default(),
        };
        part.start_again()?;
        Ok(part)
    }

    /// Starts it with the same arguments after it has ended.
    pub fn start_again(&self) -> Result<()> {
        self.start_again_with(&[])
    }

    /// The same, with more arguments this time.
    pub fn start_again_with(&self, more: &[&str]) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .args(more)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program))?;
        let stdout = child.stdout.take().context("no standard output")?;
        tokio::spawn(collect(stdout, log, self.lines.clone()));
        *lock(&self.child) = Some(child);
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines_since(0)
    }

    /// The lines after the first `from`.
    pub fn lines_since(&self, from: usize) -> Vec<String> {
        self.stamped_since(from).into_iter().map(|(_, line)| line).collect()
    }

    /// The same, with the moment at which each was read.
    pub fn stamped_since(&self, from: usize) -> Vec<(Instant, String)> {
        lock(&self.lines).get(from..).map(<[_]>::to_vec).unwrap_or_default()
    }

    pub fn line_count(&self) -> usize {
        lock(&self.lines).len()
    }

    pub fn pid(&self) -> Result<u32> {
        lock(&self.child).as_ref().and_then(Child::id).with_context(|| format!("{} is not running", self.name))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Sends SIGKILL, and waits until the process has ended.
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait().await
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub async fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        match tokio::time::timeout(STOP_DEADLINE, self.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                bail!("{} did not end within {STOP_DEADLINE:?} of SIGTERM; see {}", self.name, self.log.display())
            }
        }
    }

    /// Sends SIGSTOP: the process does nothing any more, but its connections stay open.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    async fn wait(&self) -> Result<()> {
        let child = lock(&self.child).take();
        if let Some(mut child) = child {
            child.wait().await?;
        }
        Ok(())
    }

    /// Fails with the end of the log if the process has ended.
    pub fn check_running(&self) -> Result<()> {
        let ended = match lock(&self.child).as_mut() {
            None => bail!("{} is not running", self.name),
            Some(child) => child.try_wait()?,
        };
        match ended {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended with {status}; the end of {}:\n{}", self.name, self.log.display(), self.log_tail())
            }
        }
    }

    pub fn log_tail(&self) -> String {
        let text =
            std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

async fn collect(
    stdout: tokio::process::ChildStdout,
    mut log: std::fs::File,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
) {
    use std::io::Write;
    let mut reader = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        let _ = writeln!(log, "{line}");
        lock(&lines).push((Instant::now(), line));
    }
}
