//! Tells the program what it was built with, for `version --json`.

#![allow(clippy::print_stdout, reason = "this is how cargo is told")]

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LLAMA_STACK_COMMIT");
    let of_cargo = |name: &str| env::var(name).unwrap_or_else(|_| "unknown".into());
    let said = Command::new(of_cargo("RUSTC")).arg("--version").output();
    let rustc = said.ok().and_then(|said| String::from_utf8(said.stdout).ok()).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=LLAMA_STACK_BUILD_TARGET={}", of_cargo("TARGET"));
    println!("cargo:rustc-env=LLAMA_STACK_BUILD_PROFILE={}", of_cargo("PROFILE"));
    println!("cargo:rustc-env=LLAMA_STACK_BUILD_OPT_LEVEL={}", of_cargo("OPT_LEVEL"));
    println!("cargo:rustc-env=LLAMA_STACK_BUILD_RUSTC={}", rustc.trim());
}
