use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_proto::v1;

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokens,
    completion_tokens_details: CompletionTokens,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct PromptTokens {
    cached_tokens: u32,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct CompletionTokens {
    reasoning_tokens: u32,
}

impl From<&v1::Usage> for Usage {
    fn from(usage: &v1::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total_tokens(),
            prompt_tokens_details: PromptTokens { cached_tokens: usage.cached_tokens },
            completion_tokens_details: CompletionTokens { reasoning_tokens: usage.reasoning_tokens },
        }
    }
}
