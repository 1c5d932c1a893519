//! `image`: Twinspan's own image as an archive, or its files as a directory for `docker build`.

// A command prints for the person who runs it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use twinspan_image::binary::{self, Source};
use twinspan_image::repository;
use twinspan_image::twinspan::{self, Built};

const USAGE: &str = "usage: image archive [NAME]   build the program and write target/image/twinspan.tar
       image root DIRECTORY   build the program and write the files of the image there";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["archive"] => archive(&twinspan::default_name()),
        ["archive", name] => archive(name),
        ["root", directory] => root(Path::new(directory)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn archive(name: &str) -> Result<()> {
    let Built { image, sbom, .. } = build(name)?;
    let directory = repository().canonicalize()?.join("target/image");
    std::fs::create_dir_all(&directory)?;
    let archive = directory.join("twinspan.tar");
    let written = image.write(&archive)?;
    let bill = directory.join("twinspan.spdx.json");
    std::fs::write(&bill, serde_json::to_vec_pretty(&sbom)?).context("cannot write the bill of materials")?;
    println!("image     {} for linux/{}", image.name, image.architecture);
    println!("manifest  {}", written.manifest);
    println!("config    {}", written.config);
    println!("archive   {} ({:.1} MB)", archive.display(), written.size as f64 / 1e6);
    println!("contents  {}", bill.display());
    Ok(())
}

fn root(directory: &Path) -> Result<()> {
    build(&twinspan::default_name())?.image.root.write(directory)
}

/// For this machine.
fn build(name: &str) -> Result<Built> {
    twinspan::build(name, &binary::target()?, &Source::find()?)
}
