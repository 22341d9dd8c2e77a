//! The official OpenAI packages for Python and Node, the AI SDK, and Llama Stack's client, against a stack. A machine that cannot have one says so.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use llama_stack_tests::{scripted::MODEL, venv};

use crate::running::{Running, SHIELDED};

/// The first versions that know all that is tested.
const PYTHON_PACKAGE: &str = "openai>=2.8";
const NODE_PACKAGES: [&str; 1] = ["openai@^6"];
/// The last of those that ask under `/v1/openai`; it does not name all that it needs.
const LLAMA_STACK_CLIENT: [&str; 3] = ["llama-stack-client==0.2.12", "fire", "requests"];
const AI_SDK: [&str; 3] = ["ai@^6", "@ai-sdk/openai@^3", "zod@^4"];

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/sdks")
}

/// A transcript with every kind of item.
fn golden() -> PathBuf {
    let snapshots = "services/server/src/openai/responses/tests/snapshots";
    let name = "llama_stack_server__openai__responses__tests__transcripts__every_event.snap";
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(snapshots).join(name)
}

/// Where a package is kept between runs.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
}

/// Makes the folder once: it is whole where it says which package it has.
pub(crate) fn once(folder: &Path, package: &str, make: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let mark = folder.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|had| had == package) {
        return Ok(());
    }
    make()?;
    std::fs::write(mark, package).map_err(|error| error.to_string())
}

fn python() -> Result<PathBuf, String> {
    Ok(venv::programs(&folder("openai-python"), &[PYTHON_PACKAGE])?.join("python"))
}

fn node(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = folder(name);
    run(Command::new("node").arg("--version"))?;
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    once(&folder, &packages.join(" "), || {
        let install = ["install", "--no-audit", "--no-fund", "--silent", "--prefix"];
        run(Command::new("npm").args(install).arg(&folder).args(packages)).map(drop)
    })?;
    Ok(folder)
}

/// Not `eprintln!`, which a test's capture would swallow.
pub(crate) fn skipped(what: &str, why: &str) {
    let line = format!("skipped: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs a script beside a stack, and says what it said.
async fn agrees(manifest: &str, mut script: Command) {
    let stack = Running::start(manifest).await;
    script.args([&stack.url, MODEL]).arg(golden());
    let said = tokio::task::spawn_blocking(move || run(&mut script)).await.unwrap();
    stack.stop().await;
    assert_eq!(said.as_deref().map(str::trim), Ok("agreed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_agrees() {
    match tokio::task::spawn_blocking(python).await.unwrap() {
        Err(why) => skipped("the Python package openai", &why),
        Ok(python) => {
            let mut script = Command::new(&python);
            script.arg(scripts().join("openai_client.py"));
            agrees(SHIELDED, script).await;
            // One after the other, so that the package is installed once.
            let memory = format!("{SHIELDED}  memory:\n    - {{ id: banks, type: inline::sqlite }}\n");
            let mut script = Command::new(&python);
            script.arg(scripts().join("vector_stores.py"));
            agrees(&memory, script).await;
            let mut script = Command::new(python);
            script.arg(scripts().join("batches.py"));
            agrees(SHIELDED, script).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_stacks_older_client_agrees() {
    let programs = || venv::programs(&folder("llama-stack-client"), &LLAMA_STACK_CLIENT);
    match tokio::task::spawn_blocking(programs).await.unwrap() {
        Err(why) => skipped("the Python package llama-stack-client", &why),
        Ok(programs) => {
            let mut script = Command::new(programs.join("python"));
            script.arg(scripts().join("older_client.py"));
            agrees(SHIELDED, script).await;
        }
    }
}

/// Runs a script of Node's beside a stack, with these packages.
async fn node_agrees(what: &str, name: &'static str, packages: &'static [&'static str], script: &str) {
    match tokio::task::spawn_blocking(move || node(name, packages)).await.unwrap() {
        Err(why) => skipped(what, &why),
        Ok(folder) => {
            // Node looks for packages beside the script.
            let copy = folder.join(script);
            std::fs::copy(scripts().join(script), &copy).unwrap();
            let mut command = Command::new("node");
            command.arg(copy);
            agrees(SHIELDED, command).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_package_agrees() {
    node_agrees("the Node package openai", "openai-node", &NODE_PACKAGES, "openai_client.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ai_sdk_agrees() {
    node_agrees("the Node package ai", "ai-node", &AI_SDK, "ai_sdk.mjs").await;
}
