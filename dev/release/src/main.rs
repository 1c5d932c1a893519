//! `release`: builds a release, pushes it, and looks at it in its registry; `make release` does all three.

// A command prints for the person who runs it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use twinspan_image::repository;
use twinspan_release::signature::Key;
use twinspan_release::{Options, Promise, Registry, VERSION, build};

#[derive(Parser)]
#[command(version, about = "Builds a release of Twinspan and pushes it into a registry")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write everything that is released into a directory
    Build(Build),
    /// Push the images, the chart and their signatures
    Push(Place),
    /// Compare the registry with what was built
    Check(Place),
}

#[derive(Args)]
struct Build {
    /// Where the images and the chart will be: host/path
    #[arg(long)]
    registry: String,
    /// The architectures: amd64, arm64 or both
    #[arg(long, required = true, num_args = 1..)]
    arches: Vec<String>,
    /// A private key of `cosign generate-key-pair`; its password is in COSIGN_PASSWORD
    #[arg(long)]
    key: Option<PathBuf>,
    /// Where the archives will be, for the manifest of krew: https://…
    #[arg(long)]
    url: Option<String>,
    /// The directory to write; without it target/release-VERSION
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Args)]
struct Place {
    /// The directory that was built; without it target/release-VERSION
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The registry does not speak TLS
    #[arg(long)]
    plain_http: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("release: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command) -> Result<()> {
    match command {
        Command::Build(Build { registry, arches, key, url, directory }) => {
            let directory = or_default(directory)?;
            let options = Options {
                registry: registry.trim_end_matches('/').to_owned(),
                architectures: arches,
                key: key.as_deref().map(Key::load).transpose()?,
                url,
                directory: directory.clone(),
                dirty: false,
            };
            print(&build(&options)?, &directory);
            Ok(())
        }
        Command::Push(Place { directory, plain_http }) => {
            let directory = or_default(directory)?;
            let promise = Promise::read(&directory)?;
            Registry::new(&promise.image.repository, plain_http)?.push(&directory).await?;
            println!("pushed    {} and {}", promise.image.tagged(), promise.chart.tagged());
            Ok(())
        }
        Command::Check(Place { directory, plain_http }) => {
            let directory = or_default(directory)?;
            let promise = Promise::read(&directory)?;
            Registry::new(&promise.image.repository, plain_http)?.check(&directory).await?;
            println!("checked   everything that was promised is there");
            Ok(())
        }
    }
}

fn or_default(directory: Option<PathBuf>) -> Result<PathBuf> {
    match directory {
        Some(directory) => Ok(directory),
        None => Ok(repository().canonicalize()?.join(format!("target/release-{VERSION}"))),
    }
}

fn print(promise: &Promise, directory: &Path) {
    println!("revision  {}", promise.revision);
    println!("image     {}@{}", promise.image.tagged(), promise.image.digest);
    for (architecture, platform) in &promise.image.platforms {
        println!("          linux/{architecture} {}", platform.manifest);
    }
    println!("chart     oci://{} {}", promise.chart.repository, promise.chart.tag);
    println!("          {}", promise.chart.digest);
    println!("signed    {}", if promise.signed { "yes" } else { "no: there was no key" });
    println!("files     {}", directory.display());
    for file in &promise.files {
        println!("          {file}");
    }
}
