//! Our requests as JSON bodies, written straight from the messages: nothing is copied but into the body.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};
use serde_json::{json, value::RawValue};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, ResponseFormat, SamplingParams, ToolChoice, ToolDefinition, complete_request::Prompt,
    response_format::Format, tool_choice::Mode,
};

use super::{
    failure::Name,
    message::Messages,
    preset::{Constraints, Extended, Preset, Schemas},
};

/// # Errors
/// `Unimplemented` for what this kind of server does not have · `InvalidArgument` for a schema that is no JSON.
pub(super) fn chat(name: &Name, preset: &Preset, model: &str, request: &ChatRequest, stream: bool) -> Result<Bytes> {
    let needs = Needs { n: request.n, logprobs: request.logprobs, format: request.response_format.as_ref() };
    needs.check(name, preset, request.sampling.as_ref())?;
    write(&ChatBody { preset, model, request, stream })
}

/// # Errors
/// As [`chat`].
pub(super) fn complete(name: &Name, preset: &Preset, model: &str, request: &CompleteRequest, stream: bool) -> Result<Bytes> {
    let needs = Needs { n: request.n, logprobs: request.logprobs, format: request.response_format.as_ref() };
    needs.check(name, preset, request.sampling.as_ref())?;
    write(&CompleteBody { preset, model, request, stream })
}

pub(super) fn write(body: &impl Serialize) -> Result<Bytes> {
    let bad = |error: serde_json::Error| Error::invalid("", "the request holds a schema that is not JSON").with_source(error);
    serde_json::to_vec(body).map(Bytes::from).map_err(bad)
}

/// What not every server has.
struct Needs<'a> {
    n: u32,
    logprobs: bool,
    format: Option<&'a ResponseFormat>,
}

impl Needs<'_> {
    fn check(&self, name: &Name, preset: &Preset, sampling: Option<&SamplingParams>) -> Result<()> {
        let lacks = |field, what| Err(name.lacks(field, what));
        if self.n > 1 && !preset.n {
            return lacks("n", "several answers to one request");
        }
        if self.logprobs && !preset.logprobs {
            return lacks("logprobs", "log-probabilities");
        }
        match (self.format.and_then(|format| format.format.as_ref()), preset.schemas, preset.constraints) {
            (Some(Format::JsonObject(_)), Schemas::Value, _) => return lacks("response_format.json_object", "JSON without a schema"),
            (Some(Format::JsonSchema(_)), Schemas::None, _) => return lacks("response_format.json_schema", "answers by JSON Schema"),
            (Some(Format::Regex(_)), _, Constraints::None) => return lacks("response_format.regex", "answers by regular expression"),
            (Some(Format::Grammar(_)), _, Constraints::None | Constraints::RegexFormat { .. }) => {
                return lacks("response_format.grammar", "answers by grammar");
            }
            _ => {}
        }
        let Some(sampling) = sampling else { return Ok(()) };
        let extended = preset.extended != Extended::None;
        let there = [
            ("sampling.seed", "seed", sampling.seed.is_some() && preset.seed.is_empty()),
            ("sampling.logit_bias", "logit bias", !sampling.logit_bias.is_empty() && !preset.logit_bias),
            ("sampling.top_k", "top_k", sampling.top_k.is_some() && !extended),
            ("sampling.min_p", "min_p", sampling.min_p.is_some() && !extended),
            ("sampling.repetition_penalty", "repetition penalty", sampling.repetition_penalty.is_some() && !extended),
        ];
        match there.into_iter().find(|(.., missing)| *missing) {
            Some((field, what, _)) => lacks(field, what),
            None => Ok(()),
        }
    }
}

struct ChatBody<'a> {
    preset: &'a Preset,
    model: &'a str,
    request: &'a ChatRequest,
    stream: bool,
}

impl Serialize for ChatBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { preset, request, .. } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        map.serialize_entry("messages", &Messages { messages: &request.messages, names: preset.names })?;
        if !request.tools.is_empty() {
            map.serialize_entry("tools", &Tools(&request.tools))?;
            if let Some(choice) = &request.tool_choice {
                tool_choice(&mut map, choice)?;
            }
            if let Some(parallel) = request.parallel_tool_calls {
                map.serialize_entry("parallel_tool_calls", &parallel)?;
            }
        }
        if let Some(format) = &request.response_format {
            response_format(&mut map, format, preset)?;
        }
        if let Some(params) = &request.sampling {
            sampling(&mut map, params, preset, preset.max_tokens)?;
        }
        if request.logprobs {
            map.serialize_entry("logprobs", &true)?;
            if request.top_logprobs > 0 {
                map.serialize_entry("top_logprobs", &request.top_logprobs)?;
            }
        }
        if !request.reasoning_effort.is_empty() {
            map.serialize_entry("reasoning_effort", &request.reasoning_effort)?;
        }
        ending(&mut map, preset, request.n, &request.user, self.stream)?;
        map.end()
    }
}

struct CompleteBody<'a> {
    preset: &'a Preset,
    model: &'a str,
    request: &'a CompleteRequest,
    stream: bool,
}

