use crate::v1::{
    ChatEvent, ChatRequest, ClassifyInput, CompleteEvent, CompleteRequest, EmbedInput, FinishReason, Message, SamplingParams, Tokens,
    ToolCallDelta, Usage, chat_event, complete_event, complete_request::Prompt, embed_input,
};

impl ChatRequest {
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Self {
        Self { model: model.into(), messages, ..Self::default() }
    }

    /// One user message.
    pub fn user(model: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(model, vec![Message::user(text)])
    }

    /// Greedy, at most `max_tokens`.
    #[must_use]
    pub fn greedy(mut self, max_tokens: u32) -> Self {
        self.sampling = Some(SamplingParams::greedy(max_tokens));
        self
    }

    /// How many answers are wanted, at least one.
    pub fn choices(&self) -> u32 {
        self.n.max(1)
    }
}

impl CompleteRequest {
    pub fn text(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { model: model.into(), prompt: Some(Prompt::Text(prompt.into())), ..Self::default() }
    }

    pub fn choices(&self) -> u32 {
        self.n.max(1)
    }
}

impl SamplingParams {
    pub fn greedy(max_tokens: u32) -> Self {
        Self { temperature: Some(0.0), max_tokens: Some(max_tokens), ..Self::default() }
    }
}

impl ChatEvent {
    pub fn new(choice: u32, event: chat_event::Event) -> Self {
        Self { choice, event: Some(event), logprobs: Vec::new() }
    }

    pub fn text(choice: u32, text: impl Into<String>) -> Self {
        Self::new(choice, chat_event::Event::Text(text.into()))
    }

    pub fn tool_call(choice: u32, delta: ToolCallDelta) -> Self {
        Self::new(choice, chat_event::Event::ToolCall(delta))
    }

    pub fn finish(choice: u32, reason: FinishReason) -> Self {
        Self::new(choice, chat_event::Event::Finish(reason.into()))
    }

    pub fn usage(usage: Usage) -> Self {
        Self::new(0, chat_event::Event::Usage(usage))
    }
}

impl CompleteEvent {
    pub fn new(choice: u32, event: complete_event::Event) -> Self {
        Self { choice, event: Some(event), logprobs: Vec::new() }
    }

    pub fn text(choice: u32, text: impl Into<String>) -> Self {
        Self::new(choice, complete_event::Event::Text(text.into()))
    }

    pub fn finish(choice: u32, reason: FinishReason) -> Self {
        Self::new(choice, complete_event::Event::Finish(reason.into()))
    }

    pub fn usage(usage: Usage) -> Self {
        Self::new(0, complete_event::Event::Usage(usage))
    }
}

impl ClassifyInput {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    pub fn tokens(ids: Vec<u32>) -> Self {
        Self { tokens: Some(Tokens { ids }), ..Self::default() }
    }
}

impl EmbedInput {
    pub fn text(text: impl Into<String>) -> Self {
        Self { input: Some(embed_input::Input::Text(text.into())) }
    }

    pub fn tokens(ids: Vec<u32>) -> Self {
        Self { input: Some(embed_input::Input::Tokens(Tokens { ids })) }
    }
}

impl Usage {
    pub fn total_tokens(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    /// Adds another generation's tokens.
    pub fn add(&mut self, other: &Usage) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
    }
}
