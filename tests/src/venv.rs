//! Programs that come as Python packages, for tests that want them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The folder of programs of a Python environment that has these packages, `python` among them. It is made once and kept in `folder`.
///
/// # Errors
/// Why there is none: no Python, no registry.
pub fn programs(folder: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    made(folder, &packages.join("\n"), packages)
}

/// The same with the packages of a requirements file.
///
/// # Errors
/// As [`programs`].
pub fn of_requirements(folder: &Path, file: &Path) -> Result<PathBuf, String> {
    let wanted = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    made(folder, &wanted, [OsStr::new("-r"), file.as_os_str()])
}

fn made(folder: &Path, wanted: &str, packages: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<PathBuf, String> {
    let (programs, installed) = (folder.join("bin"), folder.join("installed"));
    if std::fs::read_to_string(&installed).is_ok_and(|had| had == wanted) {
        return Ok(programs);
    }
    let run = |command: &mut Command| match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(programs.join("python")).args(pip).args(packages))?;
    std::fs::write(installed, wanted).map_err(|error| error.to_string())?;
    Ok(programs)
}
