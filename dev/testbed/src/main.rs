//! `testbed`: the bed for a person, or around one command.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use twinspan_testbed::{Bed, namespace};

const USAGE: &str = "usage: testbed              start the bed and keep it until Ctrl-C
       testbed -- COMMAND   start it, run COMMAND inside with KUBECONFIG and ETCDCTL_ENDPOINTS set, take it down
       testbed exec COMMAND run COMMAND inside a bed that is up";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        None => up(None),
        Some("--") if args.len() > 1 => up(Some(&args[1..])),
        Some("exec") if args.len() > 1 => exec(&args[1..]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up(command: Option<&[String]>) -> Result<()> {
    if !namespace::is_inside() {
        println!("starting the test bed…");
    }
    namespace::enter(&[])?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let dir = std::env::temp_dir().join(format!("twinspan-testbed-{}", namespace::outer_pid()?));
        let started = std::time::Instant::now();
        let bed = Bed::start(&dir).await?;
        let access = bed.write_access()?;
        match command {
            Some(command) => {
                let status = Command::new(&command[0])
                    .args(&command[1..])
                    .envs(bed.environment())
                    .status()
                    .await
                    .with_context(|| format!("cannot run {}", command[0]))?;
                ensure!(status.success(), "{} ended with {status}", command[0]);
            }
            None => {
                println!("up in {:.1} s; logs in {}", started.elapsed().as_secs_f64(), dir.display());
                println!("in another terminal: dev/testbed/run exec kubectl get ns");
                tokio::signal::ctrl_c().await?;
            }
        }
        std::fs::remove_file(access)?;
        std::fs::remove_dir_all(&dir)?;
        Ok(())
    })
}

fn exec(command: &[String]) -> Result<()> {
    let error = namespace::join("testbed", "dev/testbed/run", command)?;
    Err(error).context("cannot start `nsenter`; it is in the package util-linux")
}
