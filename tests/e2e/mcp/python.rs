use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// The packages that these tests need.
const PACKAGES: &str = "mcp==2.3.0";

/// A Python with the SDK, or why there is none. Made once, whichever test asks first.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(make);
    PYTHON.clone()
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/mcp").join(name)
}

fn make() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-mcp");
    let (python, installed) = (folder.join("bin/python"), folder.join("installed"));
    if std::fs::read_to_string(&installed).is_ok_and(|had| had == PACKAGES) {
        return Ok(python);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGES]))?;
    std::fs::write(installed, PACKAGES).unwrap();
    Ok(python)
}
