//! Tool calls in generated text: every form that the model families write, found as the text streams by.
//!
//! ```text
//! text ─> Open ── where a call may begin (opening) ──> Json · Functional · List · Raw ──> calls
//!          ^                                            │ cannot be a call
//!          └──────────── text, byte for byte <── Skip ──┘
//! ```
//!
//! A call counts only where its name is a declared tool. Text is held back only while it may still become a call.
//! What comes out does not depend on how the text was cut into pieces.

use llama_stack_proto::v1::{ChatRequest, ToolDefinition, tool_choice::Mode};

mod json;
mod opening;
mod python;
mod written;

use json::{JsonScan, Seen};
use opening::{Opening, Section};
use python::BracketScan;

/// The built-in tool of the Llama models whose call is Python source after `<|python_tag|>`.
/// It gets `{"code": "…"}`.
pub const CODE_INTERPRETER: &str = "code_interpreter";

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// `arguments` is a JSON object as the model wrote it. Where a call is marked beyond doubt and its arguments are
    /// broken, they are here as they are: whoever runs the tool tells the model.
    Call {
        name: String,
        arguments: String,
    },
}

/// The tools that a model may call in answering `request`: none where `tool_choice` says so.
pub fn offered(request: &ChatRequest) -> &[ToolDefinition] {
    match request.tool_choice.as_ref().map(|choice| choice.mode()) {
        Some(Mode::None) => &[],
        _ => &request.tools,
    }
}

/// Takes generated text, gives text and calls. Without tools all text passes at once.
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    tools: Vec<String>,
    held: String,
    /// Before it, `held` is decided.
    at: usize,
    /// Bytes decided before `held` begins.
    before: usize,
    state: State,
    /// What the calls so far stand in; whoever leaves it by text is out of it.
    section: Section,
    /// The last piece was a call: white space and separators wait in `gap` for what follows them.
    after_call: bool,
    gap: String,
    /// The last character that was decided as text.
    last: Option<char>,
    out: Vec<Located>,
}

/// A piece, and how many bytes of all the text were decided when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) piece: Piece,
    pub(crate) end: usize,
}

/// Positions are counted from `at`, where what may be a call begins; `from` is where its payload does.
#[derive(Clone, Debug, Default)]
enum State {
    /// Text, in which a call may begin.
    #[default]
    Open,
    /// A JSON object or array that may be a call.
    Json(Candidate),
    /// The arguments in `<function=name>{…}`.
    Function { name: String, scan: JsonScan, from: usize },
    /// `[f(…), g(…)]`.
    List { scan: BracketScan, from: usize },
    /// A marked block that can only be read whole, up to its end.
    Raw { kind: Raw, from: usize, searched: usize },
    /// A JSON value that is no call: what looks like one inside of it is none either.
    Skip(JsonScan),
}

/// A JSON value on its way to be a call.
#[derive(Clone, Debug)]
struct Candidate {
    scan: JsonScan,
    from: usize,
    /// Nothing marks it as a call, so it has to look like one in every detail.
    strict: bool,
    /// An array of calls.
    list: bool,
    /// The last key of a call was `name`.
    key_is_name: bool,
    /// The first call's name was seen, and is declared.
    named: bool,
}

#[derive(Clone, Debug)]
enum Raw {
    Function(String),
    Json,
    Source,
}

/// Whether there is more to decide without more text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Again,
    Wait,
}

impl ToolCallParser {
    pub fn new(tools: &[ToolDefinition]) -> Self {
        Self {
            tools: tools.iter().map(|tool| tool.name.clone()).collect(),
            held: String::new(),
            at: 0,
            before: 0,
            state: State::Open,
            section: Section::None,
            after_call: false,
            gap: String::new(),
            last: None,
            out: Vec::new(),
        }
    }

