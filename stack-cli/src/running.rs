//! Which stacks of a home run: each process leaves a note of its own beside its state, and takes it away when it ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sysinfo::{Pid, ProcessesToUpdate, System};

/// A note is called `running-PID.json`: several processes may serve one distribution.
const NOTE: (&str, &str) = ("running", ".json");

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
        for (path, _) in notes(folder).into_iter().filter(|(_, note)| !note.is_alive()) {
            // Of one that was killed. What cannot be deleted is passed over by whoever reads it.
            let _ = fs::remove_file(path);
        }
        let (begin, end) = NOTE;
        let path = folder.join(format!("{begin}-{pid}{end}"));
        let draft = path.with_extension("draft");
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
        let notes = folders.flat_map(|folder| notes(&folder.path())).map(|(_, note)| note);
        let mut all: Vec<Self> = notes.filter(Self::is_alive).collect();
        all.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
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

/// The notes in a distribution's folder, of processes that are alive or not.
fn notes(folder: &Path) -> Vec<(PathBuf, Running)> {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    let named = files.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(NOTE.0) && name.ends_with(NOTE.1)
    });
    named.filter_map(|path| Some((path.clone(), serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?))).collect()
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
