//! What generations cost and how long they took, as OpenTelemetry's GenAI conventions measure it.
//!
//! Source of names, units and bucket boundaries: the semantic conventions 1.41 for generative AI, "metrics".

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use llama_stack_proto::v1::Usage;

const TOKENS: [f64; 14] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0];
const DURATION: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN: [f64; 16] = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

pub(crate) struct Instruments {
    tokens: Histogram<u64>,
    duration: Histogram<f64>,
    first_token: Histogram<f64>,
    per_token: Histogram<f64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, text: &'static str, boundaries: &[f64]| {
            meter.f64_histogram(name).with_unit("s").with_description(text).with_boundaries(boundaries.to_vec()).build()
        };
        Self {
            tokens: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_description("Tokens read and written by an operation.")
                .with_boundaries(TOKENS.to_vec())
                .build(),
            duration: seconds("gen_ai.client.operation.duration", "How long an operation took.", &DURATION),
            first_token: seconds("gen_ai.server.time_to_first_token", "Until the first token of an answer.", &FIRST_TOKEN),
            per_token: seconds("gen_ai.server.time_per_output_token", "Between the tokens of an answer after its first.", &PER_TOKEN),
        }
    }

    pub(crate) fn tokens(&self, operation: &'static str, model: &str, usage: &Usage) {
        for (kind, count) in [("input", usage.prompt_tokens), ("output", usage.completion_tokens)] {
            if count > 0 {
                let mut attributes = of(operation, model);
                attributes.push(KeyValue::new("gen_ai.token.type", kind));
                self.tokens.record(count.into(), &attributes);
            }
        }
    }

    /// `error`: a stable word, where it failed.
    pub(crate) fn took(&self, operation: &'static str, model: &str, time: Duration, error: Option<&str>) {
        let mut attributes = of(operation, model);
        attributes.extend(error.map(|error| KeyValue::new("error.type", error.to_owned())));
        self.duration.record(time.as_secs_f64(), &attributes);
    }

    pub(crate) fn first_token(&self, operation: &'static str, model: &str, time: Duration) {
        self.first_token.record(time.as_secs_f64(), &of(operation, model));
    }

    pub(crate) fn per_token(&self, operation: &'static str, model: &str, time: Duration) {
        self.per_token.record(time.as_secs_f64(), &of(operation, model));
    }
}

fn of(operation: &'static str, model: &str) -> Vec<KeyValue> {
    let model = model.to_owned();
    vec![
        KeyValue::new("gen_ai.operation.name", operation),
        KeyValue::new("gen_ai.provider.name", super::PROVIDER),
        KeyValue::new("gen_ai.request.model", model.clone()),
        KeyValue::new("gen_ai.response.model", model),
    ]
}
