//! Sessions in a real terminal: tmux draws it, keys are typed into it, and what a person sees is read off its screen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

mod support;

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Output},
    sync::{Arc, mpsc},
    time::Duration,
};

use llama_stack_tests::{
    scripted::{MODEL, Scripted},
    served,
};
use support::{Server, call};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A program that says nothing for this long hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Colours begin so.
const ESCAPE: char = '\u{1b}';

/// A terminal in which the program runs. It is closed when it is dropped.
struct Terminal {
    folder: TempDir,
    /// Told whenever something was written to the screen.
    written: mpsc::Receiver<()>,
}

impl Terminal {
    /// Runs the program in a new terminal; or says why there is none.
    fn open(home: &Path, arguments: &[&str]) -> Option<Self> {
        if let Err(why) = Command::new("tmux").arg("-V").output() {
            eprintln!("skipped: a session in tmux: {why}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (settings, pipe) = (folder.path().join("tmux.conf"), folder.path().join("pipe"));
        std::fs::write(&settings, "set -g remain-on-exit on\nset -g default-terminal tmux-256color\n").unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

        // It begins once the screen is watched. Ctrl-C is for the program; the shell stays to say how it ended.
        let script = r#"trap : INT; tmux wait-for watched; "$0" "$@"; echo "[ended with $?]""#;
        let mut begin = Command::new("tmux");
        begin.arg("-S").arg(folder.path().join("socket")).arg("-f").arg(&settings);
        begin.args(["new-session", "-d", "-x", "110", "-y", "40", "--", "sh", "-c", script, env!("CARGO_BIN_EXE_llama-stack")]);
        begin.args(arguments).env("LLAMA_STACK_HOME", home);
        for name in ["NO_COLOR", "OPENAI_BASE_URL", "RUST_LOG", "TMUX"] {
            begin.env_remove(name);
        }
        let begun = begin.output().unwrap();
        assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));

        let (tell, written) = mpsc::channel();
        let terminal = Self { folder, written };
        terminal.tmux(&["pipe-pane", "-o", &format!("cat > '{}'", pipe.display())]);
        std::thread::spawn(move || {
            let (mut screen, mut piece) = (File::open(pipe).unwrap(), [0; 4_096]);
            // It ends with the terminal, and nobody listens then.
            while screen.read(&mut piece).is_ok_and(|read| read > 0) && tell.send(()).is_ok() {}
        });
        terminal.tmux(&["wait-for", "-S", "watched"]);
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.folder.path().join("socket")).args(arguments).output().unwrap()
    }

    /// What is on the screen, without colours.
    fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// The same with the escape sequences of its colours.
    fn coloured(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p", "-e"]).stdout).unwrap()
    }

    /// Waits for the screen to be so, and gives it.
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            if self.written.recv_timeout(HANGS).is_err() {
                panic!("the screen does not show {what}:\n{screen}");
            }
        }
    }

    fn until_shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Keys by tmux's names: `Enter`, `Down`, `C-c`.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn enter(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.press(&["Enter"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The program waits for a line: the last thing on the screen is its prompt.
fn is_asked(screen: &str) -> bool {
    screen.trim_end().lines().next_back().is_some_and(|line| line.trim_end() == ">")
}

/// A line of numbers, as the model writes them for ever.
fn is_counting(line: &str) -> bool {
    line.len() > 40 && line.chars().all(|c| c.is_ascii_digit() || c == ' ')
}

#[test]
fn the_wizard_is_drawn_and_writes_what_was_chosen() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine.yaml");
    let Some(terminal) = Terminal::open(home.path(), &["distribution", "init", path.to_str().unwrap()]) else { return };
    terminal.until_shows("Name of the distribution");
    terminal.enter("mine");
    terminal.until_shows("Where do models run");
    assert!(terminal.coloured().contains(ESCAPE), "the wizard has no colours");
    terminal.press(&["Down", "Down", "Enter"]);
    terminal.until_shows("Its address");
    terminal.enter("http://127.0.0.1:9/v1");
    for question in ["Environment variable", "Port", "Banks of documents", "Shields", "Tools for agents"] {
        terminal.until_shows(question);
        terminal.press(&["Enter"]);
    }
    let screen = terminal.until_shows("[ended with");
    assert!(screen.contains("[ended with 0]") && screen.contains("is written"), "{screen}");
    let check = call(home.path(), &["distribution", "check", path.to_str().unwrap()]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
}

