//! Outside: the keys and the release, and what can be said of its files alone.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use twinspan_image::binary;
use twinspan_node::images;
use twinspan_release::signature::Key;
use twinspan_release::{Options, Promise, archive};
use twinspan_testbed::namespace::build;

use crate::directory;

const PASSWORD: &str = "of a key that lives for one test";
/// The key that signs, and one that does not.
pub const KEYS: [&str; 2] = ["signing", "strange"];

/// The file of a key, public or not (`key`, `pub`).
pub fn key(name: &str, kind: &str) -> Result<PathBuf> {
    Ok(directory()?.with_extension("keys").join(format!("{name}.{kind}")))
}

/// Builds the release twice, the second time from the same programs, which has to give the same bytes.
pub fn prepare() -> Result<()> {
    let host = binary::architecture(&binary::target()?)?.to_owned();
    let architectures: Vec<String> = match std::env::var("ARCHES") {
        Ok(given) => given.split_whitespace().map(ToOwned::to_owned).collect(),
        Err(_) => vec![host.clone()],
    };
    let keys = directory()?.with_extension("keys");
    std::fs::create_dir_all(&keys)?;
    for key in KEYS {
        let made = Command::new(build("cosign")?)
            .args(["generate-key-pair", key])
            .current_dir(&keys)
            .env(twinspan_release::signature::PASSWORD, PASSWORD)
            .status()?;
        ensure!(made.success(), "cosign makes no key: {made}");
    }
    let sealed = std::fs::read_to_string(key("signing", "key")?)?;
    let make = |directory: PathBuf| {
        twinspan_release::build(&Options {
            registry: format!("{}/twinspan", images()),
            architectures: architectures.clone(),
            key: Some(Key::open(&sealed, PASSWORD)?),
            url: Some("https://example.com/releases".to_owned()),
            directory,
            rehearsal: true,
        })
    };
    let (first, second) = (directory()?, directory()?.with_extension("again"));
    let promise = make(first.clone())?;
    ensure!(make(second.clone())? == promise, "the same programs gave two releases");
    for file in &promise.files {
        ensure!(std::fs::read(first.join(file))? == std::fs::read(second.join(file))?, "two builds differ in {file}");
    }
    std::fs::remove_dir_all(second)?;
    for architecture in &architectures {
        answers(&first, &promise, architecture, *architecture == host).with_context(|| architecture.clone())?;
    }
    Ok(())
}

/// The program of an archive says its version; that of another architecture says it in an emulator.
fn answers(directory: &Path, promise: &Promise, architecture: &str, here: bool) -> Result<()> {
    let unpacked = directory.with_extension("program");
    std::fs::write(&unpacked, archive::program(&std::fs::read(directory.join(archive::name(architecture)))?)?)?;
    std::fs::set_permissions(&unpacked, Permissions::from_mode(0o755))?;
    let said = if here {
        Command::new(&unpacked).arg("--version").output()?
    } else {
        Command::new(emulator(architecture)?).arg(&unpacked).arg("--version").output()?
    };
    let text = String::from_utf8(said.stdout)?;
    ensure!(
        said.status.success() && text.contains(&promise.version),
        "`twinspan --version` says '{text}' and ends with {}",
        said.status
    );
    std::fs::remove_file(unpacked)?;
    Ok(())
}

/// qemu's emulator, from Debian's package `qemu-user` or `qemu-user-static`.
fn emulator(architecture: &str) -> Result<String> {
    let machine = if architecture == "arm64" { "aarch64" } else { "x86_64" };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut names = [format!("qemu-{machine}"), format!("qemu-{machine}-static")].into_iter();
    let found = names.find(|name| places.iter().any(|place| place.join(name).exists()));
    found.with_context(|| format!("no emulator of {machine}; run `make setup-release`"))
}
