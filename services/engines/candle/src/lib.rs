//! `inline::candle`: embeddings, classification and reranking in this process, on the CPU.
//!
//! ```text
//!            provider ── admission ── tokens ── batch ── run (blocking threads) ── response
//!                                      │          │       │
//!  directory ─ load ─> Model ─┬────────┘  budget of       └─ Bert:    states → pooling → norm → vector
//!  (files, checked)           └─ tokenizer  tokens           Deberta: logits → softmax → labels
//!                                                           CrossEncoder: logit → score of a document
//! ```
//!
//! It owns no request: what a caller drops is not computed, except for the batch that is being computed.

use llama_stack_core::Registry;

mod attention;
mod batch;
mod bert;
mod cross_encoder;
mod deberta;
mod directory;
mod kernels;
mod linear;
mod load;
mod model;
mod provider;
mod run;
mod tokens;

pub fn register(registry: &mut Registry) {
    registry.inference.add("inline::candle", provider::build);
}
