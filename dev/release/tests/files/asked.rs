//! The input of a release by `make` and by the workflow: architectures, and the toolchain.

use std::process::Command;

use twinspan_image::repository;

/// The recipes of `make release-build`, without running them.
fn recipes(environment: Option<&str>, argument: Option<&str>) -> String {
    let mut make = Command::new("make");
    make.args(["--dry-run", "--no-print-directory", "release-build", "REGISTRY=registry.example.com/team"]);
    // Of a make that runs this test.
    for name in ["ARCHES", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(name);
    }
    make.args(argument).envs(environment.map(|it| ("ARCHES", it))).current_dir(repository());
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_index_of_one_architecture_is_asked_for_on_the_command_line_alone() {
    assert!(recipes(None, None).contains("--arches amd64 arm64"));
    let ignored = recipes(Some("amd64"), None);
    assert!(ignored.contains("--arches amd64 arm64") && ignored.contains("is ignored"), "{ignored}");
    let one = recipes(Some("amd64"), Some("ARCHES=arm64"));
    assert!(one.contains("--arches arm64 "), "{one}");
}

#[test]
fn another_architecture_than_this_machines_needs_a_compiler_and_none_needs_go() {
    let (here, there) = if cfg!(target_arch = "x86_64") { ("amd64", "arm64") } else { ("arm64", "amd64") };
    assert!(!recipes(None, Some(&format!("ARCHES={here}"))).contains("dev/setup release"));
    let all = recipes(None, Some(&format!("ARCHES={there}")));
    assert!(all.contains("dev/setup release") && !all.lines().any(|line| line == "dev/setup"), "{all}");
}

#[test]
fn the_workflow_has_the_toolchain_of_the_dockerfile() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (dockerfile, workflow) = (read("Dockerfile"), read(".github/workflows/release.yml"));
    let rust = dockerfile.lines().find_map(|line| line.strip_prefix("ARG RUST=")).unwrap();
    assert!(workflow.contains(&format!("RUSTUP_TOOLCHAIN: \"{rust}.")), "{rust} is not in the workflow");
    assert!(!workflow.contains("setup-go"));
}
