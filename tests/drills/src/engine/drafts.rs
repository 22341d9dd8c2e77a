//! Text that repeats its prompt, as the arguments of tool calls do: with and without guesses at it.

use llama_stack_proto::v1::{CompleteRequest, SamplingParams};
use llama_stack_tests::conformance::local::{QWEN, qwen_spec};
use serde_json::json;

use super::{
    answer::{complete, engine, with_options},
    cores,
};
use crate::figures::median;

/// A request, the call that it asks for, and another request.
const PROMPT: &str = r#"Request: Book a table for Margarethe Hohenstein-Oberkirchner, phone +43 660 7741 2290, at "Zum Goldenen Hirschen", Maximilianstrasse 118, 80539 Muenchen, for 7 guests on 2026-03-19 at 19:45; one of them needs a wheelchair ramp, two are allergic to peanuts and shellfish.
Call: {"name": "book_table", "arguments": {"guest": "Margarethe Hohenstein-Oberkirchner", "phone": "+43 660 7741 2290", "restaurant": "Zum Goldenen Hirschen", "address": "Maximilianstrasse 118, 80539 Muenchen", "guests": 7, "date": "2026-03-19", "time": "19:45", "notes": "one of them needs a wheelchair ramp, two are allergic to peanuts and shellfish"}}

Request: Book a table for Bartholomew Featherstonehaugh-Cholmondeley, phone +44 20 7946 0321, at "The Wandering Albatross", 27 Saltmarsh Quayside Terrace, Lymington SO41 3RQ, for 5 guests on 2026-08-02 at 20:15; one of them celebrates her ninetieth birthday, three are vegetarians and would like a quiet corner.
Call:"#;

pub(super) async fn run(long: bool) {
    let (tokens, rounds) = if long { (112, 9) } else { (64, 2) };
    let with = |drafts: bool| with_options(qwen_spec(), json!({ "threads": cores(), "drafts": drafts }));
    let (without, with) = (engine("inline::llama-cpp", with(false)).await, engine("inline::llama-cpp", with(true)).await);
    let request = || CompleteRequest { sampling: Some(SamplingParams::greedy(tokens)), ..CompleteRequest::text(QWEN, PROMPT) };
    for engine in [&without, &with] {
        complete(engine, request()).await;
    }
    let (mut plain, mut guessed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain.push(complete(&without, request()).await.decode());
        guessed.push(complete(&with, request()).await.decode());
    }
    let (plain, guessed) = (median(plain), median(guessed));
    println!("\n{:<28} {:>10}", "tool arguments", "tokens/s");
    println!("{:<28} {plain:>10.1}", "without drafts");
    println!("{:<28} {guessed:>10.1}   ratio {:.2}", "with drafts", guessed / plain);
}
