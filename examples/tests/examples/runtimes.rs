//! The runtimes of the examples, with their packages: made once, and kept between runs.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The folder of the examples.
pub fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with the packages of `requirements-frameworks.txt`, or why there is none.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let folder = kept("venv-examples");
        let python = folder.join("bin/python");
        let requirements = examples().join("python/requirements-frameworks.txt");
        once(&folder, &[&requirements, &examples().join("python/requirements.txt")], || {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements)).map(drop)
        })?;
        Ok(python)
    });
    PYTHON.clone().inspect_err(|why| skipped("Python", why))
}

/// A copy of the TypeScript examples with their packages, or why there is none.
pub fn typescript() -> Result<PathBuf, String> {
    static NODE: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        run(Command::new("node").arg("--version"))?;
        let (folder, from) = (kept("typescript-examples"), examples().join("typescript"));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let described = ["package.json", "package-lock.json", ".npmrc"].map(|name| from.join(name));
        once(&folder, &described.each_ref().map(PathBuf::as_path), || {
            for file in &described {
                std::fs::copy(file, folder.join(file.file_name().unwrap_or_default())).map_err(|error| error.to_string())?;
            }
            run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(&folder)).map(drop)
        })?;
        Ok(folder.join("node_modules"))
    });
    NODE.clone().inspect_err(|why| skipped("TypeScript", why))
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Makes the folder once: it is whole where it says what it was made of.
fn once(folder: &Path, described: &[&Path], make: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let mark = folder.join("made-of");
    let wanted: String = described.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    if std::fs::read_to_string(&mark).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    make()?;
    std::fs::write(mark, wanted).map_err(|error| error.to_string())
}

/// Runs to the end: what it said, or what it complained of.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
}

/// Runs to the end with these lines on standard input.
pub fn run_with(command: &mut Command, lines: &[&str]) -> Result<String, String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let mut input = child.stdin.take().unwrap();
    // A program that ends early says why; that nobody reads is not what is wrong.
    let _ = input.write_all((lines.join("\n") + "\n").as_bytes());
    drop(input);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
}

/// Not `eprintln!`, which a test's capture would swallow.
fn skipped(runtime: &str, why: &str) {
    let line = format!("skipped: the {runtime} examples: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
