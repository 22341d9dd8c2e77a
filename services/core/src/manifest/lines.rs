//! On which line of a YAML file a path stands.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser};

use crate::Error;

/// Paths like `providers.safety[0].config.model`, and their lines.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    file: String,
    lines: HashMap<String, usize>,
}

impl Lines {
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self { file: file.into(), lines: scan(text) }
    }

    /// The name under which the manifest was read: its path, or the name of a built-in distribution.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `file:line` of a path; of one that is not there, of what would hold it.
    pub fn place(&self, path: &str) -> String {
        match self.line(path) {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        }
    }

    /// `InvalidArgument` that names file, line and path. A path that is not there has the line of what would hold it.
    pub fn error(&self, path: &str, what: &str) -> Error {
        let place = self.place(path);
        let message = if path.is_empty() { format!("{place}: {what}") } else { format!("{place}: {path}: {what}") };
        Error::invalid(path, message)
    }

    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Where the walk stands: in a mapping, waiting for a key or holding one; or in a sequence, before an index.
enum Frame {
    Mapping { path: String, key: Option<String> },
    Sequence { path: String, index: usize },
}

/// Reads the events of the YAML parser; a file that does not parse has no lines.
fn scan(text: &str) -> HashMap<String, usize> {
    let mut lines = HashMap::new();
    let mut stack: Vec<Frame> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return lines };
        let line = span.start.line();
        match event {
            Event::Scalar(value, ..) => {
                if let Some(Frame::Mapping { path, key: key @ None }) = stack.last_mut() {
                    lines.insert(join(path, &value), line);
                    *key = Some(value.into_owned());
                } else {
                    place(&mut stack, &mut lines, line);
                }
            }
            Event::Alias(..) => {
                place(&mut stack, &mut lines, line);
            }
            Event::MappingStart(..) => {
                let path = place(&mut stack, &mut lines, line);
                stack.push(Frame::Mapping { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = place(&mut stack, &mut lines, line);
                stack.push(Frame::Sequence { path, index: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
            }
            _ => {}
        }
    }
    lines
}

/// The path of the value that begins here; the frame above goes on to its next.
fn place(stack: &mut [Frame], lines: &mut HashMap<String, usize>, line: usize) -> String {
    match stack.last_mut() {
        None => String::new(),
        Some(Frame::Mapping { path, key }) => join(path, &key.take().unwrap_or_default()),
        Some(Frame::Sequence { path, index }) => {
            let item = format!("{path}[{index}]");
            lines.insert(item.clone(), line);
            *index += 1;
            item
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
