//! Builds the program of the image: one static file. It owns the flags, the toolchain and the source revision of that
//! build.
//!
//! `docs/decisions/0021-static-image.md` says why the build is static, and how names are resolved then.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repository;

/// The source of the build, from variables or from git.
#[derive(Clone, Debug)]
pub struct Source {
    /// The commit, with `-dirty` if files differ from it.
    pub revision: String,
    /// Seconds since 1970 of the commit, or `SOURCE_DATE_EPOCH`.
    pub created: u64,
}

impl Source {
    /// From `TWINSPAN_REVISION` and `SOURCE_DATE_EPOCH` if they are set, as in a container without git, else from git.
    pub fn find() -> Result<Self> {
        let given = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let revision = match given("TWINSPAN_REVISION") {
            Some(revision) => revision,
            None => {
                let commit = output("git", &["rev-parse", "HEAD"])
                    .context("TWINSPAN_REVISION and SOURCE_DATE_EPOCH say what is built where there is no git")?;
                let dirty = !output("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
                if dirty { format!("{commit}-dirty") } else { commit }
            }
        };
        let created = match given("SOURCE_DATE_EPOCH") {
            Some(seconds) => seconds,
            None => output("git", &["log", "-1", "--format=%ct"])?,
        };
        let created = created.parse().with_context(|| format!("'{created}' is not a number of seconds"))?;
        Ok(Self { revision, created })
    }
}

/// The Rust target of this machine: the only one that is certainly installed.
pub fn target() -> Result<String> {
    let version = output("rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The architecture of a Rust target in the words of container tools.
pub fn architecture(target: &str) -> Result<&'static str> {
    match target.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => anyhow::bail!("no image is made for {target}"),
    }
}

/// The Rust target of an architecture in the words of container tools.
pub fn target_of(architecture: &str) -> Result<&'static str> {
    match architecture {
        "amd64" => Ok("x86_64-unknown-linux-gnu"),
        "arm64" => Ok("aarch64-unknown-linux-gnu"),
        _ => anyhow::bail!("nothing is made for {architecture}; amd64 and arm64 are known"),
    }
}

/// Fails, and says why, unless programs for the target can be built here. Rust's libraries are fetched if need be.
pub fn prepare(target: &str) -> Result<()> {
    let libraries = PathBuf::from(output("rustc", &["--print=target-libdir", "--target", target])?);
    if !libraries.exists() {
        // Without rustup, or without a network, the libraries are still missing.
        let _ = Command::new("rustup").args(["target", "add", target]).current_dir(repository()).status();
        ensure!(
            libraries.exists(),
            "Rust's libraries for {target} are missing, and `rustup target add {target}` did not fetch them"
        );
    }
    glibc(target).with_context(|| format!("no C compiler and C library for {target}; run `make setup-release`"))?;
    Ok(())
}

/// The C compiler for a target: it links the program, and knows the C library.
pub(crate) fn compiler(target: &str) -> Result<String> {
    Ok(if target == self::target()? { "cc".to_owned() } else { format!("{}-gcc", target.replace("-unknown", "")) })
}

/// The version of the C library that is linked in.
pub(crate) fn glibc(target: &str) -> Result<String> {
    let macros = output(&compiler(target)?, &["-E", "-dM", "-include", "features.h", "-x", "c", "/dev/null"])?;
    let value = |name: &str| {
        let found =
            macros.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)?.strip_prefix(' '));
        found.with_context(|| format!("the C library for {target} is not glibc"))
    };
    Ok(format!("{}.{}", value("__GLIBC__")?, value("__GLIBC_MINOR__")?))
}

/// True if the C library resolves names without further libraries.
fn resolves_alone(glibc: &str) -> bool {
    let mut numbers = glibc.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(34))
}

/// Builds the program, which says of what source it is, and returns its path. The profile is `release`, unless
/// `TWINSPAN_IMAGE_PROFILE` names another one of the workspace, such as `node`, which compiles in a third of the time.
///
/// `cargo auditable` puts the list of crates into the program, where scanners look for it.
pub fn build(target: &str, source: &Source) -> Result<PathBuf> {
    let glibc = glibc(target)?;
    ensure!(
        resolves_alone(&glibc),
        "a static program could not resolve names with glibc {glibc}; build with 2.34 or newer, e.g. on Debian 12"
    );
    let root = repository().canonicalize()?;
    let home = std::env::var("HOME").context("HOME is not set")?;
    let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    // Panic messages name source files; they must not differ between two checkouts or machines.
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={cargo_home}=/cargo"),
        format!("--remap-path-prefix={}=/twinspan", root.display()),
    ];
    let profile = std::env::var("TWINSPAN_IMAGE_PROFILE").unwrap_or_else(|_| "release".to_owned());
    let mut command = Command::new("cargo");
    command
        .args(["auditable", "build", "--profile", &profile, "--locked", "--package=twinspan", "--bin=twinspan"])
        // With an explicit target the flags apply to the program alone, not to build scripts and macros.
        .args(["--target", target])
        .env("PATH", path(&home)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("TWINSPAN_REVISION", &source.revision)
        .env("SOURCE_DATE_EPOCH", source.created.to_string())
        .current_dir(&root);
    // `cargo run` and `cargo test` set them for their own program. Build scripts that look at them would run anew for
    // each caller, and everything above them would be compiled anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    if target != self::target()? {
        let compiler = compiler(target)?;
        command
            .env(format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")), &compiler)
            .env(format!("CC_{}", target.replace('-', "_")), &compiler);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo auditable build ended with {status}");
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(directory.join(target).join(profile).join("twinspan"))
}

/// The search path with the tools that `make` keeps in its cache; fails if `cargo auditable` is in none of its places.
fn path(home: &str) -> Result<OsString> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = given("XDG_CACHE_HOME").unwrap_or_else(|| Path::new(home).join(".cache"));
    let cache = given("TWINSPAN_CACHE").unwrap_or_else(|| caches.join("twinspan"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).chain([cache.join("tools/bin")]).collect();
    ensure!(
        places.iter().any(|place| place.join("cargo-auditable").exists()),
        "cargo-auditable is missing; run `make auditable`"
    );
    Ok(std::env::join_paths(places)?)
}

/// The output of a program, run in the repository.
pub fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(repository())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), errors.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_glibc_is_refused() {
        assert!(["2.34", "2.36", "2.100", "3.0"].into_iter().all(resolves_alone));
        assert!(!["2.33", "2.9", "1.99", "", "unknown"].into_iter().any(resolves_alone));
    }
}
