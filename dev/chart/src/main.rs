//! `chart`: writes all generated parts of the chart and the manifests.

use std::process::ExitCode;

use anyhow::{Context, Result};
use twinspan_chart::helm::Helm;
use twinspan_chart::{Generated, files, manifest};

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<()> {
    files()?.iter().try_for_each(put)?;
    // The manifests are rendered from the files that were just written.
    let helm = Helm::find()?;
    put(&manifest::plain(&helm)?)?;
    put(&manifest::discovery(&helm)?)?;
    put(&manifest::rollouts(&helm)?)
}

fn put(file: &Generated) -> Result<()> {
    std::fs::write(&file.path, &file.text).with_context(|| format!("cannot write {}", file.path.display()))
}
