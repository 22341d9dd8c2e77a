//! The only place that prints: results to standard output, everything else to standard error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing happens")]

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::CommandFactory;
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use llama_stack_core::{Code, Error, Progress, Result, registry::OnProgress};
use serde::Serialize;
use serde_json::json;

use crate::args::Cli;

/// How long work goes on in silence before a terminal is told that it does.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a word means, for those who see colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
    Faint,
}

/// Shown while work takes long; gone when it is dropped.
pub(crate) struct Working(Option<tokio::task::JoinHandle<()>>, Arc<Mutex<Spinner>>);

/// Once it is over it is not shown any more, also where both come at once.
enum Spinner {
    Later,
    Shown(ProgressBar),
    Over,
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
        let mut spinner = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if let Spinner::Shown(bar) = std::mem::replace(&mut *spinner, Spinner::Over) {
            bar.finish_and_clear();
        }
    }
}

/// A terminal that seems narrower than it is. A line is filled up to the width, and `^C`, which a terminal shows where it is pressed, would
/// be in the next line then: that one would be cleared, and this one would stay.
#[derive(Debug)]
struct Narrow(Term);

impl TermLike for Narrow {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(2).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What is shown until there is progress, or an end.
pub(crate) struct Waiting(Arc<Mutex<Option<Working>>>);

impl Waiting {
    pub(crate) fn end(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Text for people, or JSON for programs.
#[derive(Clone, Default)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A result: its JSON, or what `text` makes of it.
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(value).map_err(|error| Error::internal("the result is not JSON").with_source(error))?;
            self.write(&format!("{json}\n"))
        } else {
            self.write(&text(value))
        }
    }

    /// Raw text, at once: pieces of a streamed answer.
    pub(crate) fn write(&self, text: &str) -> Result<()> {
        self.write_bytes(text.as_bytes())
    }

    /// What is not text perhaps: the content of a file.
    pub(crate) fn write_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // `llama-stack … | head` has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            result => result.map_err(|error| Error::internal("standard output cannot be written").with_source(error)),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Something to know, not a result.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// A question to whoever sits at the terminal; the answer stands on the same line.
    pub(crate) fn ask(&self, question: &str) {
        eprint!("{question}");
        // Where it cannot be shown it cannot be answered either, which counts as no.
        let _ = std::io::stderr().flush();
    }

    /// A word in its colour, on a terminal of somebody who has not asked for none (`NO_COLOR`, see no-color.org).
    pub(crate) fn paint(&self, tone: Tone, word: &str) -> String {
        let plain = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if self.json || is_dumb() || plain("NO_COLOR") || !std::io::stdout().is_terminal() {
            return word.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    /// Says on a terminal what is being waited for, once that takes longer than a second.
    pub(crate) fn working(&self, what: &str) -> Working {
        let shown = Arc::new(Mutex::new(Spinner::Later));
        if self.json || is_dumb() || !std::io::stderr().is_terminal() {
            return Working(None, shown);
        }
        let (later, what) = (shown.clone(), what.to_owned());
        let task = tokio::spawn(async move {
            tokio::time::sleep(SILENCE).await;
            let mut spinner = later.lock().unwrap_or_else(PoisonError::into_inner);
            if let Spinner::Later = *spinner {
                let terminal = ProgressDrawTarget::term_like(Box::new(Narrow(Term::buffered_stderr())));
                let bar = ProgressBar::with_draw_target(None, terminal).with_style(ProgressStyle::default_spinner()).with_message(what);
                bar.enable_steady_tick(std::time::Duration::from_millis(100));
                *spinner = Spinner::Shown(bar);
            }
        });
        Working(Some(task), shown)
    }

    pub(crate) fn completions(&self, shell: clap_complete::Shell) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "llama-stack", &mut script);
        self.write(&String::from_utf8_lossy(&script))
    }