#[test]
fn ctrl_c_leaves_the_wizard_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine.yaml");
    let Some(terminal) = Terminal::open(home.path(), &["distribution", "init", path.to_str().unwrap()]) else { return };
    terminal.until_shows("Name of the distribution");
    terminal.press(&["C-c"]);
    let screen = terminal.until_shows("[ended with");
    assert!(screen.contains("[ended with 1]") && screen.contains("nothing was written"), "{screen}");
    assert!(!path.exists());
}

#[test]
fn a_chat_streams_is_cut_off_by_ctrl_c_and_goes_on() {
    let (runtime, home) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let upstream = runtime.block_on(served::inference(Arc::new(Scripted::default())));
    let url = &upstream.url;
    let text =
        format!("version: 1\nname: t\nproviders:\n  inference:\n    - {{ id: up, type: remote::grpc, config: {{ url: \"{url}\" }} }}\n");
    let manifest = home.path().join("m.yaml");
    std::fs::write(&manifest, text).unwrap();
    let server = Server::start(home.path(), manifest.to_str().unwrap());

    let Some(terminal) = Terminal::open(home.path(), &["chat", "--server", &server.url]) else { return };
    let screen = terminal.until("a prompt", is_asked);
    assert!(screen.contains(MODEL), "{screen}");
    terminal.enter("count 5");
    terminal.until("an answer, and a prompt after it", |screen| screen.contains("1 2 3 4 5") && is_asked(screen));
    terminal.enter("forever");
    terminal.until("words that come and come", |screen| screen.lines().filter(|line| is_counting(line)).count() >= 2);
    terminal.press(&["C-c"]);
    terminal.until("a prompt after the answer was cut off", is_asked);
    // What says nothing for longer than a second is waited for in sight.
    terminal.enter("hang");
    terminal.until_shows(&format!("{MODEL} reads"));
    terminal.press(&["C-c"]);
    let screen =
        terminal.until("a prompt after what was waited for", |screen| screen.contains("stopped before it answered") && is_asked(screen));
    assert!(!screen.contains(&format!("{MODEL} reads")), "what was waited for is still said to be:\n{screen}");
    terminal.enter("count 7");
    terminal.until("the next answer", |screen| screen.contains("1 2 3 4 5 6 7\n") && is_asked(screen));
    terminal.press(&["C-c"]);
    terminal.until_shows("[ended with 0]");

    let ps = ["ps", "--server", &server.url];
    let terminal = Terminal::open(home.path(), &ps).unwrap();
    let screen = terminal.until_shows("[ended with 0]");
    assert!(screen.contains("MODEL") && screen.contains(MODEL), "{screen}");
    assert!(terminal.coloured().contains(ESCAPE), "a terminal gets no colours");
    let piped = call(home.path(), &ps);
    assert!(piped.out.contains(MODEL) && !piped.out.contains(ESCAPE), "{:?}", piped.out);
}

#[test]
fn ctrl_c_ends_a_server_cleanly() {
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("m.yaml");
    let text = "version: 1\nname: t\nproviders:\n  inference:\n    - { id: up, type: remote::openai, config: { url: \"http://127.0.0.1:9/v1\", models: [m] } }\n";
    std::fs::write(&manifest, text).unwrap();
    let Some(terminal) = Terminal::open(home.path(), &["run", manifest.to_str().unwrap(), "--port", "0"]) else { return };
    terminal.until_shows("t is ready at http://127.0.0.1:");
    terminal.press(&["C-c"]);
    let screen = terminal.until_shows("[ended with");
    assert!(screen.contains("stopped") && screen.contains("[ended with 0]"), "{screen}");
}
