//! Builds the program of the image: one static file. Owns the flags, the toolchain and the source revision of that
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
    /// The commit, with `-dirty` if files differ from it, or are there that git neither knows nor ignores.
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
            None => revision(repository())
                .context("TWINSPAN_REVISION and SOURCE_DATE_EPOCH say what is built where there is no git")?,
        };
        let created = match given("SOURCE_DATE_EPOCH") {
            Some(seconds) => seconds.parse().with_context(|| format!("'{seconds}' is not a number of seconds"))?,
            None => time(repository())?,
        };
        Ok(Self { revision, created })
    }

    /// From git alone, for the working tree at this place.
    pub fn of_commit(at: &Path) -> Result<Self> {
        Ok(Self { revision: revision(at)?, created: time(at)? })
    }
}

/// A new file counts: cargo reads some by their names alone, such as `build.rs` and `.cargo/config.toml`.
fn revision(at: &Path) -> Result<String> {
    let commit = output_at(at, "git", &["rev-parse", "HEAD"])?;
    let clean = output_at(at, "git", &["status", "--porcelain"])?.is_empty();
    Ok(if clean { commit } else { format!("{commit}-dirty") })
}

fn time(at: &Path) -> Result<u64> {
    let seconds = output_at(at, "git", &["log", "-1", "--format=%ct"])?;
    seconds.parse().with_context(|| format!("'{seconds}' is not a number of seconds"))
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

/// Fails, and says why, unless static programs for the target can be built here. Rust's libraries are fetched if need
/// be. Nothing of the program is compiled.
pub fn prepare(target: &str) -> Result<()> {
    let libraries = PathBuf::from(output("rustc", &["--print=target-libdir", "--target", target])?);
    if !libraries.exists() {
        let missing = || format!("Rust's libraries for {target} are missing");
        output("rustup", &["target", "add", target]).with_context(missing)?;
        ensure!(libraries.exists(), "{} after `rustup target add {target}`: rustc is not rustup's", missing());
    }
    let glibc =
        glibc(target).with_context(|| format!("no C compiler and C library for {target}; run `make setup-release`"))?;
    resolving(&glibc)?;
    static_link(target).with_context(|| format!("no static C library for {target}; run `make setup-release`"))?;
    path(&home()?)?;
    Ok(())
}

/// Links a program that does nothing.
fn static_link(target: &str) -> Result<()> {
    let directory = repository().join("target/link");
    std::fs::create_dir_all(&directory)?;
    let source = directory.join("nothing.c");
    std::fs::write(&source, "int main(void) { return 0; }\n")?;
    let program = directory.join(target);
    let compiler = compiler(target)?;
    let linked = Command::new(&compiler).arg("-static").arg("-o").arg(&program).arg(&source).output();
    let linked = linked.with_context(|| format!("cannot run {compiler}"))?;
    ensure!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr).trim());
    Ok(())
}

fn home() -> Result<String> {
    std::env::var("HOME").context("HOME is not set")
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

fn resolving(glibc: &str) -> Result<()> {
    ensure!(
        resolves_alone(glibc),
        "a static program could not resolve names with glibc {glibc}; build with 2.34 or newer, e.g. on Debian 12"
    );
    Ok(())
}

/// The variable with the profile of a build.
pub const PROFILE: &str = "TWINSPAN_IMAGE_PROFILE";

/// Builds the program, which says of what source it is, and returns its path. The profile is `release`, unless
/// `TWINSPAN_IMAGE_PROFILE` names another one of the workspace, such as `node`, which compiles in a third of the time.
///
/// The result is in `target` of the repository, whatever `CARGO_TARGET_DIR` says: all of `make` looks there.
///
/// `cargo auditable` puts the list of crates into the program, where scanners look for it.
pub fn build(target: &str, source: &Source) -> Result<PathBuf> {
    resolving(&glibc(target)?)?;
    let root = repository().canonicalize()?;
    let home = home()?;
    let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    // Panic messages name source files; they must not differ between two checkouts or machines.
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={cargo_home}=/cargo"),
        format!("--remap-path-prefix={}=/twinspan", root.display()),
    ];
    let profile = std::env::var(PROFILE).unwrap_or_else(|_| "release".to_owned());
    let directory = root.join("target");
    let mut command = Command::new("cargo");
    command
        .args(["auditable", "build", "--profile", &profile, "--locked", "--package=twinspan", "--bin=twinspan"])
        // With an explicit target the flags apply to the program alone, not to build scripts and macros.
        .args(["--target", target])
        .env("PATH", path(&home)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", &directory)
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
    output_at(repository(), program, args)
}

fn output_at(directory: &Path, program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
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

    #[test]
    fn a_new_file_makes_a_commit_dirty_unless_git_ignores_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let git = |args: &[&str]| output_at(at, "git", args).unwrap();
        git(&["init", "--quiet"]);
        std::fs::write(at.join(".gitignore"), "ignored\n").unwrap();
        git(&["add", ".gitignore"]);
        git(&["-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "--quiet", "--message=m"]);
        std::fs::write(at.join("ignored"), "").unwrap();
        let clean = Source::of_commit(at).unwrap();
        assert!(!clean.revision.ends_with("-dirty") && clean.created > 0, "{clean:?}");
        std::fs::write(at.join("build.rs"), "").unwrap();
        assert_eq!(Source::of_commit(at).unwrap().revision, format!("{}-dirty", clean.revision));
    }

    #[test]
    fn what_is_missing_for_a_target_is_named() {
        static_link(&target().unwrap()).unwrap();
        let error = static_link("sparc64-unknown-linux-gnu").unwrap_err();
        assert!(error.to_string().contains("sparc64-linux-gnu-gcc"), "{error:#}");
    }
}