impl Serialize for CompleteBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { preset, request, .. } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        match &request.prompt {
            Some(Prompt::Text(text)) => map.serialize_entry("prompt", text)?,
            Some(Prompt::Tokens(tokens)) => map.serialize_entry("prompt", &tokens.ids)?,
            None => map.serialize_entry("prompt", "")?,
        }
        if let Some(format) = &request.response_format {
            response_format(&mut map, format, preset)?;
        }
        if let Some(params) = &request.sampling {
            // The older call never got the newer name.
            sampling(&mut map, params, preset, "max_tokens")?;
        }
        if request.logprobs {
            map.serialize_entry("logprobs", &request.top_logprobs)?;
        }
        if request.echo {
            map.serialize_entry("echo", &true)?;
        }
        ending(&mut map, preset, request.n, &request.user, self.stream)?;
        map.end()
    }
}

fn ending<M: SerializeMap>(map: &mut M, preset: &Preset, n: u32, user: &str, stream: bool) -> Result<(), M::Error> {
    if n > 1 {
        map.serialize_entry("n", &n)?;
    }
    if !user.is_empty() && preset.user {
        map.serialize_entry("user", user)?;
    }
    map.serialize_entry("stream", &stream)?;
    if stream && preset.stream_options {
        map.serialize_entry("stream_options", &StreamOptions { include_usage: true })?;
    }
    Ok(())
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

fn sampling<M: SerializeMap>(map: &mut M, params: &SamplingParams, preset: &Preset, max_tokens: &str) -> Result<(), M::Error> {
    let mut floats = vec![
        ("temperature", params.temperature),
        ("top_p", params.top_p),
        ("frequency_penalty", params.frequency_penalty),
        ("presence_penalty", params.presence_penalty),
    ];
    if let Extended::All { repetition } = preset.extended {
        floats.extend([("min_p", params.min_p), (repetition, params.repetition_penalty)]);
    }
    for (name, value) in floats {
        if let Some(value) = value {
            map.serialize_entry(name, &value)?;
        }
    }
    if let Some(top_k) = params.top_k {
        map.serialize_entry("top_k", &top_k)?;
    }
    if let Some(seed) = params.seed {
        // A negative one came in as the same 64 bits.
        map.serialize_entry(preset.seed, &seed.cast_signed())?;
    }
    if let Some(most) = params.max_tokens {
        map.serialize_entry(max_tokens, &most)?;
    }
    if !params.stop.is_empty() {
        map.serialize_entry("stop", &params.stop)?;
    }
    if !params.logit_bias.is_empty() {
        map.serialize_entry::<str, HashMap<u32, f32>>("logit_bias", &params.logit_bias)?;
    }
    Ok(())
}

fn tool_choice<M: SerializeMap>(map: &mut M, choice: &ToolChoice) -> Result<(), M::Error> {
    let word = match choice.mode() {
        Mode::Unspecified => return Ok(()),
        Mode::Auto => "auto",
        Mode::None => "none",
        Mode::Required => "required",
        Mode::Named => {
            return map.serialize_entry("tool_choice", &json!({ "type": "function", "function": { "name": choice.name } }));
        }
    };
    map.serialize_entry("tool_choice", word)
}

fn response_format<M: SerializeMap>(map: &mut M, format: &ResponseFormat, preset: &Preset) -> Result<(), M::Error> {
    match &format.format {
        None => Ok(()),
        Some(Format::JsonSchema(schema)) if preset.schemas == Schemas::Value => {
            map.serialize_entry("response_format", &Valued { kind: "json", value: raw::<M>(&schema.schema)? })
        }
        Some(Format::JsonObject(_)) => map.serialize_entry("response_format", &json!({ "type": "json_object" })),
        Some(Format::JsonSchema(schema)) => {
            let schema = SchemaFormat {
                name: if schema.name.is_empty() { "answer" } else { &schema.name },
                description: &schema.description,
                schema: raw::<M>(&schema.schema)?,
                strict: schema.strict,
            };
            map.serialize_entry("response_format", &Typed { kind: "json_schema", json_schema: schema })
        }
        Some(Format::Regex(regex)) => match preset.constraints {
            Constraints::RegexFormat { key } => map.serialize_entry("response_format", &json!({ "type": "regex", key: regex })),
            _ => map.serialize_entry("structured_outputs", &json!({ "regex": regex })),
        },
        Some(Format::Grammar(grammar)) => map.serialize_entry("structured_outputs", &json!({ "grammar": grammar })),
    }
}

#[derive(Serialize)]
struct Typed<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    json_schema: SchemaFormat<'a>,
}

#[derive(Serialize)]
struct Valued<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a RawValue,
}

#[derive(Serialize)]
struct SchemaFormat<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    schema: &'a RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

struct Tools<'a>(&'a [ToolDefinition]);

impl Serialize for Tools<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Tool))
    }
}

struct Tool<'a>(&'a ToolDefinition);

impl Serialize for Tool<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const NO_ARGUMENTS: &str = r#"{"type":"object","properties":{}}"#;
        let Tool(tool) = self;
        let text = if tool.parameters.trim().is_empty() { NO_ARGUMENTS } else { &tool.parameters };
        let parameters: &RawValue = serde_json::from_str(text).map_err(S::Error::custom)?;
        let function = Function { name: &tool.name, description: &tool.description, parameters, strict: tool.strict };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &function)?;
        map.end()
    }
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

/// A schema goes into the body as it was written.
fn raw<M: SerializeMap>(text: &str) -> Result<&RawValue, M::Error> {
    serde_json::from_str(text).map_err(M::Error::custom)
}
