//! What is known of the servers that speak the OpenAI API: where they are, and where they differ from it.
//!
//! Sources: each project's own API reference. A server that is not here is `compatible`: it is taken at its word.

use llama_stack_core::{Error, Result};

/// One kind of server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// Empty: the configuration must give one.
    pub(super) url: &'static str,
    /// What `max_tokens` is called in a chat.
    pub(super) max_tokens: &'static str,
    /// What `seed` is called; empty: there is none.
    pub(super) seed: &'static str,
    /// Takes `stream_options.include_usage`; those who do not send the usage unasked.
    pub(super) stream_options: bool,
    pub(super) logprobs: bool,
    pub(super) logit_bias: bool,
    /// Several answers to one request.
    pub(super) n: bool,
    /// Takes `user`; some refuse what they do not know.
    pub(super) user: bool,
    /// Takes the `name` and the `refusal` of a message, likewise.
    pub(super) names: bool,
    /// Sends vectors as base64 when asked, which is a third of the digits.
    pub(super) base64: bool,
    /// Needs to be told whether it embeds a query or a passage.
    pub(super) input_type: bool,
    /// Calls an embedding's `dimensions` `output_dimension`.
    pub(super) output_dimension: bool,
    pub(super) extended: Extended,
    pub(super) schemas: Schemas,
    pub(super) constraints: Constraints,
}

/// Sampling parameters that the OpenAI API does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extended {
    None,
    /// `top_k`, `min_p`, and the repetition penalty under this name.
    All {
        repetition: &'static str,
    },
}

/// How a JSON Schema is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schemas {
    /// Not at all: only JSON of any shape.
    None,
    /// `response_format: { type: json_schema, json_schema: { name, schema, … } }`.
    Named,
    /// TGI's `response_format: { type: json, value: schema }`, and no JSON without a schema.
    Value,
}

/// How a regular expression or a grammar is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constraints {
    None,
    /// vLLM's `structured_outputs: { regex | grammar }`.
    StructuredOutputs,
    /// `response_format: { type: regex, <key>: expression }`, and no grammars.
    RegexFormat {
        key: &'static str,
    },
}

const COMPATIBLE: Preset = Preset {
    name: "compatible",
    url: "",
    max_tokens: "max_tokens",
    seed: "seed",
    stream_options: true,
    logprobs: true,
    logit_bias: true,
    n: true,
    user: true,
    names: true,
    base64: false,
    input_type: false,
    output_dimension: false,
    extended: Extended::All { repetition: "repetition_penalty" },
    schemas: Schemas::Named,
    constraints: Constraints::None,
};

/// The API itself, without what only others have.
const STRICT: Preset = Preset { extended: Extended::None, ..COMPATIBLE };

const PRESETS: [Preset; 13] = [
    COMPATIBLE,
    Preset { name: "openai", url: "https://api.openai.com/v1", max_tokens: "max_completion_tokens", base64: true, ..STRICT },
    Preset { name: "vllm", url: "http://127.0.0.1:8000/v1", constraints: Constraints::StructuredOutputs, ..COMPATIBLE },
    Preset { name: "ollama", url: "http://127.0.0.1:11434/v1", logit_bias: false, n: false, ..STRICT },
    Preset { name: "llama-cpp", url: "http://127.0.0.1:8080/v1", extended: Extended::All { repetition: "repeat_penalty" }, ..COMPATIBLE },
    // Its own form of response_format, since before there was OpenAI's: huggingface/text-generation-inference#2046, #2899.
    Preset {
        name: "tgi",
        url: "http://127.0.0.1:3000/v1",
        logit_bias: false,
        n: false,
        user: false,
        schemas: Schemas::Value,
        constraints: Constraints::RegexFormat { key: "value" },
        ..STRICT
    },
    Preset { name: "nim", url: "http://127.0.0.1:8000/v1", input_type: true, ..COMPATIBLE },
    // Its logprobs are a number on the way in and lists on the way out.
    Preset {
        name: "together",
        url: "https://api.together.ai/v1",
        logprobs: false,
        constraints: Constraints::RegexFormat { key: "pattern" },
        ..COMPATIBLE
    },
    // Answers 400 to logprobs, logit_bias, n and names: console.groq.com/docs/openai.
    Preset {
        name: "groq",
        url: "https://api.groq.com/openai/v1",
        max_tokens: "max_completion_tokens",
        logprobs: false,
        logit_bias: false,
        n: false,
        names: false,
        ..STRICT
    },
    Preset { name: "fireworks", url: "https://api.fireworks.ai/inference/v1", ..COMPATIBLE },
    Preset { name: "openrouter", url: "https://openrouter.ai/api/v1", n: false, ..COMPATIBLE },
    Preset {
        name: "deepseek",
        url: "https://api.deepseek.com/v1",
        seed: "",
        logit_bias: false,
        n: false,
        user: false,
        schemas: Schemas::None,
        ..STRICT
    },
    // Answers 422 to every field that it does not know, within messages too: mistralai/platform-docs-public#7.
    Preset {
        name: "mistral",
        url: "https://api.mistral.ai/v1",
        seed: "random_seed",
        stream_options: false,
        logprobs: false,
        logit_bias: false,
        user: false,
        names: false,
        output_dimension: true,
        ..STRICT
    },
];

/// # Errors
/// `InvalidArgument` for a name that is not in the table, with those that are.
pub(super) fn named(name: Option<&str>) -> Result<&'static Preset> {
    let name = name.filter(|name| !name.is_empty()).unwrap_or(COMPATIBLE.name);
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let there: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        Error::invalid("config.preset", format!("no preset {name:?}; there is: {}", there.join(", ")))
    })
}
