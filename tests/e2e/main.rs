//! Whole stacks on free ports, with a model whose words are fixed, spoken to over gRPC and HTTP.

mod conformance;
mod running;
mod stacks;
mod turns;
