//! `llama-stack logs`: what a stack of this machine has logged.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use llama_stack_core::{Error, Result};
use serde::Serialize;

use crate::{
    args::LogsArgs,
    home::home,
    log_file, named,
    output::{Output, Tone},
};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// From worst to least.
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// A line of a log.
#[derive(Serialize)]
struct Entry<'a> {
    time: &'a str,
    level: &'a str,
    text: &'a str,
}

/// `TIME LEVEL words`; what is not written so goes on with the line before it.
fn parse(line: &str) -> Option<Entry<'_>> {
    let (time, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (level, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let is_time = time.starts_with(|c: char| c.is_ascii_digit()) && time.contains('T');
    (is_time && LEVELS.contains(&level)).then_some(Entry { time, level, text })
}

/// Which lines are wanted. Lines that go on with another share its fate.
struct Wanted {
    worst: usize,
    last: bool,
}

impl Wanted {
    fn new(level: Option<&str>) -> Self {
        let worst = level.and_then(|level| LEVELS.iter().position(|name| name.eq_ignore_ascii_case(level)));
        Self { worst: worst.unwrap_or(LEVELS.len()), last: true }
    }

    fn takes(&mut self, line: &str) -> bool {
        if let Some(entry) = parse(line) {
            self.last = LEVELS.iter().position(|name| *name == entry.level).is_none_or(|level| level <= self.worst);
        }
        self.last
    }
}

pub(crate) async fn run(args: LogsArgs, output: &Output) -> Result<()> {
    let home = home(args.home.home)?;
    let folder = folder(&home, args.name.as_deref())?;
    let mut wanted = Wanted::new(args.level.as_deref());
    let mut text = String::new();
    let files = log_file::files(&folder);
    let mut end = 0;
    for path in &files {
        let bytes = fs::read(path).map_err(|error| named::unreadable(path, &error))?;
        end = bytes.len() as u64;
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    let lines: Vec<&str> = text.lines().filter(|line| wanted.takes(line)).collect();
    let newest = &lines[lines.len().saturating_sub(args.lines)..];
    print(newest, output)?;
    if !args.follow {
        return Ok(());
    }
    let path = folder.join(log_file::NAME);
    tokio::select! {
        followed = follow(&path, end, &mut wanted, output) => followed,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// A line of text each, or with `--json` an object each.
fn print(lines: &[&str], output: &Output) -> Result<()> {
    for line in lines {
        let entry = parse(line);
        if output.is_json() {
            let entry = entry.unwrap_or(Entry { time: "", level: "", text: line });
            let json = serde_json::to_string(&entry).map_err(|error| Error::internal("a line is not JSON").with_source(error))?;
            output.write(&format!("{json}\n"))?;
            continue;
        }
        let tone = match entry.map(|entry| entry.level) {
            Some("ERROR") => Some(Tone::Bad),
            Some("WARN") => Some(Tone::Warning),
            Some("DEBUG" | "TRACE") => Some(Tone::Faint),
            _ => None,
        };
        let shown = tone.map_or_else(|| (*line).to_owned(), |tone| output.paint(tone, line));
        output.write(&format!("{shown}\n"))?;
    }
    Ok(())
}

/// Whole lines as they come; a file that was put aside is read to its end, then the new one.
async fn follow(path: &Path, mut at: u64, wanted: &mut Wanted, output: &Output) -> Result<()> {
    let unreadable = |error: std::io::Error| named::unreadable(path, &error);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut rest = Vec::new();
    loop {
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        at += file.read_to_end(&mut rest).map_err(unreadable)? as u64;
        if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&whole);
            let lines: Vec<&str> = text.lines().filter(|line| wanted.takes(line)).collect();
            print(&lines, output)?;
        }
        if fs::metadata(path).is_ok_and(|meta| meta.len() < at) {
            (file, at) = (File::open(path).map_err(unreadable)?, 0);
            continue;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The folder of a distribution; without a name the one whose log is newest.
fn folder(home: &Path, name: Option<&str>) -> Result<PathBuf> {
    let folders = fs::read_dir(home).into_iter().flatten().filter_map(std::result::Result::ok).map(|entry| entry.path());
    let mut there: Vec<(PathBuf, std::time::SystemTime)> =
        folders.filter_map(|folder| Some((folder.clone(), fs::metadata(folder.join(log_file::NAME)).ok()?.modified().ok()?))).collect();
    there.sort_by_key(|(_, written)| *written);
    let named = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name {
        None => there.pop().map(|(folder, _)| folder).ok_or_else(|| {
            Error::not_found(format!("nothing has been logged below {}; --home or LLAMA_STACK_HOME name another", home.display()))
        }),
        Some(name) => there.iter().find(|(folder, _)| named(folder) == name).map(|(folder, _)| folder.clone()).ok_or_else(|| {
            let names: Vec<String> = there.iter().map(|(folder, _)| named(folder)).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::not_found(format!("{name:?} has logged nothing below {}; there are logs of: {names}", home.display()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_goes_on_shares_the_level_of_its_beginning() {
        let lines = [
            "2026-01-02T03:04:05.6Z  INFO llama_stack: up",
            "2026-01-02T03:04:06.6Z ERROR llama_stack: down",
            "  because it was",
            "2026-01-02T03:04:07.6Z  WARN llama_stack: again",
        ];
        let mut wanted = Wanted::new(Some("error"));
        let taken: Vec<&str> = lines.into_iter().filter(|line| wanted.takes(line)).collect();
        assert_eq!(taken, &lines[1..3]);
        assert_eq!(parse(lines[0]).unwrap().text, "llama_stack: up");
    }
}
