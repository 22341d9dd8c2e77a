//! An answer while it comes: what of it may be shown, and the shields on it.
//!
//! ```text
//! model ── Outlet ─┬─ open      shown at once
//!                  ├─ calls     words are shown, calls wait for the shields on their arguments, or for those on the answer
//!                  ├─ held      nothing is shown before all of it has been judged
//!                  └─ windows   words are shown in windows, each once it has been judged; calls wait
//! ```
//!
//! A window is judged together with the end of what was shown before it, as much as a window holds and a sentence at least:
//! the whole costs a fixed multiple of its length, twice in windows of sixteen tokens or more, however long it is.

use std::sync::Arc;

use llama_stack_proto::v1::{ChatEvent, FinishReason, Message, Part, Role, ShieldStep, ToolCallDelta, chat_event::Event, part::Content};

use crate::{
    judged::{UNJUDGED, fingerprint},
    shields::{Judge, Sifted, merge},
};

/// Of a token, as far as a window is concerned. English prose has a little more, code and other scripts fewer.
const BYTES_PER_TOKEN: usize = 4;

/// Of what was shown, the least that a window is judged with: what lies across the border is found in small windows too.
const LEAST_OVERLAP: usize = 64;

pub(crate) enum Outlet {
    Open,
    Calls { held: Vec<ChatEvent> },
    Held { held: Vec<ChatEvent> },
    Windows { windows: Box<Windows>, held: Vec<ChatEvent> },
}

/// What becomes of one event.
#[derive(Default)]
pub(crate) struct Passed {
    /// To be shown, in this order.
    pub(crate) shown: Vec<ChatEvent>,
    /// The answer ends here, with these words.
    pub(crate) refused: Option<String>,
}

impl Passed {
    fn shown(shown: Vec<ChatEvent>) -> Self {
        Self { shown, refused: None }
    }
}

impl Outlet {
    pub(crate) async fn take(&mut self, event: ChatEvent) -> Passed {
        let is_call = matches!(event.event, Some(Event::ToolCall(_)));
        match self {
            Self::Open => Passed::shown(vec![event]),
            // What comes after a call must not be shown before it.
            Self::Calls { held } if !is_call && held.is_empty() => Passed::shown(vec![event]),
            Self::Calls { held } | Self::Held { held } => {
                held.push(event);
                Passed::default()
            }
            Self::Windows { windows, held } if !is_call && held.is_empty() => windows.push(event).await,
            Self::Windows { windows, held } => {
                if windows.watches(&event) {
                    // It waits with the call, but it is judged in its turn.
                    windows.late.push(event.clone());
                }
                held.push(event);
                Passed::default()
            }
        }
    }

    /// The model has said all. What was held stays held.
    pub(crate) async fn finish(&mut self) -> Passed {
        match self {
            Self::Windows { windows, held } => {
                let mut passed = windows.flush().await;
                let late = std::mem::take(&mut windows.late);
                if passed.refused.is_none() && !late.is_empty() {
                    windows.open = late;
                    let rest = windows.flush().await;
                    let before: String = texts(held.iter());
                    passed.refused = rest.refused;
                    // Words after a call are shown as they were, or not at all.
                    if passed.refused.is_none() && texts(rest.shown.iter()) != before {
                        passed.refused = Some(UNJUDGED.into());
                    }
                }
                passed
            }
            Self::Open | Self::Calls { .. } | Self::Held { .. } => Passed::default(),
        }
    }

    /// What waits, and the steps of the shields that judged by windows.
    pub(crate) fn into_parts(self) -> (Vec<ChatEvent>, Vec<(usize, ShieldStep)>) {
        match self {
            Self::Open => (Vec::new(), Vec::new()),
            Self::Calls { held } | Self::Held { held } => (held, Vec::new()),
            Self::Windows { windows, held } => (held, windows.indices.into_iter().zip(windows.shields).collect()),
        }
    }
}

/// Judges the words of an answer window by window.
pub(crate) struct Windows {
    judge: Judge,
    /// The conversation before the answer.
    before: Arc<Vec<Message>>,
    /// Of the shields' steps in the turn.
    indices: Vec<usize>,
    /// The same shields, with what they have found by now.
    shields: Vec<ShieldStep>,
    /// Bytes.
    size: usize,
    /// Not judged yet.
    open: Vec<ChatEvent>,
    bytes: usize,
    /// Words that came after a call.
    late: Vec<ChatEvent>,
    /// The end of what was shown, of one kind.
    tail: (Option<Kind>, String),
    /// Bytes of words before the window.
    judged: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
}

impl Windows {
    pub(crate) fn new(judge: Judge, before: Arc<Vec<Message>>, shields: Vec<(usize, ShieldStep)>, tokens: usize) -> Self {
        let (indices, shields) = shields.into_iter().unzip();
        let (open, late, tail) = (Vec::new(), Vec::new(), (None, String::new()));
        Self { judge, before, indices, shields, size: tokens.max(1) * BYTES_PER_TOKEN, open, bytes: 0, late, tail, judged: 0 }
    }

    fn watches(&self, event: &ChatEvent) -> bool {
        words(event).is_some()
    }

    async fn push(&mut self, event: ChatEvent) -> Passed {
        // A piece is a token or more, however short it is.
        self.bytes += words(&event).map_or(0, |(_, text)| text.len().max(BYTES_PER_TOKEN));
        self.open.push(event);
        if self.bytes >= self.size { self.flush().await } else { Passed::default() }
    }

