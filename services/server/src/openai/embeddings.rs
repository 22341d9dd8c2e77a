use axum::extract::State;
use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{EmbedInput, EmbedRequest, EmbedResponse, Tokens, Truncation, embed_input};

use super::{
    fields,
    one_or_many::{Inputs, Prompt},
};
use crate::http::{ApiError, AppState, Caller, Json};

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CreateEmbedding {
    model: String,
    input: Inputs,
    /// Default `float`.
    encoding_format: Option<Encoding>,
    /// Shortens the vectors, for models that were trained for it.
    dimensions: Option<u32>,
    user: Option<String>,
    /// Not OpenAI's: of an input that is longer than the model reads, the end is cut off; else it is refused.
    truncate: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    /// Little-endian 32-bit floats.
    Base64,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct EmbeddingList {
    object: &'static str,
    data: Vec<EmbeddingObject>,
    model: String,
    usage: EmbeddingUsage,
    /// Not OpenAI's: inputs that were cut, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_inputs: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct EmbeddingObject {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize, JsonSchema)]
struct EmbeddingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

pub(crate) async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CreateEmbedding>,
) -> Result<Json<EmbeddingList>, ApiError> {
    let (encoding, model, one) = (body.encoding_format.unwrap_or_default(), body.model.clone(), body.input.is_one());
    let response = cx.within(state.inference.embed(&cx, body.into_proto()?)).await;
    let response = response.map_err(|error| fields::of_embedding(error, one))?;
    Ok(Json(EmbeddingList::new(response, model, encoding)))
}

impl CreateEmbedding {
    fn into_proto(self) -> Result<EmbedRequest> {
        if self.dimensions == Some(0) {
            return Err(Error::invalid("dimensions", "dimensions must be at least 1"));
        }
        let prompts = self.input.into_prompts().map_err(|index| {
            let path = format!("input[{index}]");
            Error::invalid(&path, format!("{path}: texts and tokens cannot be mixed")).with_reason("invalid_type")
        })?;
        let input = |prompt| match prompt {
            Prompt::Text(text) => embed_input::Input::Text(text),
            Prompt::Tokens(ids) => embed_input::Input::Tokens(Tokens { ids }),
        };
        let truncation = if self.truncate == Some(true) { Truncation::End } else { Truncation::Unspecified };
        Ok(EmbedRequest {
            model: self.model,
            inputs: prompts.into_iter().map(|prompt| EmbedInput { input: Some(input(prompt)) }).collect(),
            dimensions: self.dimensions.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            truncation: truncation.into(),
            ..EmbedRequest::default()
        })
    }
}

impl EmbeddingList {
    fn new(response: EmbedResponse, model: String, encoding: Encoding) -> Self {
        let usage = response.usage.unwrap_or_default();
        let vector = |values: Vec<f32>| match encoding {
            Encoding::Float => Vector::Floats(values),
            Encoding::Base64 => Vector::Base64(STANDARD.encode(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())),
        };
        let object = |(index, values)| EmbeddingObject { object: "embedding", index, embedding: vector(values) };
        Self {
            object: "list",
            data: response.embeddings.into_iter().map(|embedding| embedding.values).enumerate().map(object).collect(),
            model,
            truncated_inputs: (response.truncated_inputs > 0).then_some(response.truncated_inputs),
            usage: EmbeddingUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens },
        }
    }
}
