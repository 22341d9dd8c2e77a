//! Chat templates: messages and tools in, the model's prompt out, as Hugging Face's templates expect to be run.

use std::{fmt, sync::Arc};

use minijinja::{Environment, Error as TemplateError, ErrorKind, Value, context, value::Kwargs};
use serde_json::Value as Json;

use llama_stack_core::{Error, Result, ids};
use llama_stack_proto::v1::{Message, ToolDefinition};

mod conversation;
mod json;

/// Steps that one rendering may take: some seconds at most. A long conversation takes some hundred thousand.
const FUEL: u64 = 20_000_000;

/// A compiled template. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    special: SpecialTokens,
    control: Vec<String>,
    supports_tools: bool,
}

/// The texts of the tokens that a template may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: String,
    pub eos: String,
}

impl ChatTemplate {
    /// Compiles `source`, and tries it out to see whether it has a place for tools.
    ///
    /// Whitespace, functions and filters are those of Hugging Face's `apply_chat_template`: `trim_blocks`,
    /// `lstrip_blocks`, `break` and `continue`, `raise_exception`, `strftime_now`, `tojson` as Python writes it,
    /// Python's methods on strings and maps.
    ///
    /// # Errors
    /// `InvalidArgument`, reason `bad_template`: not a template; the message names the line.
    pub fn parse(source: &str, special: SpecialTokens) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", json::tojson);
        environment.add_template_owned("chat", source.to_owned()).map_err(|error| {
            let line = error.line().map_or(String::new(), |line| format!(" in line {line}"));
            let message = format!("the chat template cannot be read{line}: {}", what(&error));
            Error::invalid("chat_template", message).with_reason("bad_template").with_source(error)
        })?;
        let mut template = Self { environment: Arc::new(environment), special, control: Vec::new(), supports_tools: false };
        template.supports_tools = template.shows_tools();
        Ok(template)
    }

    /// The model's control tokens, for example `<|im_end|>`. Where a message or a tool's words hold one of them, it is
    /// broken by a zero-width space: text can then not end its own message and begin another in a stronger role.
    #[must_use]
    pub fn with_control_tokens(mut self, tokens: impl IntoIterator<Item = String>) -> Self {
        self.control = tokens.into_iter().filter(|token| token.chars().nth(1).is_some()).collect();
        self
    }

    /// Whether tools given to the template show in the prompt.
    pub fn supports_tools(&self) -> bool {
        self.supports_tools
    }

    /// The prompt, begin token included where the template writes one: tokenize it without adding special tokens.
    ///
    /// `add_generation_prompt` ends it where the assistant's answer begins.
    ///
    /// # Errors
    /// `InvalidArgument`: `tools_not_supported` tools for a template that ignores them · `images_not_supported` ·
    /// `template_refused` the template's own `raise_exception`, in its words · `template_failed` anything else that
    /// the template cannot do with these messages, taking too long included · a tool whose parameters are not JSON
    pub fn render(&self, messages: &[Message], tools: &[ToolDefinition], add_generation_prompt: bool) -> Result<String> {
        if !tools.is_empty() && !self.supports_tools {
            let message = "this model's chat template has no place for tools: leave them out or take another model";
            return Err(Error::invalid("tools", message).with_reason("tools_not_supported"));
        }
        let mut messages = conversation::messages(messages)?;
        let mut tools = conversation::tools(tools)?;
        if !self.control.is_empty() {
            self.disarm(&mut messages);
            self.disarm(&mut tools);
        }
        self.run(&messages, &tools, add_generation_prompt).map_err(refused)
    }

    fn run(&self, messages: &Json, tools: &Json, add_generation_prompt: bool) -> Result<String, TemplateError> {
        // Without tools `apply_chat_template` gives none, not an empty list, and templates ask `tools is not none`.
        let tools = if tools.as_array().is_none_or(Vec::is_empty) { Value::from(()) } else { Value::from_serialize(tools) };
        self.environment.get_template("chat")?.render(context! {
            messages => Value::from_serialize(messages),
            tools => tools,
            documents => Value::from(()),
            add_generation_prompt => add_generation_prompt,
            bos_token => self.special.bos,
            eos_token => self.special.eos,
        })
    }

    fn shows_tools(&self) -> bool {
        const PROBE: &str = "probe_of_tool_support";
        let probe =
            [ToolDefinition::new(PROBE, "A probe.", r#"{"type":"object","properties":{"a":{"type":"string","description":"A."}}}"#)];
        let (Ok(messages), Ok(tools)) = (conversation::messages(&[Message::user("Hi.")]), conversation::tools(&probe)) else {
            return false;
        };
        self.run(&messages, &tools, true).is_ok_and(|prompt| prompt.contains(PROBE))
    }

    /// Breaks control tokens in every string of `value`, keys included: a tool's schema may come from elsewhere.
    fn disarm(&self, value: &mut Json) {
        match value {
            Json::String(text) => *text = self.disarmed(text),
            Json::Array(items) => items.iter_mut().for_each(|item| self.disarm(item)),
            Json::Object(map) => {
                map.values_mut().for_each(|item| self.disarm(item));
                if map.keys().any(|key| self.disarmed(key) != *key) {
                    *map = std::mem::take(map).into_iter().map(|(key, item)| (self.disarmed(&key), item)).collect();
                }
            }
            _ => {}
        }
    }

    fn disarmed(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for token in &self.control {
            if text.contains(token.as_str()) {
                let first = token.chars().next().map_or(0, char::len_utf8);
                text = text.replace(token.as_str(), &format!("{}\u{200b}{}", &token[..first], &token[first..]));
            }
        }
        text
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("special", &self.special).field("supports_tools", &self.supports_tools).finish_non_exhaustive()
    }
}

/// What a template says by `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise(message: String) -> Result<Value, TemplateError> {
    Err(TemplateError::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Now, in the machine's time zone, as C's `strftime` formats it.
fn strftime_now(format: &str) -> Result<String, TemplateError> {
    let failed =
        |error: jiff::Error| TemplateError::new(ErrorKind::InvalidOperation, "strftime_now: the time cannot be written").with_source(error);
    let now = ids::now();
    let now = jiff::Timestamp::new(now.seconds, now.nanos).map_err(failed)?.to_zoned_datetime(jiff::tz::TimeZone::system());
    jiff::fmt::strtime::format(format, &now).map_err(failed)
}

fn refused(error: TemplateError) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Error::invalid("messages", message.clone()).with_reason("template_refused");
        }
        source = cause.source();
    }
    let message = match error.kind() {
        ErrorKind::OutOfFuel => "the model's chat template does not come to an end with these messages".to_owned(),
        _ => format!("the model's chat template cannot render these messages: {}", what(&error)),
    };
    Error::invalid("messages", message).with_reason("template_failed").with_source(error)
}

fn what(error: &TemplateError) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
