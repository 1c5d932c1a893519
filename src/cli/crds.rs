//! `twinspan crds`: the CustomResourceDefinitions and the API reference, printed or written to files.
//!
//! Owns its flags and the files. Refuses to know the types, which [`crate::api`] has.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::api;
use crate::tools::print::{PrintError, write};
use crate::tools::reference;

/// Print the CustomResourceDefinitions as YAML, for `kubectl apply -f -`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one file for each into this directory instead
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Write the API reference in Markdown to this file instead
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "write")]
    reference: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Print(#[from] PrintError),
    #[error("cannot serialise: {0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("cannot serialise: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Reference(#[from] reference::Error),
}

pub fn run(args: &Args) -> ExitCode {
    match print(args) {
        Ok(()) | Err(Error::Print(PrintError::Closed)) => ExitCode::SUCCESS,
        Err(error) => super::fail::fail(&error),
    }
}

fn print(args: &Args) -> Result<(), Error> {
    if let Some(path) = &args.reference {
        let text = reference::page()?;
        return std::fs::write(path, text).map_err(|source| Error::Write { path: path.clone(), source });
    }
    for (file, crd) in api::crds::all()? {
        let text = serde_yaml::to_string(&crd)?;
        match &args.write {
            Some(dir) => {
                let path = dir.join(file);
                std::fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
            }
            None => write(format!("---\n{text}").as_bytes())?,
        }
    }
    Ok(())
}
