//! The frame of a test program that tells one story inside an [`enclosure`](crate::enclosure).
//!
//! A story takes root and minutes, so it runs with `--ignored` alone. Refuses to know what is told.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::enclosure::{Enclosure, Place};

/// Runs the program: `enter` is called only where the story is asked for.
pub fn run<F>(
    name: &str,
    enter: impl FnOnce() -> Result<Place>,
    tell: impl Fn(Arc<Enclosure>) -> F + Send + 'static,
) -> ExitCode
where
    F: Future<Output = Result<()>>,
{
    frame(name, enter, tell).unwrap_or_else(|error| {
        eprintln!("{name}: {error:#}");
        ExitCode::FAILURE
    })
}

fn frame<F>(
    name: &str,
    enter: impl FnOnce() -> Result<Place>,
    tell: impl Fn(Arc<Enclosure>) -> F + Send + 'static,
) -> Result<ExitCode>
where
    F: Future<Output = Result<()>>,
{
    let arguments = Arguments::from_args();
    let wanted = (arguments.ignored || arguments.include_ignored) && !arguments.list;
    let enclosure = match wanted.then(enter).transpose()? {
        Some(Place::Outside(ended)) => return Ok(ended),
        Some(Place::Inside(enclosure)) => Some(Arc::new(enclosure)),
        None => None,
    };
    let story = Trial::test(name, move || {
        let enclosure = enclosure.clone().ok_or("not inside")?;
        let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
        runtime.block_on(tell(enclosure)).map_err(|error| Failed::from(format!("{error:#}")))
    });
    Ok(libtest_mimic::run(&arguments, vec![story.with_ignored_flag(true)]).exit_code())
}
