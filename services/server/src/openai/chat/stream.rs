//! An answer in pieces: for each choice its role, its deltas, its end; then, where asked for, the usage.

use axum::response::sse::Event;
use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_core::{Error, Result, fold};
use llama_stack_proto::v1::{self, ChatEvent, FinishReason, ToolCallDelta, chat_event};

use super::response::finish;
use crate::openai::{
    FINGERPRINT,
    logprobs::ChatLogprobs,
    new_id, now,
    sse::{self, Encode},
    usage::Usage,
};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionChunk")]
pub(crate) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [ChunkChoice],
    /// Null in all but the last, and there only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize, JsonSchema)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize, JsonSchema)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Null at the beginning of an answer that begins with a tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[DeltaToolCall; 1]>,
}

/// `id`, `type` and `function.name` come once, at the beginning of a call.
#[derive(Serialize, JsonSchema)]
struct DeltaToolCall {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: DeltaFunction,
}

#[derive(Serialize, JsonSchema)]
struct DeltaFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Writes the chunks of one answer.
pub(super) struct Chunks {
    id: String,
    created: i64,
    model: String,
    include_usage: bool,
    usage: Option<v1::Usage>,
    /// Choices by index: whether each has begun and ended.
    choices: Vec<Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Ahead,
    Begun,
    Ended,
}

impl Chunks {
    pub(super) fn new(model: String, include_usage: bool) -> Self {
        Self { id: new_id("chatcmpl"), created: now(), model, include_usage, usage: None, choices: Vec::new() }
    }

    fn write(&self, choices: &[ChunkChoice], usage: Option<Usage>) -> Event {
        sse::data(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.include_usage.then_some(usage),
        })
    }

    fn choice(&self, index: u32, delta: Delta, logprobs: Option<ChatLogprobs>, finish_reason: Option<&'static str>) -> Event {
        self.write(&[ChunkChoice { index, delta, logprobs, finish_reason }], None)
    }

    fn progress(&mut self, choice: u32) -> Result<&mut Progress> {
        let index = choice as usize;
        if index >= 1_024 {
            return Err(Error::internal("the model sent an answer that nobody asked for"));
        }
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Progress::Ahead);
        }
        Ok(&mut self.choices[index])
    }
}

impl Encode<ChatEvent> for Chunks {
    fn push(&mut self, event: ChatEvent, out: &mut Vec<Event>) -> Result<()> {
        use chat_event::Event as Happened;
        let happened = match event.event {
            Some(Happened::Usage(usage)) => {
                self.usage = Some(usage);
                return Ok(());
            }
            Some(happened) => happened,
            None => return Ok(()),
        };
        let index = event.choice;
        let progress = self.progress(index)?;
        if *progress == Progress::Ahead {
            *progress = Progress::Begun;
            let content = (!matches!(happened, Happened::ToolCall(_))).then(String::new);
            let delta = Delta { role: Some("assistant"), content: Some(content), ..Delta::default() };
            out.push(self.choice(index, delta, None, None));
        }
        let mut finish_reason = None;
        let delta = match happened {
            Happened::Text(text) => Delta { content: Some(Some(text)), ..Delta::default() },
            Happened::Refusal(text) => Delta { refusal: Some(text), ..Delta::default() },
            Happened::Reasoning(text) => Delta { reasoning_content: Some(text), ..Delta::default() },
            Happened::ToolCall(call) => Delta { tool_calls: Some([call.into()]), ..Delta::default() },
            Happened::Finish(reason) => {
                *self.progress(index)? = Progress::Ended;
                finish_reason = finish(FinishReason::try_from(reason).unwrap_or_default());
                Delta::default()
            }
            Happened::Usage(_) => return Ok(()),
        };
        out.push(self.choice(index, delta, ChatLogprobs::new(event.logprobs), finish_reason));
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<()> {
        if self.choices.is_empty() || self.choices.iter().any(|choice| *choice != Progress::Ended) {
            return Err(fold::broken_off());
        }
        if self.include_usage {
            let usage = Usage::from(&self.usage.unwrap_or_default());
            out.push(self.write(&[], Some(usage)));
        }
        Ok(())
    }
}

impl From<ToolCallDelta> for DeltaToolCall {
    fn from(delta: ToolCallDelta) -> Self {
        let begins = !delta.name.is_empty();
        Self {
            index: delta.index,
            id: begins.then_some(delta.id),
            r#type: begins.then_some("function"),
            function: DeltaFunction { name: begins.then_some(delta.name), arguments: delta.arguments },
        }
    }
}
