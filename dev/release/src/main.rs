//! `release`: builds a release, verifies it, pushes it, and looks at it in its registry; `make release` does all of it.

// A command prints for the person who runs it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use twinspan_image::repository;
use twinspan_release::signature::Key;
use twinspan_release::{Options, Promise, Registry, VERSION, build, prepare, verify};

#[derive(Parser)]
#[command(version, about = "Builds a release of Twinspan and pushes it into a registry")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask for whatever a release needs, of this machine and of the registry; nothing is compiled
    Prepare {
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        protocol: Protocol,
    },
    /// Write everything that is released into a directory
    Build(Input),
    /// Compare the directory with what it promises: files, images and signatures
    Verify(Directory),
    /// Push the images, the chart and their signatures; again after a failure
    Push(Place),
    /// Compare the registry with what was built
    Check(Place),
}

#[derive(Args)]
struct Input {
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
    #[command(flatten)]
    directory: Directory,
}

#[derive(Args)]
struct Directory {
    /// The directory of the release; without it target/release-VERSION
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Args)]
struct Protocol {
    /// The registry does not speak TLS
    #[arg(long)]
    plain_http: bool,
}

#[derive(Args)]
struct Place {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    protocol: Protocol,
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
        Command::Prepare { input, protocol } => {
            let options = input.options()?;
            if let [only] = &options.architectures[..] {
                eprintln!(
                    "release: AN INDEX OF ONE ARCHITECTURE: {only} alone; machines of another architecture cannot run this version"
                );
            }
            if options.key.is_none() {
                eprintln!("release: NOTHING IS SIGNED: there is no KEY");
            }
            let source = prepare(&options)?;
            Registry::new(&options.registry, protocol.plain_http)?.prepare(&options, &source).await?;
            println!("prepared  {} for {}", source.revision, options.registry);
        }
        Command::Build(input) => {
            let options = input.options()?;
            print(&build(&options)?, &options.directory);
        }
        Command::Verify(directory) => {
            verify(&directory.path()?)?;
            println!("verified  everything that was promised is in the directory");
        }
        Command::Push(place) => {
            let (registry, directory, promise) = place.open()?;
            registry.push(&directory).await?;
            println!("pushed    {} and {}", promise.image.tagged(), promise.chart.tagged());
        }
        Command::Check(place) => {
            let (registry, directory, _) = place.open()?;
            registry.check(&directory).await?;
            println!("checked   everything that was promised is there");
        }
    }
    Ok(())
}

impl Input {
    fn options(self) -> Result<Options> {
        Ok(Options {
            registry: self.registry.trim_end_matches('/').to_owned(),
            architectures: self.arches,
            key: self.key.as_deref().map(Key::load).transpose()?,
            url: self.url,
            directory: self.directory.path()?,
            rehearsal: false,
        })
    }
}

impl Directory {
    fn path(self) -> Result<PathBuf> {
        match self.directory {
            Some(directory) => Ok(directory),
            None => Ok(repository().canonicalize()?.join(format!("target/release-{VERSION}"))),
        }
    }
}

impl Place {
    fn open(self) -> Result<(Registry, PathBuf, Promise)> {
        let directory = self.directory.path()?;
        let promise = Promise::read(&directory)?;
        let registry = Registry::new(&promise.image.repository, self.protocol.plain_http)?;
        Ok((registry, directory, promise))
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