    /// Takes the next text. Texts are never empty, and two never follow each other.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.push_located(text).into_iter().map(|located| located.piece).collect()
    }

    /// Decides what was held back, once nothing more comes.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.finish_located().into_iter().map(|located| located.piece).collect()
    }

    pub(crate) fn push_located(&mut self, text: &str) -> Vec<Located> {
        self.held.push_str(text);
        if self.tools.is_empty() {
            self.release(text.len());
        } else {
            self.run(false);
        }
        self.held.drain(..self.at);
        self.before += std::mem::take(&mut self.at);
        std::mem::take(&mut self.out)
    }

    pub(crate) fn finish_located(&mut self) -> Vec<Located> {
        self.run(true);
        self.gap.clear();
        self.push_located("")
    }

    fn run(&mut self, end: bool) {
        while self.at < self.held.len() {
            let step = match std::mem::take(&mut self.state) {
                State::Open => self.open(end),
                State::Json(candidate) => self.json(candidate, end),
                State::Function { name, scan, from } => self.function(name, scan, from, end),
                State::List { scan, from } => self.list(scan, from, end),
                State::Raw { kind, from, searched } => self.raw(kind, from, searched, end),
                State::Skip(scan) => self.skip(scan),
            };
            if step == Step::Wait {
                return;
            }
        }
    }

    fn rest(&self) -> &str {
        &self.held[self.at..]
    }

    fn declared(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool == name)
    }

    fn open(&mut self, end: bool) -> Step {
        let candidate = self.rest().find(opening::BEGINNINGS).unwrap_or(self.rest().len());
        self.release(candidate);
        if self.rest().is_empty() {
            return Step::Wait;
        }
        match self.opening(end) {
            Opening::Enter(section, state) => {
                self.section = section;
                self.state = state;
            }
            Opening::Close(length) => {
                self.at += length;
                self.gap.clear();
                self.section = Section::None;
            }
            Opening::Undecided if !end => return Step::Wait,
            // A closing mark that was cut off belongs to the call before it.
            Opening::Undecided if self.closes(self.rest()) => self.at = self.held.len(),
            Opening::Undecided | Opening::Nothing => self.release_first(),
        }
        Step::Again
    }

    fn json(&mut self, mut json: Candidate, end: bool) -> Step {
        let from = json.from;
        let level = if json.list { 2 } else { 1 };
        loop {
            let text = &self.rest()[from..];
            match json.scan.next(text) {
                Seen::Key(range, depth) if depth == level => {
                    let key: String = serde_json::from_str(&text[range]).unwrap_or_default();
                    json.key_is_name = key == "name";
                    if json.strict && !written::KEYS.contains(&key.as_str()) {
                        return self.reject(json.scan, from);
                    }
                }
                Seen::Text(range, depth) if depth == level && json.key_is_name && !json.named => {
                    json.named = true;
                    let name: String = serde_json::from_str(&text[range]).unwrap_or_default();
                    if !self.declared(&name) {
                        return self.reject(json.scan, from);
                    }
                }
                Seen::Key(..) | Seen::Text(..) => {}
                Seen::End => return self.written(from, from + json.scan.at, json.strict),
                Seen::Broken if json.strict => {
                    self.release(from + json.scan.at);
                    return Step::Again;
                }
                Seen::Everything if !end => {
                    self.state = State::Json(json);
                    return Step::Wait;
                }
                Seen::Everything if json.strict => {
                    self.release(self.rest().len());
                    return Step::Again;
                }
                Seen::Everything | Seen::Broken => {
                    self.state = State::Raw { kind: Raw::Json, from, searched: from };
                    return Step::Again;
                }
            }
        }
    }

    /// A whole JSON value: its calls, or text.
    fn written(&mut self, from: usize, to: usize, strict: bool) -> Step {
        let source = self.rest()[from..to].to_owned();
        match written::calls(&source, strict) {
            Some(calls) if calls.first().is_some_and(|call| self.declared(&call.name)) => {
                self.at += to;
                for call in calls {
                    self.call_or_text(call.name, call.arguments, call.source);
                }
            }
            // Two keys of one name, a number like 01: JSON in outline only.
            None if !strict => return self.broken(&source, to, 0),
            _ => self.release(to),
        }
        Step::Again
    }

    fn broken(&mut self, source: &str, to: usize, closing: usize) -> Step {
        match written::broken_call(source).filter(|(name, _)| self.declared(name)) {
            Some((name, arguments)) => {
                self.at += to + closing;
                self.call(name, arguments);
            }
            None => self.release(to),
        }
        Step::Again
    }

    /// No call: what was scanned is text, and so is the rest of the value.
    fn reject(&mut self, mut scan: JsonScan, from: usize) -> Step {
        self.release(from + scan.at);
        scan.forget();
        self.state = State::Skip(scan);
        Step::Again
    }

    fn skip(&mut self, mut scan: JsonScan) -> Step {
        loop {
            match scan.next(self.rest()) {
                Seen::Key(..) | Seen::Text(..) => {}
                Seen::Everything => {
                    self.release(scan.at);
                    scan.forget();
                    self.state = State::Skip(scan);
                    return Step::Wait;
                }
                Seen::End | Seen::Broken => {
                    self.release(scan.at);
                    return Step::Again;
                }
            }
        }
    }

    fn function(&mut self, name: String, mut scan: JsonScan, from: usize, end: bool) -> Step {
        loop {
            match scan.next(&self.rest()[from..]) {
                Seen::Key(..) | Seen::Text(..) => {}
                Seen::Everything if !end => {
                    self.state = State::Function { name, scan, from };
                    return Step::Wait;
                }
                Seen::End => {
                    let arguments = self.rest()[from..from + scan.at].to_owned();
                    self.at += from + scan.at;
                    self.call(name, arguments);
                    return Step::Again;
                }
                Seen::Everything | Seen::Broken => {
                    self.state = State::Raw { kind: Raw::Function(name), from, searched: from };
                    return Step::Again;
                }
            }
        }
    }

    fn list(&mut self, mut scan: BracketScan, from: usize, end: bool) -> Step {
        match scan.next(&self.rest()[from..]) {
            None if !end => {
                self.state = State::List { scan, from };
                Step::Wait
            }
            Some(true) => {
                let to = from + scan.at;
                let source = self.rest()[from..to].to_owned();
                match python::list(&source) {
                    Some(calls) => {
                        self.at += to;
                        for call in calls {
                            self.call_or_text(call.name, call.arguments, &source[call.range]);
                        }
                    }
                    None => self.release(to),
                }
                Step::Again
            }
            Some(false) | None => {
                self.release(from + scan.at);
                Step::Again
            }
        }
    }

    fn raw(&mut self, kind: Raw, from: usize, searched: usize, end: bool) -> Step {
        let rest = self.rest();
        let found =
            self.section.closers().iter().filter_map(|closer| Some((rest[searched..].find(closer)? + searched, closer.len()))).min();
        let (to, closing) = match found {
            Some(found) => found,
            None if end => (rest.len(), 0),
            None => {
                let searched = opening::before_partial(rest, searched, self.section.closers());
                self.state = State::Raw { kind, from, searched };
                return Step::Wait;
            }
        };
        let block = rest[from..to].to_owned();
        match kind {
            Raw::Json => self.broken(&block, to, closing),
            Raw::Function(name) => {
                self.at += to + closing;
                let arguments = block.trim();
                self.call(name, if arguments.is_empty() { "{}".to_owned() } else { arguments.to_owned() });
                Step::Again
            }
            Raw::Source => self.source(&block, to, closing),
        }
    }

    /// What follows `<|python_tag|>`: calls of built-in tools, or a program.
    fn source(&mut self, block: &str, to: usize, closing: usize) -> Step {
        let (name, rest) = block.split_at(block.find(|c| !python::is_name(c)).unwrap_or(block.len()));
        if let Some(calls) = python::statements(block).filter(|calls| calls.first().is_some_and(|call| self.declared(&call.name))) {
            self.at += to + closing;
            for call in calls {
                self.call_or_text(call.name, call.arguments, &block[call.range]);
            }
        } else if self.declared(CODE_INTERPRETER) {
            self.at += to + closing;
            self.call(CODE_INTERPRETER.into(), serde_json::json!({ "code": block.trim_end() }).to_string());
        } else if self.declared(name) {
            self.at += to + closing;
            let rest = rest.strip_prefix(".call").unwrap_or(rest).trim();
            let inside = rest.strip_prefix('(').unwrap_or(rest);
            self.call(name.to_owned(), inside.strip_suffix(')').unwrap_or(inside).to_owned());
        } else {
            self.release(to);
        }
        Step::Again
    }

    fn call(&mut self, name: String, arguments: String) {
        self.gap.clear();
        self.after_call = true;
        self.last = None;
        self.out.push(Located { piece: Piece::Call { name, arguments }, end: self.before + self.at });
    }

    /// One of several calls: the undeclared among them stay text.
    fn call_or_text(&mut self, name: String, arguments: String, source: &str) {
        if self.declared(&name) { self.call(name, arguments) } else { self.text(source) }
    }

    /// The next `length` bytes are text.
    fn release(&mut self, length: usize) {
        let text = self.rest()[..length].to_owned();
        self.at += length;
        let Some(last) = text.chars().next_back() else { return };
        self.last = Some(last);
        if !self.after_call {
            return self.text(&text);
        }
        let beyond = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
        self.gap.push_str(&text[..text.len() - beyond.len()]);
        if !beyond.is_empty() {
            self.after_call = false;
            self.section = Section::None;
            let gap = std::mem::take(&mut self.gap);
            self.text(&gap);
            self.text(beyond);
        }
    }

    fn release_first(&mut self) {
        let first = self.rest().chars().next().map_or(0, char::len_utf8);
        self.release(first);
    }

    fn text(&mut self, text: &str) {
        let end = self.before + self.at;
        match self.out.last_mut() {
            _ if text.is_empty() => {}
            Some(Located { piece: Piece::Text(last), end: last_end }) => {
                last.push_str(text);
                *last_end = end;
            }
            _ => self.out.push(Located { piece: Piece::Text(text.to_owned()), end }),
        }
    }
}

#[cfg(test)]
mod tests;
