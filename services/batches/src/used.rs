//! What an answer says that it used. The endpoints name the same figures differently.

use llama_stack_proto::v1::BatchUsage;
use llama_stack_store::LineUsage;
use serde_json::Value;

/// Of an answer of any endpoint. What it does not say counts nothing.
pub(crate) fn by(answer: &Value) -> LineUsage {
    let usage = &answer["usage"];
    let told = |place: &str| usage.pointer(place).and_then(Value::as_u64);
    let either = |one: &str, other: &str| told(one).or_else(|| told(other)).unwrap_or_default();
    let tokens = BatchUsage {
        input_tokens: either("/prompt_tokens", "/input_tokens"),
        cached_tokens: either("/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"),
        output_tokens: either("/completion_tokens", "/output_tokens"),
        reasoning_tokens: either("/completion_tokens_details/reasoning_tokens", "/output_tokens_details/reasoning_tokens"),
    };
    LineUsage { tokens, model: answer["model"].as_str().unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(answer: &Value) -> ([u64; 4], String) {
        let LineUsage { tokens, model } = by(answer);
        ([tokens.input_tokens, tokens.cached_tokens, tokens.output_tokens, tokens.reasoning_tokens], model)
    }

    #[test]
    fn each_endpoint_is_understood() {
        let chat = json!({ "model": "m", "usage": {
            "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
            "prompt_tokens_details": { "cached_tokens": 5 }, "completion_tokens_details": { "reasoning_tokens": 3 },
        } });
        let response = json!({ "model": "m", "usage": {
            "input_tokens": 9, "output_tokens": 4, "total_tokens": 13,
            "input_tokens_details": { "cached_tokens": 5 }, "output_tokens_details": { "reasoning_tokens": 3 },
        } });
        for answer in [chat, response] {
            assert_eq!(told(&answer), ([9, 5, 4, 3], "m".to_owned()));
        }
        let embeddings = json!({ "model": "v", "usage": { "prompt_tokens": 7, "total_tokens": 7 } });
        assert_eq!(told(&embeddings), ([7, 0, 0, 0], "v".to_owned()));
    }

    #[test]
    fn an_answer_that_says_nothing_counts_nothing() {
        for answer in [json!("Bad gateway"), json!({ "error": {} }), json!({ "usage": null }), json!({ "usage": { "prompt_tokens": -3 } })]
        {
            assert_eq!(told(&answer), ([0; 4], String::new()), "{answer}");
        }
    }
}
