//! CPU time and memory of one process.
//!
//! Owns the reading of `/proc`, which is the machine's. Refuses to know the program that runs.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use twinspan_testbed::{Part, namespace};

/// The unit of the times in `/proc/PID/stat` is 1/100 s on every architecture that Linux has (proc_pid_stat(5),
/// `USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// A process that takes no more within one such time is quiet.
const SPAN: Duration = Duration::from_millis(500);
/// How long a process has to be quiet.
pub const QUIET: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// The PID in the PID namespace of the machine.
    pid: u32,
}

/// Resident memory in MiB: now, and at most so far.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

impl Process {
    pub fn of(part: &Part) -> Result<Self> {
        let status = namespace::process_status(part.pid()?)?;
        Ok(Self { pid: field(&status, "Pid:")?.parse()? })
    }

    /// CPU time of all threads so far.
    pub fn cpu(self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        ticks(&stat).map(|ticks| TICK * ticks).context("no times in /proc/PID/stat")
    }

    pub fn memory(self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let mib = |name: &str| -> Result<f64> {
            let kib: f64 = field(&status, name)?.trim_end_matches(" kB").parse()?;
            Ok(kib / 1024.0)
        };
        Ok(Memory { now: mib("VmRSS:")?, peak: mib("VmHWM:")? })
    }

    /// Waits until the process has been quiet for [`QUIET`], at most for so long.
    pub async fn quiet(self, within: Duration) -> Result<()> {
        let (start, mut before, mut quiet) = (Instant::now(), self.cpu()?, Duration::ZERO);
        while quiet < QUIET && start.elapsed() < within {
            sleep(SPAN).await;
            let now = self.cpu()?;
            quiet = if now - before <= TICK { quiet + SPAN } else { Duration::ZERO };
            before = now;
        }
        Ok(())
    }
}

/// User and system time. The name of the program, in parentheses, may have spaces.
fn ticks(stat: &str) -> Option<u32> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u32>().ok();
    Some(number(11)? + number(12)?)
}

fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name} in the status of the process"))?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 9 0 1 1 1";
        assert_eq!(ticks(stat), Some(168));
        assert_eq!(ticks("7 (a"), None);
    }
}
