//! A temporary Python environment, for peers that are installed for one run of a drill.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

pub(crate) struct Python {
    folder: tempfile::TempDir,
}

impl Python {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        done(Command::new("python3").args(["-m", "venv"]).arg(folder.path()), "python3 -m venv");
        Self { folder }
    }

    pub(crate) fn install(&self, package: &str, options: &[&str]) {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        done(Command::new(self.path()).args(pip).args(options).arg(package), &format!("pip install {package}"));
    }

    /// For a peer that may be missing.
    #[cfg(feature = "engine")]
    pub(crate) fn try_install(&self, package: &str) -> bool {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        let pip = Command::new(self.path()).args(pip).arg(package).stdout(Stdio::null()).stderr(Stdio::null()).status();
        pip.is_ok_and(|status| status.success())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("bin/python")
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Runs a command that must succeed.
pub(crate) fn done(command: &mut Command, what: &str) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{what} failed");
}
