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
    /// Sends vectors as base64 when asked, which is a third of the digits.
    pub(super) base64: bool,
    /// Needs to be told whether it embeds a query or a passage.
    pub(super) input_type: bool,
    pub(super) extended: Extended,
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

/// How a regular expression or a grammar is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constraints {
    None,
    /// vLLM's `structured_outputs: { regex | grammar }`.
    StructuredOutputs,
    /// `response_format: { type: regex, pattern }`, and no grammars.
    RegexFormat,
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
    base64: false,
    input_type: false,
    extended: Extended::All { repetition: "repetition_penalty" },
    constraints: Constraints::None,
};

/// The API itself, without what only others have.
const STRICT: Preset = Preset { extended: Extended::None, ..COMPATIBLE };

const PRESETS: [Preset; 13] = [
    COMPATIBLE,
    Preset { name: "openai", url: "https://api.openai.com/v1", max_tokens: "max_completion_tokens", base64: true, ..STRICT },
    Preset { name: "vllm", url: "http://127.0.0.1:8000/v1", constraints: Constraints::StructuredOutputs, ..COMPATIBLE },
    Preset { name: "ollama", url: "http://127.0.0.1:11434/v1", logprobs: false, logit_bias: false, n: false, ..STRICT },
    Preset { name: "llama-cpp", url: "http://127.0.0.1:8080/v1", extended: Extended::All { repetition: "repeat_penalty" }, ..COMPATIBLE },
    Preset { name: "tgi", url: "http://127.0.0.1:3000/v1", n: false, user: false, ..STRICT },
    Preset { name: "nim", url: "http://127.0.0.1:8000/v1", input_type: true, ..COMPATIBLE },
    // Its logprobs are a number on the way in and lists on the way out.
    Preset { name: "together", url: "https://api.together.xyz/v1", logprobs: false, constraints: Constraints::RegexFormat, ..COMPATIBLE },
    Preset {
        name: "groq",
        url: "https://api.groq.com/openai/v1",
        max_tokens: "max_completion_tokens",
        logprobs: false,
        logit_bias: false,
        n: false,
        ..STRICT
    },
    Preset { name: "fireworks", url: "https://api.fireworks.ai/inference/v1", ..COMPATIBLE },
    Preset { name: "openrouter", url: "https://openrouter.ai/api/v1", n: false, ..COMPATIBLE },
    Preset { name: "deepseek", url: "https://api.deepseek.com/v1", seed: "", logit_bias: false, n: false, user: false, ..STRICT },
    Preset {
        name: "mistral",
        url: "https://api.mistral.ai/v1",
        seed: "random_seed",
        stream_options: false,
        logprobs: false,
        logit_bias: false,
        user: false,
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
