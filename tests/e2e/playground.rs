//! The playground in a headless browser, driven by Playwright. A machine that cannot says so.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    running::{Running, SHIELDED},
    sdks::{folder, once, run, skipped},
};

const PACKAGE: &str = "playwright-core@^1.55";
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

fn console() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/server/console")
}

/// The first browser of `PATH` that Playwright can drive.
fn browser() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
    places.into_iter().find(|place| place.is_file()).ok_or_else(|| format!("none of {} is installed", BROWSERS.join(", ")))
}

/// The script beside the package that it needs, and the browser.
fn tools() -> Result<(PathBuf, PathBuf), String> {
    run(Command::new("node").arg("--version"))?;
    let (folder, browser) = (folder("playwright"), browser()?);
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    once(&folder, PACKAGE, || {
        let install = ["install", "--no-audit", "--no-fund", "--silent", "--prefix"];
        run(Command::new("npm").args(install).arg(&folder).arg(PACKAGE)).map(drop)
    })?;
    let script = folder.join("playground.mjs");
    std::fs::copy(console().join("e2e/playground.mjs"), &script).map_err(|error| error.to_string())?;
    Ok((script, browser))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playground_works_in_a_browser() {
    let (script, browser) = match tokio::task::spawn_blocking(tools).await.unwrap() {
        Ok(tools) => tools,
        Err(why) => return skipped("the playground in a browser", &why),
    };
    let stack = Running::start(&format!("{SHIELDED}  memory:\n    - {{ id: banks, type: inline::sqlite }}\n")).await;
    let mut command = Command::new("node");
    command.arg(script).arg(&stack.url).arg(browser);
    command.args(std::env::var_os("LLAMA_STACK_SCREENSHOTS"));
    let said = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    stack.stop().await;
    if let Err(why) = &said {
        panic!("{why}");
    }
    assert_eq!(said.as_deref().map(str::trim), Ok("agreed"));
}

/// Where the packages that build it are installed: what is committed is what the source builds.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_what_the_source_builds() {
    if !console().join("node_modules/esbuild").is_dir() {
        return skipped("the playground's build", "its packages are not installed; npm ci in services/server/console");
    }
    let mut command = Command::new("node");
    command.arg(console().join("build.mjs")).arg("--check");
    let said = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    assert_eq!(said.as_deref().map(str::trim), Ok("dist is what src builds"));
}
