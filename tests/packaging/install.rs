//! `install.sh`, run in an empty folder with a program that stands for the binary.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{repository, run};

/// An unpacked archive whose program says its version, or ends at once.
fn archive(works: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(repository().join("packaging/install.sh"), folder.path().join("install.sh")).unwrap();
    let program = folder.path().join("llama-stack");
    std::fs::write(&program, if works { "#!/bin/sh\necho llama-stack 9.9.9\n" } else { "#!/bin/sh\nexit 1\n" }).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
    folder
}

fn install(archive: &Path, prefix: &Path, arguments: &[&str]) -> (bool, String) {
    run(Command::new("sh").arg(archive.join("install.sh")).args(arguments).env("PREFIX", prefix).env("HOME", prefix))
}

#[test]
fn the_program_is_installed_run_and_removed() {
    let (archive, prefix) = (archive(true), tempfile::tempdir().unwrap());
    let program = prefix.path().join("a folder/bin/llama-stack");
    let (well, said) = install(archive.path(), &prefix.path().join("a folder"), &[]);
    assert!(well && said.contains("installed llama-stack 9.9.9 as ") && said.contains("is not on your PATH"), "{said}");
    assert_eq!(run(&mut Command::new(&program)), (true, "llama-stack 9.9.9\n".into()));
    // Over itself, as an upgrade does.
    assert!(install(archive.path(), &prefix.path().join("a folder"), &[]).0);
    let (well, said) = install(archive.path(), &prefix.path().join("a folder"), &["--uninstall"]);
    assert!(well && !program.exists(), "{said}");
}

#[test]
fn a_program_that_does_not_run_replaces_none_that_does() {
    let prefix = tempfile::tempdir().unwrap();
    assert!(install(archive(true).path(), prefix.path(), &[]).0);
    let (well, said) = install(archive(false).path(), prefix.path(), &[]);
    assert!(!well && said.contains("error: this build does not run here"), "{said}");
    assert_eq!(run(&mut Command::new(prefix.path().join("bin/llama-stack"))), (true, "llama-stack 9.9.9\n".into()));
    assert_eq!(std::fs::read_dir(prefix.path().join("bin")).unwrap().count(), 1);
}

#[test]
fn what_is_wrong_is_said() {
    let (archive, prefix) = (archive(true), tempfile::tempdir().unwrap());
    let (well, said) = install(archive.path(), prefix.path(), &["--upgrade"]);
    assert!(!well && said.contains("unknown argument --upgrade"), "{said}");
    std::fs::remove_file(archive.path().join("llama-stack")).unwrap();
    let (well, said) = install(archive.path(), prefix.path(), &[]);
    assert!(!well && said.contains("no llama-stack beside"), "{said}");
}
