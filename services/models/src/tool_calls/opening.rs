//! Where in a text a call may begin, and in which form.

use super::{BracketScan, CODE_INTERPRETER, Candidate, JsonScan, Raw, State, ToolCallParser, python};

/// With one of these everything begins that may be a call.
pub(super) const BEGINNINGS: [char; 4] = ['<', '[', '{', '`'];

/// The marks that begin a section.
const MARKS: [(&str, Section); 5] = [
    ("<|python_tag|>", Section::PythonTag),
    ("<tool_call>", Section::ToolCall),
    ("[TOOL_CALLS]", Section::ToolCalls),
    ("<function=", Section::Function),
    (FENCE, Section::Fence),
];
const FENCE: &str = "```";

/// What a fence may say that it holds.
const FENCED: [&str; 4] = ["", "json", "tool_call", "tool_code"];

/// The tokens that end a turn of the Llama models, where an engine shows them.
const ENDS_OF_TURN: [&str; 2] = ["<|eom_id|>", "<|eot_id|>"];

/// What calls stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    None,
    PythonTag,
    ToolCall,
    ToolCalls,
    Function,
    Fence,
}

/// What may begin here.
pub(super) enum Opening {
    Enter(Section, State),
    /// The mark that ends the section, so many bytes long.
    Close(usize),
    /// More text is needed to tell.
    Undecided,
    Nothing,
}

impl Section {
    pub(super) fn closers(self) -> &'static [&'static str] {
        match self {
            Section::None => &[],
            Section::PythonTag => &ENDS_OF_TURN,
            Section::ToolCall => &["</tool_call>"],
            Section::ToolCalls => &["</s>"],
            Section::Function => &["</function>"],
            Section::Fence => &[FENCE],
        }
    }

    /// Whether an object in it is a call beyond doubt.
    fn marked(self) -> bool {
        !matches!(self, Section::None | Section::Fence)
    }
}

impl ToolCallParser {
    /// Whether `text` is, or may become, a mark that ends what the last call stood in.
    pub(super) fn closes(&self, text: &str) -> bool {
        self.after_call && self.closers().any(|closer| closer.starts_with(text))
    }

    fn closers(&self) -> impl Iterator<Item = &'static str> {
        self.section.closers().iter().chain(&ENDS_OF_TURN).copied()
    }

    /// What begins at the start of the undecided text.
    pub(super) fn opening(&self, end: bool) -> Opening {
        let rest = self.rest();
        if let Some(closer) = self.closers().find(|closer| self.after_call && rest.starts_with(closer)) {
            return Opening::Close(closer.len());
        }
        if let Some((mark, section)) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark)) {
            return self.marked(*section, mark.len(), end);
        }
        if self.closes(rest) || MARKS.iter().any(|(mark, _)| mark.starts_with(rest)) {
            return Opening::Undecided;
        }
        let word_before = self.last.is_some_and(|c| c.is_alphanumeric() || c == '_');
        match rest.as_bytes().first() {
            Some(b'{') => json(self.section, 0, false),
            Some(b'[') if !word_before => self.array(self.section, 0),
            _ => Opening::Nothing,
        }
    }

    /// After a mark of `length` bytes.
    fn marked(&self, section: Section, length: usize, end: bool) -> Opening {
        let length = match section {
            Section::Function => return self.function_opening(length, end),
            Section::Fence => match fence(&self.rest()[length..]) {
                Ok(info) => length + info,
                Err(opening) => return opening,
            },
            _ => length,
        };
        let (from, first) = self.payload(length);
        match (first, section) {
            (None, _) => Opening::Undecided,
            (Some('{'), _) => json(section, from, false),
            (Some('['), _) => match self.array(section, from) {
                Opening::Nothing if section == Section::PythonTag => self.program(from),
                opening => opening,
            },
            (Some(_), Section::PythonTag) => self.program(from),
            (Some(_), _) => Opening::Nothing,
        }
    }

    /// Where the first character after white space stands.
    fn payload(&self, from: usize) -> (usize, Option<char>) {
        let text = self.rest()[from..].trim_start();
        (self.rest().len() - text.len(), text.chars().next())
    }

    /// `[` of a JSON array or of calls as Python writes them.
    fn array(&self, section: Section, from: usize) -> Opening {
        let (next, first) = self.payload(from + 1);
        match first {
            None => Opening::Undecided,
            Some('{') => json(section, from, true),
            Some(_) => match self.name(&self.rest()[next..], &['(']) {
                Named::Declared => Opening::Enter(section, State::List { scan: BracketScan::default(), from }),
                Named::Perhaps => Opening::Undecided,
                Named::No => Opening::Nothing,
            },
        }
    }

    /// After `<|python_tag|>`: `name.call(…)`, `name(…)`, or a program where there is a tool that runs it.
    fn program(&self, from: usize) -> Opening {
        let source = Opening::Enter(Section::PythonTag, State::Raw { kind: Raw::Source, from, searched: from });
        if self.declared(CODE_INTERPRETER) {
            return source;
        }
        match self.name(&self.rest()[from..], &['(', '.']) {
            Named::Declared => source,
            Named::Perhaps => Opening::Undecided,
            Named::No => Opening::Nothing,
        }
    }

    /// `<function=`, then `name>`.
    fn function_opening(&self, length: usize, end: bool) -> Opening {
        let text = &self.rest()[length..];
        match self.name(text, &['>']) {
            Named::Perhaps => return Opening::Undecided,
            Named::No => return Opening::Nothing,
            Named::Declared => {}
        }
        let Some((name, _)) = text.split_once('>') else { return Opening::Undecided };
        let (from, first) = self.payload(length + name.len() + 1);
        let state = match first {
            None if !end => return Opening::Undecided,
            Some('{') => State::Function { name: name.to_owned(), scan: JsonScan::default(), from },
            // Begins behind the tag, so that there is something left to read even at the end of all text.
            _ => State::Raw { kind: Raw::Function(name.to_owned()), from: length + name.len() + 1, searched: length },
        };
        Opening::Enter(Section::Function, state)
    }

    /// Whether `text` begins with a declared name and one of `then`.
    fn name(&self, text: &str, then: &[char]) -> Named {
        let name = &text[..text.find(|c| !python::is_name(c)).unwrap_or(text.len())];
        match text[name.len()..].chars().next() {
            None if self.tools.iter().any(|tool| tool.starts_with(name)) => Named::Perhaps,
            Some(next) if then.contains(&next) && self.declared(name) => Named::Declared,
            _ => Named::No,
        }
    }
}

enum Named {
    Declared,
    Perhaps,
    No,
}

fn json(section: Section, from: usize, list: bool) -> Opening {
    let scan = JsonScan::default();
    Opening::Enter(section, State::Json(Candidate { scan, from, strict: !section.marked(), list, key_is_name: false, named: false }))
}

/// The length of what follows a fence's backticks on their line, where it may hold calls.
fn fence(text: &str) -> Result<usize, Opening> {
    match text.split_once('\n') {
        Some((info, _)) if FENCED.contains(&info.trim_end()) => Ok(info.len() + 1),
        None if FENCED.iter().any(|info| info.starts_with(text.trim_end())) => Err(Opening::Undecided),
        _ => Err(Opening::Nothing),
    }
}

/// From where on `text` is to be searched again for `closers` once it has grown.
pub(super) fn before_partial(text: &str, searched: usize, closers: &[&str]) -> usize {
    let longest = closers.iter().map(|closer| closer.len()).max().unwrap_or(0).saturating_sub(1);
    let mut at = text.len().saturating_sub(longest).max(searched);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
