//! What chats and completions both say of how to generate.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;

use llama_stack_core::{Error, Result};

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(crate) struct StreamOptions {
    /// One more chunk, before the end, with the usage and no choices.
    pub(crate) include_usage: Option<bool>,
}

/// Adds to a request the fields that chats and completions share, and what reads them.
///
/// They are fields of the request itself because serde loses the path of a wrong field in a flattened part.
macro_rules! generation {
    ($(#[$attribute:meta])* pub(crate) struct $request:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        pub(crate) struct $request {
            $($own)*
            temperature: Option<f32>,
            top_p: Option<f32>,
            frequency_penalty: Option<f32>,
            presence_penalty: Option<f32>,
            seed: Option<i64>,
            stop: Option<$crate::openai::one_or_many::TextOr<String>>,
            /// Token id to bias.
            logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            n: Option<u32>,
            stream: Option<bool>,
            stream_options: Option<$crate::openai::generation::StreamOptions>,
            user: Option<String>,
            /// Not OpenAI's.
            top_k: Option<u32>,
            /// Not OpenAI's.
            min_p: Option<f32>,
            /// Not OpenAI's.
            repetition_penalty: Option<f32>,
        }

        impl $request {
            /// # Errors
            /// `InvalidArgument` for stream options without a stream.
            pub(crate) fn streams(&self) -> llama_stack_core::Result<bool> {
                $crate::openai::generation::streams(self.stream, self.stream_options)
            }

            pub(crate) fn include_usage(&self) -> bool {
                self.stream_options.and_then(|options| options.include_usage).unwrap_or_default()
            }

            /// # Errors
            /// `InvalidArgument` for none.
            fn choices(&self) -> llama_stack_core::Result<u32> {
                $crate::openai::generation::choices(self.n)
            }

            /// Takes out how tokens are chosen.
            ///
            /// # Errors
            /// `InvalidArgument`, with the path of the field.
            fn sampling(&mut self, max_tokens: Option<u32>) -> llama_stack_core::Result<llama_stack_proto::v1::SamplingParams> {
                Ok(llama_stack_proto::v1::SamplingParams {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    frequency_penalty: self.frequency_penalty,
                    presence_penalty: self.presence_penalty,
                    repetition_penalty: self.repetition_penalty,
                    // Any 64 bits will do as a seed; negative ones are taken as they are.
                    seed: self.seed.map(i64::cast_unsigned),
                    max_tokens,
                    stop: self.stop.take().map($crate::openai::one_or_many::TextOr::into_list).unwrap_or_default(),
                    logit_bias: $crate::openai::generation::logit_bias(self.logit_bias.take())?,
                })
            }
        }
    };
}
pub(crate) use generation;

pub(crate) fn streams(stream: Option<bool>, options: Option<StreamOptions>) -> Result<bool> {
    let streams = stream.unwrap_or_default();
    if !streams && options.is_some() {
        return Err(Error::invalid("stream_options", "stream_options is only for stream: true"));
    }
    Ok(streams)
}

/// In the proto 0 means 1; here it is a mistake.
pub(crate) fn choices(n: Option<u32>) -> Result<u32> {
    match n {
        Some(0) => Err(Error::invalid("n", "n must be at least 1")),
        n => Ok(n.unwrap_or(1)),
    }
}

/// JSON's keys are strings; tokens are numbers.
pub(crate) fn logit_bias(bias: Option<BTreeMap<String, f32>>) -> Result<HashMap<u32, f32>> {
    let entries = bias.unwrap_or_default().into_iter().map(|(token, bias)| match token.parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => {
            let path = format!("logit_bias.{token}");
            Err(Error::invalid(&path, format!("{path}: keys of logit_bias are token ids")))
        }
    });
    entries.collect()
}
