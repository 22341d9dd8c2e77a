//! Which stacks of a home run: each process leaves a note of its own beside its state, and takes it away when it ends.

use std::{
    fs::{self, File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sysinfo::{Pid, ProcessesToUpdate, System};

/// A note is called `running-PID.json`: several processes may serve one distribution. In containers they may have one number, so the
/// next is `running-PID.1.json`.
const NOTE: (&str, &str) = ("running", ".json");

/// How far the system's word on when a process began may move: it is reckoned back from a clock that is set now and then.
const SLACK_SECONDS: u64 = 5;

/// A process that serves a distribution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) pid: u32,
    /// Seconds since 1970 at which the process began, as the system has it: numbers of processes are used again.
    pub(crate) started: u64,
    /// The file that says this. Its process holds a lock on it, which the system frees with the process: that is seen by users and
    /// containers that do not see each other's processes.
    #[serde(skip)]
    note: PathBuf,
}

/// The note; dropping it takes it away.
pub(crate) struct Note {
    path: PathBuf,
    _lock: File,
}

impl Drop for Note {
    fn drop(&mut self) {
        // A note that stays is of a process that is gone, and is read as that.
        let _ = fs::remove_file(&self.path);
    }
}

impl Running {
    /// Leaves the note. `None` where it cannot be written: the stack runs all the same, and `stop` does not find it.
    pub(crate) fn write(folder: &Path, name: &str, url: &str) -> Option<Note> {
        let pid = std::process::id();
        let started = started(pid)?;
        for left in notes(folder).into_iter().filter(Self::is_gone) {
            // Of one that was killed. What cannot be deleted is passed over by whoever reads it.
            let _ = fs::remove_file(left.note);
        }
        let (begin, end) = NOTE;
        let further = (1_u32..).map(|number| format!("{begin}-{pid}.{number}{end}"));
        let mut paths = std::iter::once(format!("{begin}-{pid}{end}")).chain(further).map(|name| folder.join(name));
        let path = paths.find(|path| !is_held(path))?;
        let noted = Self { name: name.into(), url: url.into(), pid, started, note: path.clone() };
        let text = serde_json::to_string(&noted).ok()?;
        match kept(&path, &text) {
            Ok(lock) => Some(Note { path, _lock: lock }),
            Err(error) => {
                tracing::warn!(error = %error, "`llama-stack stop` will not find this stack: its note cannot be written");
                None
            }
        }
    }

    /// Those of a home that are alive, by name.
    pub(crate) fn all(home: &Path) -> Vec<Self> {
        let folders = fs::read_dir(home).into_iter().flatten().filter_map(Result::ok);
        let notes = folders.flat_map(|folder| notes(&folder.path()));
        let mut all: Vec<Self> = notes.filter(Self::is_alive).collect();
        all.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
        all
    }

    pub(crate) fn is_alive(&self) -> bool {
        started(self.pid).is_some_and(|started| self.is(started)) || is_held(&self.note)
    }

    /// Nothing there could be its process: what is in doubt is kept.
    fn is_gone(&self) -> bool {
        started(self.pid).is_none() && !is_held(&self.note)
    }

    fn is(&self, started: u64) -> bool {
        started.abs_diff(self.started) <= SLACK_SECONDS
    }

    /// What Ctrl-C does. False where this user may not, the process has gone, or what has its number here may be another.
    pub(crate) fn interrupt(&self) -> bool {
        let (system, pid) = look(self.pid);
        let process = system.process(pid).filter(|process| self.is(process.start_time()));
        process.is_some_and(|process| process.kill_with(sysinfo::Signal::Term).unwrap_or(false))
    }
}

/// Whether a process holds this note. Locks are looked for by a shared one: two that look do not take each other for the process.
fn is_held(note: &Path) -> bool {
    File::open(note).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Writes a note that is locked before anyone sees it.
fn kept(path: &Path, text: &str) -> std::io::Result<File> {
    // Another of the same number may begin at this moment.
    let (number, ..) = uuid::Uuid::new_v4().as_fields();
    let draft = path.with_extension(format!("{number:08x}.draft"));
    let written = || -> std::io::Result<File> {
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        if let Err(error) = file.try_lock() {
            // A file system without locks: others go by what the system says of the process.
            tracing::debug!(error = %error, "the note of this stack cannot be locked");
        }
        fs::rename(&draft, path)?;
        Ok(file)
    };
    written().inspect_err(|_| {
        // Where it cannot be written, it may not be there.
        let _ = fs::remove_file(&draft);
    })
}

/// The notes in a distribution's folder, of processes that are alive or not.
fn notes(folder: &Path) -> Vec<Running> {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    let named = files.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(NOTE.0) && name.ends_with(NOTE.1)
    });
    let read = |path: PathBuf| {
        let noted: Running = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
        Some(Running { note: path, ..noted })
    };
    named.filter_map(read).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has it: greater than any system's limit.
    const NOBODY: u32 = 0x7fff_fff0;

    fn write(folder: &Path, pid: u32, started: u64) -> PathBuf {
        let path = folder.join(format!("running-{pid}.json"));
        let noted = Running { name: "t".into(), url: "http://x".into(), pid, started, note: PathBuf::new() };
        fs::write(&path, serde_json::to_string(&noted).unwrap()).unwrap();
        path
    }

    /// As of a process in another container, or of a user whose processes are hidden.
    #[test]
    fn a_note_that_is_held_is_of_a_stack_that_runs_whoever_sees_its_process() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("t");
        fs::create_dir(&folder).unwrap();
        let path = write(&folder, NOBODY, 1);
        let holder = File::open(&path).unwrap();
        holder.lock().unwrap();
        let pids = || Running::all(home.path()).iter().map(|one| one.pid).collect::<Vec<_>>();
        assert_eq!(pids(), [NOBODY]);
        let own = Running::write(&folder, "t", "http://y").unwrap();
        assert_eq!(pids(), [std::process::id(), NOBODY], "a living one's note was deleted");
        assert!(!Running::all(home.path())[1].interrupt());
        drop(own);
        drop(holder);
        assert!(pids().is_empty() && path.exists());
        let _own = Running::write(&folder, "t", "http://y").unwrap();
        assert!(!path.exists(), "of one that was killed");
    }

    /// As of two containers on one home: each sees itself as process 1.
    #[test]
    fn two_processes_of_one_number_leave_a_note_each() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("t");
        fs::create_dir(&folder).unwrap();
        let holder = File::open(write(&folder, std::process::id(), 1)).unwrap();
        holder.lock().unwrap();
        let urls = || {
            let mut urls: Vec<String> = Running::all(home.path()).into_iter().map(|one| one.url).collect();
            urls.sort();
            urls
        };
        let own = Running::write(&folder, "t", "http://y").unwrap();
        assert_eq!(urls(), ["http://x", "http://y"]);
        drop(own);
        assert_eq!(urls(), ["http://x"]);
        // One that nobody holds gives way.
        drop(holder);
        let _own = Running::write(&folder, "t", "http://y").unwrap();
        assert_eq!((urls(), fs::read_dir(&folder).unwrap().count()), (vec!["http://y".to_owned()], 1));
    }

    #[test]
    fn a_clock_that_is_set_makes_no_process_another() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("t");
        fs::create_dir(&folder).unwrap();
        let (pid, began) = (std::process::id(), started(std::process::id()).unwrap());
        write(&folder, pid, began + 2);
        assert_eq!(Running::all(home.path()).len(), 1);
        // Set by an hour: whether it is that process cannot be told. It is no process to signal, and no note to delete.
        let path = write(&folder, pid, began + 3600);
        assert!(Running::all(home.path()).is_empty());
        assert!(notes(&folder).iter().all(|note| !note.is_gone() && !note.interrupt()) && path.exists());
    }
}
