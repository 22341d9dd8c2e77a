//! Small constructors and getters beside the generated messages. No state, no policy.

mod batches;
mod chat;
mod memory;
mod message;
