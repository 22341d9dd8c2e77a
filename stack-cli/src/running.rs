//! Which stacks of a home run: each leaves a note beside its state, and takes it away when it ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sysinfo::{Pid, ProcessesToUpdate, System};

const NAME: &str = "running.json";

/// A process that serves a distribution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) pid: u32,
    /// Seconds since 1970 at which the process began, as the system has it: numbers of processes are used again.
    pub(crate) started: u64,
}

/// The note; dropping it takes it away.
pub(crate) struct Note(PathBuf);

impl Drop for Note {
    fn drop(&mut self) {
        // A note that stays is of a process that is gone, and is read as that.
        let _ = fs::remove_file(&self.0);
    }
}

impl Running {
    /// Leaves the note. `None` where it cannot be written: the stack runs all the same, and `stop` does not find it.
    pub(crate) fn write(folder: &Path, name: &str, url: &str) -> Option<Note> {
        let pid = std::process::id();
        let started = started(pid)?;
        let text = serde_json::to_string(&Self { name: name.into(), url: url.into(), pid, started }).ok()?;
        let (path, draft) = (folder.join(NAME), folder.join(format!("{NAME}.{pid}")));
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
        if let Err(error) = written {
            tracing::warn!(error = %error, "`llama-stack stop` will not find this stack: its note cannot be written");
            return None;
        }
        Some(Note(path))
    }

    /// Those of a home that are alive, by name.
    pub(crate) fn all(home: &Path) -> Vec<Self> {
        let folders = fs::read_dir(home).into_iter().flatten().filter_map(Result::ok);
        let notes = folders.filter_map(|folder| fs::read_to_string(folder.path().join(NAME)).ok());
        let mut all: Vec<Self> = notes.filter_map(|text| serde_json::from_str(&text).ok()).filter(Self::is_alive).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// What Ctrl-C does. False where this user may not, or the process has gone.
    pub(crate) fn interrupt(&self) -> bool {
        let (system, pid) = look(self.pid);
        let process = system.process(pid).filter(|process| process.start_time() == self.started);
        process.is_some_and(|process| process.kill_with(sysinfo::Signal::Term).unwrap_or(false))
    }
}

fn look(pid: u32) -> (System, Pid) {
    let (mut system, pid) = (System::new(), Pid::from_u32(pid));
    system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
    (system, pid)
}

/// When a process began; a dead one that nobody has asked about yet counts as gone.
fn started(pid: u32) -> Option<u64> {
    let (system, pid) = look(pid);
    let process = system.process(pid)?;
    (!matches!(process.status(), sysinfo::ProcessStatus::Zombie | sysinfo::ProcessStatus::Dead)).then(|| process.start_time())
}