    pub(crate) fn failure(&self, error: &Error) -> ExitCode {
        if self.json {
            eprintln!("{}", json!({ "error": { "code": error.code().name(), "message": error.message(), "reason": error.reason() } }));
        } else {
            let mut said = error.to_string();
            eprintln!("error: {said}");
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                // Some sentences end with what the system said.
                let why = error.to_string();
                if !said.contains(&why) {
                    eprintln!("  because: {why}");
                }
                said = why;
                cause = error.source();
            }
        }
        ExitCode::from(exit_code(error))
    }

    /// Before there is anything to go on with.
    pub(crate) fn fatal(&self, sentence: &str) -> ExitCode {
        eprintln!("error: {sentence}");
        ExitCode::FAILURE
    }

    /// Counts of what is being worked on: a line that is written over on a terminal, a line for each tenth elsewhere, nothing
    /// under `--json`.
    pub(crate) fn counts(&self) -> impl Fn(&str, u64, u64) + Send + Sync + 'static {
        let (json, terminal, last) = (self.json, std::io::stderr().is_terminal(), Mutex::new(0));
        move |item, done, total| {
            let tenth = done * 10 / total.max(1);
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            match (json, terminal) {
                (true, _) => {}
                (false, true) => eprint!("\r{item}: {done} of {total}{}", if done == total { "\n" } else { "" }),
                (false, false) if done == total || tenth > *last => eprintln!("{item}: {done} of {total}"),
                (false, false) => {}
            }
            *last = if done == total { 0 } else { tenth };
        }
    }

    /// After counts that stopped short of their total: a terminal's line has no end yet.
    pub(crate) fn end_counts(&self) {
        if !self.json && std::io::stderr().is_terminal() {
            eprintln!();
        }
    }

    /// Bars on a terminal, a line per item elsewhere, nothing under `--json`.
    pub(crate) fn progress(&self) -> OnProgress {
        self.progress_of("fetching", "fetched")
    }

    /// As [`Output::progress`], of work that takes long without it as well: `what` gives way to the first report, and goes with
    /// what comes beside it.
    pub(crate) fn progress_within(&self, what: &str) -> (OnProgress, Waiting) {
        let (waiting, on_progress) = (Waiting(Arc::new(Mutex::new(Some(self.working(what))))), self.progress());
        let gives_way = Waiting(waiting.0.clone());
        let report: OnProgress = Arc::new(move |progress| {
            gives_way.end();
            on_progress(progress);
        });
        (report, waiting)
    }

    /// As [`Output::progress`]; the words stand before an item where there is no terminal.
    pub(crate) fn progress_of(&self, begins: &'static str, ends: &'static str) -> OnProgress {
        if self.json {
            return Arc::new(|_| {});
        }
        let bars = MultiProgress::new();
        let shown: Mutex<HashMap<String, Option<ProgressBar>>> = Mutex::default();
        let terminal = std::io::stderr().is_terminal();
        Arc::new(move |progress: Progress| {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = shown.entry(progress.item.clone()).or_insert_with(|| {
                if !terminal {
                    eprintln!("{begins} {}", progress.item);
                    return None;
                }
                Some(bars.add(bar(&progress.item)))
            });
            if let Some(bar) = entry {
                if let Some(total) = progress.total {
                    bar.set_length(total);
                }
                bar.set_position(progress.done);
            }
            if progress.finished {
                match shown.remove(&progress.item).flatten() {
                    Some(bar) => bar.finish(),
                    None => eprintln!("{ends} {}", progress.item),
                }
            }
        })
    }
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The one rule, for what this program finds out and for what a stack answers alike.
fn exit_code(error: &Error) -> u8 {
    match error.code() {
        // What was typed is wrong, or what is in a file that it names. `clap` ends with the same.
        Code::InvalidArgument => 2,
        // Something that was named is not there: a file, a stack, a model, an id.
        Code::NotFound => 3,
        // Asking again is of no use before somebody has made room.
        Code::Unavailable if error.reason() == Some("disk_full") => 1,
        // Nobody answers, or not in time.
        Code::Unavailable | Code::DeadlineExceeded => 4,
        _ => 1,
    }
}

fn bar(item: &str) -> ProgressBar {
    let template = "{msg:40!} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(item.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_stack_that_does_not_answer() {
        assert_eq!(exit_code(&Error::unavailable("nobody is there")), 4);
        assert_eq!(exit_code(&Error::unavailable("the disk for files is full").with_reason("disk_full")), 1);
    }
}
