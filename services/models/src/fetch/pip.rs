//! Wheels by the machine's own `pip`, which knows the mirrors and keys of this network.
//!
//! pip only downloads here: no dependencies, no source distributions (whose build would run their code), nothing is installed.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::process::Command;

use llama_stack_core::{Code, Error, Result};

use super::Meter;
use crate::disk::{self, blocking};

/// How pip may be started here; the first that exists is taken.
#[derive(Clone)]
pub(crate) struct Pip(pub(crate) Vec<&'static [&'static str]>);

impl Default for Pip {
    fn default() -> Self {
        Self(vec![&["python3", "-m", "pip"], &["pip3"], &["pip"]])
    }
}

const ARGUMENTS: [&str; 8] = [
    "download",
    "--no-deps",
    "--only-binary=:all:",
    // Wheels are read, never run: the Python they are for does not matter.
    "--ignore-requires-python",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
    "--quiet",
];

/// Between two looks at how much pip has brought.
const LOOK: Duration = Duration::from_millis(250);

impl Pip {
    /// The wheel of `package==version`, in `dir`, which is this download's own. `before` is what the meter shows already.
    pub(super) async fn download(&self, package: &str, version: &str, dir: &Path, meter: &Meter, before: u64) -> Result<PathBuf> {
        let (work, wheels) = (dir.join("work"), dir.join("wheel"));
        for folder in [&work, &wheels] {
            std::fs::create_dir_all(folder).map_err(|cause| disk::error(folder, cause))?;
        }
        for command in &self.0 {
            let Some(output) = run(command, package, version, &work, &wheels, meter, before).await? else { continue };
            let errors = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return blocking(move || only_wheel(&wheels)).await;
            }
            if !errors.contains("No module named pip") {
                return Err(said(package, version, &errors));
            }
        }
        let tried: Vec<String> = self.0.iter().map(|command| format!("`{}`", command.join(" "))).collect();
        let message = format!("pypi:// needs Python's pip, and this machine has none (tried {})", tried.join(", "));
        Err(Error::failed_precondition(message).with_reason("pip_missing"))
    }
}

/// `None` if there is no such program. Dropping the future ends the process.
async fn run(
    command: &[&str],
    package: &str,
    version: &str,
    work: &Path,
    wheels: &Path,
    meter: &Meter,
    before: u64,
) -> Result<Option<Output>> {
    let [program, first @ ..] = command else { return Ok(None) };
    let started = Command::new(program)
        .args(first)
        .args(ARGUMENTS)
        .arg("--dest")
        .arg(wheels)
        .arg(format!("{package}=={version}"))
        // Python looks for modules in the working folder first: an empty one. pip writes to the store's disk, not to /tmp.
        .current_dir(work)
        .env("TMPDIR", work)
        .env("TEMP", work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let child = match started {
        Ok(child) => child,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::failed_precondition(format!("{program} cannot be started")).with_source(cause)),
    };
    let mut ended = std::pin::pin!(child.wait_with_output());
    loop {
        match tokio::time::timeout(LOOK, &mut ended).await {
            Ok(output) => return output.map(Some).map_err(|cause| Error::internal("pip was lost").with_source(cause)),
            Err(_) => {
                let (work, wheels) = (work.to_owned(), wheels.to_owned());
                let bytes = blocking(move || Ok(bytes_below(&work, 0).max(bytes_below(&wheels, 0)))).await?;
                meter.at(before + bytes);
            }
        }
    }
}

fn bytes_below(dir: &Path, depth: usize) -> u64 {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && depth < 8 => bytes_below(&entry.path(), depth + 1),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    });
    bytes.sum()
}

fn only_wheel(dir: &Path) -> Result<PathBuf> {
    let entries = dir.read_dir().map_err(|cause| disk::error(dir, cause))?;
    let mut wheels = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "whl"));
    wheels.next().ok_or_else(|| Error::unavailable("pip brought no wheel"))
}

/// What pip's complaint means. Its full text goes to the log only: it may name private indexes.
fn said(package: &str, version: &str, errors: &str) -> Error {
    let any = |texts: &[&str]| texts.iter().any(|text| errors.contains(text));
    let error = if any(&["No space left", "Errno 28", "Disk quota"]) {
        Error::new(Code::ResourceExhausted, "the disk is full").with_reason(disk::DISK_FULL)
    } else if any(&["NewConnectionError", "Temporary failure in name resolution", "Max retries exceeded", "ReadTimeoutError"]) {
        Error::unavailable("pip cannot reach the package index")
    } else if any(&["No matching distribution found", "Could not find a version"]) {
        let there = versions(errors).map(|versions| format!(" (it has: {versions})")).unwrap_or_default();
        Error::not_found(format!("the package index has no wheel {package}=={version}{there}")).with_reason("package_missing")
    } else {
        Error::unavailable(format!("pip could not download {package}=={version}"))
    };
    error.with_source(errors.trim().to_owned())
}

/// Of `(from versions: 0.1, 0.2)`.
fn versions(errors: &str) -> Option<&str> {
    let (_, rest) = errors.split_once("(from versions: ")?;
    rest.split_once(')').map(|(versions, _)| versions).filter(|versions| *versions != "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_says_becomes_a_sentence() {
        let missing = said("p", "9", "ERROR: Could not find a version that satisfies the requirement p==9 (from versions: 0.1, 0.2)\n");
        assert_eq!((missing.code(), missing.message()), (Code::NotFound, "the package index has no wheel p==9 (it has: 0.1, 0.2)"));
        let full = said("p", "9", "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device");
        assert_eq!(full.reason(), Some(disk::DISK_FULL));
        let offline = said("p", "9", "WARNING: Retrying … NewConnectionError …\nERROR: No matching distribution found for p==9");
        assert_eq!(offline.code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn without_pip_it_says_what_was_tried() {
        let pip = Pip(vec![&["no-such-python", "-m", "pip"], &["no-such-pip"]]);
        let dir = tempfile::tempdir().unwrap();
        let on_progress: llama_stack_core::registry::OnProgress = std::sync::Arc::new(|_| {});
        let meter = Meter::new("m", &on_progress);
        let error = pip.download("p", "1", dir.path(), &meter, 0).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("pip_missing")));
        assert!(error.message().contains("`no-such-python -m pip`, `no-such-pip`"));
    }
}
