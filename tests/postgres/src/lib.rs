//! A Postgres server for tests: made in a temporary folder, gone with the value or with the process.
//!
//! ```text
//! Server::start() ── initdb ── sh ─┬─ postgres, on a Unix socket in the folder
//!                                  └─ waits for its standard input to end, then stops the server
//! ```
//!
//! The shell's standard input is a pipe whose other end is ours: it ends when the value is dropped, and also when the
//! process is killed. So no server is left behind, and a `static` may hold one.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

/// A running server.
pub struct Server {
    shell: Child,
    bin: PathBuf,
    folder: tempfile::TempDir,
    databases: AtomicU32,
}

/// Longest wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server stops with the pipe, whichever it is by then, and its folder goes: a `static` is never dropped. It syncs as
/// usual: what is tested is durable.
const SCRIPT: &str = r#""$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=50 >"$2/log" 2>&1 </dev/null &
cat >/dev/null
kill -INT "$(head -n 1 "$2/data/postmaster.pid")" 2>/dev/null
while [ -e "$2/data/postmaster.pid" ]; do sleep 0.02; done
cd / && rm -rf "$2""#;
/// The same server again, after [`Server::stop`].
const AGAIN: &str = r#""$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=50 >>"$2/log" 2>&1 </dev/null &"#;

impl Server {
    /// Starts a server, or says on standard error that the test is skipped, where there are no server binaries. With
    /// `LLAMA_STACK_REQUIRE_POSTGRES` set, missing binaries are an error instead.
    ///
    /// # Errors
    /// Whatever keeps the server from starting; its log is part of the text.
    pub fn start_or_skip() -> io::Result<Option<Self>> {
        if let Some(bin) = binaries() {
            return Self::start(bin).map(Some);
        }
        if std::env::var_os("LLAMA_STACK_REQUIRE_POSTGRES").is_some() {
            return Err(io::Error::other("no postgres server binaries"));
        }
        // Not `eprintln!`, which a test's capture would swallow.
        io::stderr().write_all(b"skipped: no postgres server binaries\n")?;
        Ok(None)
    }

    fn start(bin: PathBuf) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("llama-stack-pg-").tempdir()?;
        let place = folder.path();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(place).stderr(Stdio::null()))
                .or_else(|_| run(Command::new("chown").arg("nobody").arg(place)))?;
        }
        let mut initdb = as_server_user(&bin.join("initdb"), place)?;
        run(initdb.arg("-D").arg(place.join("data")).args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]))?;
        let mut shell = as_server_user(Path::new("sh"), place)?;
        shell.args(["-c", SCRIPT, "sh"]).arg(&bin).arg(place);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self { shell, bin, folder, databases: AtomicU32::new(0) };
        server.await_start()?;
        Ok(server)
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> io::Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let socket = self.folder.path();
        run(Command::new(self.bin.join("createdb")).arg("-h").arg(socket).args(["-U", "postgres", &name]))?;
        Ok(format!("postgres:///{name}?host={}&user=postgres", socket.display()))
    }

    /// Stops the server as its operator would: connections are cut, what was committed stays.
    ///
    /// # Errors
    /// Whatever keeps it from stopping.
    pub fn stop(&self) -> io::Result<()> {
        let file = self.folder.path().join("data/postmaster.pid");
        let text = fs::read_to_string(&file)?;
        run(Command::new("kill").args(["-INT", text.lines().next().unwrap_or_default()]))?;
        let since = Instant::now();
        while file.exists() {
            if since.elapsed() > PATIENCE {
                return Err(io::Error::other("postgres did not stop"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts it again on what it had.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub fn start_again(&self) -> io::Result<()> {
        let mut shell = as_server_user(Path::new("sh"), self.folder.path())?;
        run(shell.args(["-c", AGAIN, "sh"]).arg(&self.bin).arg(self.folder.path()))?;
        self.await_start()
    }

    fn await_start(&self) -> io::Result<()> {
        let since = Instant::now();
        loop {
            let mut ready = Command::new(self.bin.join("pg_isready"));
            if ready.arg("-h").arg(self.folder.path()).output()?.status.success() {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("postgres did not start: {log}")));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let since = Instant::now();
        while since.elapsed() < PATIENCE && matches!(self.shell.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(10));
        }
    }
}

/// The folder of the server's programs: on the path, or the newest of Debian's.
fn binaries() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| ["initdb", "postgres", "createdb", "pg_isready"].iter().all(|name| folder.join(name).exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(has_all);
    on_path.or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let number = |folder: &PathBuf| folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        let mut folders: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
        folders.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
        folders.into_iter().map(|folder| folder.join("bin")).find(has_all)
    })
}

/// Postgres refuses to run as root: then it runs as the owner of `folder`.
fn as_server_user(program: &Path, folder: &Path) -> io::Result<Command> {
    if !is_root() {
        return Ok(Command::new(program));
    }
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(folder)?).to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &owner, "--clear-groups", "--"]).arg(program).current_dir(folder);
    Ok(command)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn run(command: &mut Command) -> io::Result<()> {
    let Output { status, stderr, .. } = command.output()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&stderr))))
}
