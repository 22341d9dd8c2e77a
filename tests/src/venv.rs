//! Programs that come as Python packages, for tests that want them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The folder of programs of a Python environment that has these packages. It is made once and kept in `folder`.
///
/// # Errors
/// Why there is none: no Python, no registry.
pub fn programs(folder: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    let (programs, installed, wanted) = (folder.join("bin"), folder.join("installed"), packages.join("\n"));
    if std::fs::read_to_string(&installed).is_ok_and(|had| had == wanted) {
        return Ok(programs);
    }
    let run = |command: &mut Command| match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    run(Command::new(programs.join("pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    std::fs::write(installed, wanted).map_err(|error| error.to_string())?;
    Ok(programs)
}
