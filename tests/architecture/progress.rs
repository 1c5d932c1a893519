//! The display of the long builds that every developer runs once.
//!
//! Owns what `dev/progress` counts, passes on and remembers, and that `dev/demo/prepare` leaves no build behind.
//! Refuses to build anything: the commands are stubs.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An empty directory for one test.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn progress(cache: &Path, total: &str, script: &str) -> Command {
    let mut command = Command::new(Path::new(ROOT).join("dev/progress"));
    command.args(["a build", total, "bash", "-c", script]).env("TWINSPAN_CACHE", cache);
    command
}

/// The first line that tells how far a build is which waits behind its output.
fn told(total: &str, script: &str) -> String {
    let mut child = progress(&directory("told"), total, &format!("{script}; read -r _"))
        .env("TWINSPAN_PROGRESS_SECONDS", "0.1")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // A build that has only begun has printed nothing yet.
    let line =
        lines.by_ref().map_while(Result::ok).take(100).find(|line| !line.contains(": 0 ") || script == "true").unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    line.rsplit_once(", ").unwrap().0.to_owned()
}

#[test]
fn progress_counts_what_is_compiled_and_nothing_else() {
    let cargo = r"printf '%s\n' '    Updating index' '  Downloaded a v1' '   Compiling a v1' '   Compiling b v1 (/b)' \
        'warning: unused' ' --> b/src/lib.rs:1:1' '  |' 'Compiling is slow' '    Finished dev'";
    assert_eq!(told("5", cargo), "a build: 2 of at most 5 packages compiled");
    let go =
        r"printf '%s\n' 'go: downloading k8s.io/api v1' runtime k8s.io/api/core/v1 '# k8s.io/api' './a.go:1:2: bad'";
    assert_eq!(told("5", go), "a build: 2 of at most 5 packages compiled");
    assert_eq!(told("5", "true"), "a build: 0 of at most 5 packages compiled");
    let fetch = r"printf '%s\n' ' Downloading crates ...' '  Downloaded a v1' 'go: downloading k8s.io/api v1'";
    assert_eq!(told("0", fetch), "a build: 2 downloaded");
}

#[test]
fn progress_passes_on_the_exit_status_and_shows_the_output_of_a_failure() {
    let cache = directory("passed-on");
    let run = |script: &str| progress(&cache, "5", script).output().unwrap();
    assert_eq!(run("printf 'no newline'").status.code(), Some(0));
    assert_eq!(run("echo ended with 3").status.code(), Some(0));
    let failed = run("printf 'no newline'; exit 7");
    assert_eq!(failed.status.code(), Some(7));
    assert!(failed.stderr.ends_with(b"no newline"), "{failed:?}");
}

#[test]
fn progress_remembers_the_time_of_a_build_of_most_packages_alone() {
    let cache = directory("remembered");
    let record = cache.join("times/a-build");
    let remembered = |total: &str, script: &str| {
        std::fs::write(&record, "77\n").unwrap();
        assert!(progress(&cache, total, script).output().unwrap().status.success());
        std::fs::read_to_string(&record).unwrap() == "77\n"
    };
    std::fs::create_dir_all(cache.join("times")).unwrap();
    assert!(remembered("4", "echo '    Finished dev'"));
    assert!(remembered("4", "echo '   Compiling a v1'; echo '   Compiling b v1'"));
    assert!(remembered("0", "echo k8s.io/api"));
    assert!(!remembered("4", "printf '   Compiling %s v1\\n' a b c"));
}

#[test]
fn a_preparation_that_fails_leaves_no_build_behind() {
    let root = directory("prepared");
    let stub = |path: &str, script: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        assert!(Command::new("chmod").arg("+x").arg(&path).status().unwrap().success());
    };
    assert!(Command::new("mkfifo").arg(root.join("begun")).status().unwrap().success());
    stub("dev/demo/prepare", &std::fs::read_to_string(Path::new(ROOT).join("dev/demo/prepare")).unwrap());
    // A long build, whose child has the standard error that the test waits for.
    stub("dev/parts/build", "[ \"$1\" != coredns ] || { echo >begun && sleep 40; }");
    stub("dev/progress", "read -r _ <begun\nexit 9");
    let (end, ended) = mpsc::channel();
    let prepare = root.join("dev/demo/prepare");
    std::thread::spawn(move || end.send(Command::new(prepare).output().unwrap()));
    let output = ended.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("a build runs on"));
    assert_eq!(output.status.code(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
}
