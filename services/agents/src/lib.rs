//! Agents: sessions, and turns that go on until the model has answered.
//!
//! ```text
//! CreateTurn ─ turns ─ journal the input ─┐
//! ResumeTurn ─ turns ─ journal the results┼─> run ── plan (pure: what is next?) ─┬─ infer ── Inference
//! recover ──── journals nobody owns ──────┘    │                                 ├─ calls ── Tools
//!                                              │                                 └─ shields ─ Safety
//!                                              └─ journal: intent, effect, result ─┬─ Store (durable)
//! WatchTurn ── watch ── Store's journal, then the live tail <────── live ──────────┘
//! ```
//!
//! What shields judge is `judged`, how they are asked `shields`, and how an answer is shown while they judge it `moderate`.
//! An answer that the model gives while they judge its question waits in `ahead`.
//!
//! A turn that runs is held under a lease, which is renewed (`lease`); one whose owner is gone is picked up.
//!
//! A turn is a fold over its journal ([`fold`]), and what it does next depends on that fold alone (`plan`):
//! to go on after a crash is to read the journal and take the next step.

mod agents;
mod ahead;
mod arguments;
mod begin;
mod calls;
mod check;
mod citations;
mod compact;
mod conversation;
mod declared;
mod delegate;
mod edge;
mod file_search;
pub mod fold;
mod hash;
mod history;
mod infer;
mod journal;
mod judged;
mod lease;
mod live;
mod moderate;
mod pieces;
mod pins;
mod plan;
mod prompts;
mod recover;
mod redact;
mod run;
mod runtime;
mod servers;
mod sessions;
mod shields;
mod summary;
mod toolbox;
mod turns;
mod watch;

pub use judged::fingerprint;
pub use prompts::{PromptBook, render as render_prompt};
pub use runtime::{Admit, Runtime, RuntimeParts};
pub use servers::Connect;
