//! The wizard in a real pseudo-terminal: what someone sees who presses keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{path::Path, process::Command};

use support::{call, repository};

/// Runs the program in a pseudo-terminal, and answers each prompt once it is seen: pairs of what to wait for and what to type.
fn session(home: &Path, arguments: &[&str], script: &[(&str, &str)]) -> std::io::Result<(i32, String)> {
    let pairs: Vec<&str> = script.iter().flat_map(|(wait, keys)| [*wait, *keys]).collect();
    let output = Command::new("python3")
        .arg(repository().join("stack-cli/tests/terminal.py"))
        .arg(env!("CARGO_BIN_EXE_llama-stack"))
        .arg(arguments.len().to_string())
        .args(arguments)
        .args(pairs)
        .env("LLAMA_STACK_HOME", home)
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .env_remove("OPENAI_BASE_URL")
        .output()?;
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
}

const ENTER: &str = "\r";
const DOWN: &str = "\x1b[B";

#[test]
fn the_wizard_asks_and_writes_a_manifest_that_check_accepts() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine.yaml");
    let path = path.to_str().unwrap();
    let to_remote = format!("{DOWN}{DOWN}{ENTER}");
    let script = [
        ("Name of the distribution", "mine\r"),
        ("Where do models run", to_remote.as_str()),
        ("Its address", "http://127.0.0.1:9/v1\r"),
        ("Environment variable", ENTER),
        ("Port", ENTER),
        ("Banks of documents", "y\r"),
        ("Shields", " \r"),
        ("Tools for agents", ENTER),
    ];
    let Ok((code, screen)) = session(home.path(), &["distribution", "init", path], &script)
        .inspect_err(|why| eprintln!("skipped: the pseudo-terminal wants python3: {why}"))
    else {
        return;
    };
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("is written"), "{screen}");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("remote::openai") && text.contains("http://127.0.0.1:9/v1") && text.contains("inline::pii"), "{text}");
    let check = call(home.path(), &["distribution", "check", path]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
}

#[test]
fn a_wrong_answer_is_asked_again_and_escape_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine.yaml");
    let script = [("Name of the distribution", "My Stack\r"), ("a-z, 0-9", "\x1b")];
    let Ok((code, screen)) = session(home.path(), &["distribution", "init", path.to_str().unwrap()], &script)
        .inspect_err(|why| eprintln!("skipped: the pseudo-terminal wants python3: {why}"))
    else {
        return;
    };
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("nothing was written"), "{screen}");
    assert!(!path.exists());
}

#[test]
fn colours_are_for_terminals_of_those_who_want_them() {
    let home = tempfile::tempdir().unwrap();
    let Ok((_, screen)) =
        session(home.path(), &["doctor", "remote"], &[]).inspect_err(|why| eprintln!("skipped: the pseudo-terminal wants python3: {why}"))
    else {
        return;
    };
    assert!(screen.contains("\u{1b}[31mfail"), "{screen:?}");
    assert!(!call(home.path(), &["doctor", "remote"]).out.contains('\u{1b}'));
}