    /// Judges what is open. Meanwhile nothing is read of the model: what is shown never lags behind by more than a window.
    async fn flush(&mut self) -> Passed {
        let open = std::mem::take(&mut self.open);
        self.bytes = 0;
        let mut runs: Vec<(Kind, String)> = Vec::new();
        for (kind, text) in open.iter().filter_map(words) {
            match runs.last_mut() {
                Some((last, run)) if *last == kind => run.push_str(text),
                _ => runs.push((kind, text.to_owned())),
            }
        }
        let Some(first) = runs.first().map(|(kind, _)| *kind) else { return Passed::shown(open) };
        let tail = if self.tail.0 == Some(first) { self.tail.1.clone() } else { String::new() };
        let parts: Vec<Part> =
            runs.iter().enumerate().map(|(at, (_, run))| said(if at == 0 { format!("{tail}{run}") } else { run.clone() })).collect();
        let left = match self.sift(parts.clone(), tail.len()).await {
            Sifted::Refused(words) => return Passed { shown: Vec::new(), refused: Some(words) },
            Sifted::Passed(left) => left,
        };
        if fingerprint(&left) == fingerprint(&parts) {
            self.remember(&runs);
            return Passed::shown(open);
        }
        // What was shown cannot be changed any more: a shield that wants that, does not let the rest pass.
        let texts: Vec<&str> = left.iter().filter_map(Part::as_text).collect();
        let Some(first) = texts.first().and_then(|first| first.strip_prefix(tail.as_str())).filter(|_| texts.len() == runs.len()) else {
            return Passed { shown: Vec::new(), refused: Some(UNJUDGED.into()) };
        };
        let kinds = runs.iter().map(|(kind, _)| *kind);
        let runs: Vec<(Kind, String)> = kinds.zip(std::iter::once(first).chain(texts.iter().skip(1).copied()).map(str::to_owned)).collect();
        self.remember(&runs);
        let rest = open.into_iter().filter(|event| words(event).is_none());
        Passed::shown(runs.into_iter().map(|(kind, run)| ChatEvent::new(0, kind.event(run))).chain(rest).collect())
    }

    async fn sift(&mut self, parts: Vec<Part>, tail: usize) -> Sifted {
        let bare = self.shields.iter().map(|step| ShieldStep { verdict: None, error: None, ..step.clone() }).collect();
        let several = parts.len() > 1;
        let (verdicts, sifted) = self.judge.sift(bare, self.before.clone(), Message::new(Role::Assistant, parts)).await;
        let begins = self.judged.saturating_sub(tail);
        for (total, mut one) in self.shields.iter_mut().zip(verdicts) {
            for finding in one.verdict.iter_mut().flat_map(|verdict| &mut verdict.findings) {
                // Bytes of the answer; of a window with thinking and words in it they are not known.
                let base = u32::try_from(begins).unwrap_or(u32::MAX);
                let place = |at: u32| if several { 0 } else { at.saturating_add(base) };
                (finding.part, finding.start, finding.end) = (0, place(finding.start), place(finding.end));
            }
            merge(total, one);
        }
        sifted
    }

    /// Keeps the end of what is shown now, for the next window.
    fn remember(&mut self, runs: &[(Kind, String)]) {
        self.judged += runs.iter().map(|(_, run)| run.len()).sum::<usize>();
        let Some((kind, run)) = runs.last() else { return };
        let mut tail = if runs.len() == 1 && self.tail.0 == Some(*kind) { std::mem::take(&mut self.tail.1) } else { String::new() };
        tail.push_str(run);
        let mut cut = tail.len().saturating_sub(self.size.max(LEAST_OVERLAP));
        while !tail.is_char_boundary(cut) {
            cut += 1;
        }
        self.tail = (Some(*kind), tail.split_off(cut));
    }
}

impl Kind {
    fn event(self, text: String) -> Event {
        match self {
            Self::Text => Event::Text(text),
            Self::Refusal => Event::Refusal(text),
            Self::Reasoning => Event::Reasoning(text),
        }
    }
}

/// What an event says in words.
fn words(event: &ChatEvent) -> Option<(Kind, &str)> {
    match event.event.as_ref()? {
        Event::Text(text) => Some((Kind::Text, text)),
        Event::Refusal(text) => Some((Kind::Refusal, text)),
        Event::Reasoning(text) => Some((Kind::Reasoning, text)),
        Event::ToolCall(_) | Event::Finish(_) | Event::Usage(_) => None,
    }
}

fn texts<'a>(events: impl Iterator<Item = &'a ChatEvent>) -> String {
    events.filter_map(|event| words(event).map(|(_, text)| text)).collect()
}

fn said(text: String) -> Part {
    Part::text(text).with_provenance(Role::Assistant.provenance())
}

/// The parts of a message from `first` on, each in one piece, as they are shown.
pub(crate) fn events_of(message: &Message, first: usize, finish: FinishReason) -> Vec<ChatEvent> {
    let mut events = Vec::new();
    let mut calls = 0;
    for (at, part) in message.parts.iter().enumerate() {
        let event = match part.content.clone() {
            Some(Content::Text(text)) => ChatEvent::text(0, text),
            Some(Content::Refusal(text)) => ChatEvent::new(0, Event::Refusal(text)),
            Some(Content::Reasoning(text)) => ChatEvent::new(0, Event::Reasoning(text)),
            Some(Content::ToolCall(call)) => {
                let begin = ToolCallDelta { index: calls, id: call.id, name: call.name, arguments: String::new() };
                calls += 1;
                if at >= first {
                    let index = begin.index;
                    events.push(ChatEvent::tool_call(0, begin));
                    events.push(ChatEvent::tool_call(0, ToolCallDelta { index, arguments: call.arguments, ..ToolCallDelta::default() }));
                }
                continue;
            }
            Some(Content::Image(_) | Content::ToolResult(_)) | None => continue,
        };
        if at >= first {
            events.push(event);
        }
    }
    events.push(ChatEvent::finish(0, finish));
    events
}
