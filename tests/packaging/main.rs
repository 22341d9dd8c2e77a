//! The scripts and descriptions in `packaging/`, as far as they can be tried without a network, a container or a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bill;
mod files;
mod install;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use llama_stack_tests::venv;

/// The checkout.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Whether it went well, and all that it said.
fn run(command: &mut Command) -> (bool, String) {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            (output.status.success(), said)
        }
        Err(error) => (false, format!("{command:?}: {error}")),
    }
}

/// Not `eprintln!`, which a test's capture would swallow.
fn skipped(what: &str, why: &str) {
    let line = format!("skipped: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The programs of a Python environment with these packages.
fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    venv::programs(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("venv-{name}")), packages)
}
