//! An agent's session: each turn's prompt is all that was said before, and as much new text as any other turn's.

use std::sync::Arc;

use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{ChatRequest, Message, Role, ToolCall, ToolDefinition, ToolResult};
use llama_stack_tests::conformance::local::{QWEN, qwen_spec};
use serde_json::{Value, json};

use super::{
    answer::{Timed, chat, engine, with_options},
    cores,
};
use crate::figures::median;

const TURNS: usize = 20;

const SYSTEM: &str = "You look after a warehouse of spare parts for agricultural machines, and you help its clerks. \
Look up what you are asked for with the tools, never guess a number, and answer in one short sentence. Shelves are named by an aisle, a \
letter and a level, for example 14-C-3. A reservation lasts for two working days. Orders of more than fifty pieces, or above four thousand \
euros, need the consent of the head of purchasing; say so before you place one. If a part is out of stock, name the date of the next \
delivery and offer the nearest equivalent part of the same maker.";

const TOOLS: [(&str, &str); 8] = [
    ("look_up_part", "Name, maker, weight and price of a part, by its number or by a part of its name"),
    ("count_stock", "How many pieces of a part are in the warehouse, on which shelves, and how many of them are reserved"),
    ("reserve_pieces", "Puts pieces of a part aside for a customer; the reservation ends by itself after two working days"),
    ("release_pieces", "Gives reserved pieces of a part back before their reservation ends by itself"),
    ("order_pieces", "Orders pieces of a part from its maker, with the date by which they have to be here"),
    ("list_deliveries", "Deliveries of a part that are on their way, with their dates and their numbers of pieces"),
    ("move_pieces", "Moves pieces of a part from one shelf to another, and tells the next round of the fork lift"),
    ("find_equivalents", "Parts of the same or another maker that fit in the place of a part, the nearest first"),
];

pub(super) struct Found {
    /// Of the prompts of turns 2 to 20, the share that was known.
    pub(super) hits: f64,
    /// Time to the first token of turn 20, by that of turn 2.
    pub(super) growth: f64,
}

pub(super) async fn run(long: bool) -> Found {
    let spec = |reuse: bool| {
        let mut spec = with_options(qwen_spec(), json!({ "threads": cores(), "prefix_reuse": reuse }));
        spec["context_length"] = 8_192.into();
        spec
    };
    let reusing = engine("inline::llama-cpp", spec(true)).await;
    let runs = if long { 3 } else { 1 };
    let mut sessions = Vec::new();
    for run in 0..runs {
        let mut session = Vec::new();
        for turn in 1..=TURNS {
            session.push(ask(&reusing, &format!("session-{run}"), turn).await);
        }
        eprintln!(
            "PROBE {:?}",
            session.iter().map(|t: &Timed| ((t.first * 1e3) as u32, t.usage.prompt_tokens - t.usage.cached_tokens)).collect::<Vec<_>>()
        );
        sessions.push(session);
    }
    let known = [ask(&reusing, "session-0", 2).await.first, ask(&reusing, "session-0", TURNS).await.first];
    drop(reusing);
    let forgetting = engine("inline::llama-cpp", spec(false)).await;
    let mut anew = [Vec::new(), Vec::new()];
    for _ in 0..runs {
        anew[0].push(ask(&forgetting, "session", 2).await.first);
        anew[1].push(ask(&forgetting, "session", TURNS).await.first);
    }
    let anew = anew.map(median);
    drop(forgetting);

    let later = || sessions.iter().flat_map(|session| &session[1..]);
    let of = |part: fn(&Timed) -> u32| f64::from(later().map(part).sum::<u32>());
    let hits = of(|answer| answer.usage.cached_tokens) / of(|answer| answer.usage.prompt_tokens);
    let first = |turn: usize| median(sessions.iter().map(|session| session[turn - 1].first).collect());
    let length = |turn: usize| sessions[0][turn - 1].usage.prompt_tokens;
    println!("\n{:<28} {:>10} {:>10} {:>8} {:>8}", "first token, s", "turn 2", "turn 20", "ratio", "hits");
    println!("{:<28} {:>10} {:>10}", "prompt, tokens", length(2), length(TURNS));
    println!("{:<28} {:>10.3} {:>10.3} {:>8.2} {hits:>8.3}", "inline::llama-cpp", first(2), first(TURNS), first(TURNS) / first(2));
    println!("{:<28} {:>10.3} {:>10.3} {:>8.2}", "  asked again", known[0], known[1], known[1] / known[0]);
    println!("{:<28} {:>10.3} {:>10.3} {:>8.2}", "  prefix_reuse: false", anew[0], anew[1], anew[1] / anew[0]);
    if long {
        println!("{:<28} {:>10.3} {:>10}", "inline::mistralrs", mistral().await, "-");
    }
    Found { hits, growth: first(TURNS) / first(2) }
}

/// Time to the first token of turn 2, after turn 1.
async fn mistral() -> f64 {
    let engine = engine("inline::mistralrs", qwen_spec()).await;
    ask(&engine, "session", 1).await;
    ask(&engine, "session", 2).await.first
}

/// A session is its tenant's: what one has read is of no use to the next.
async fn ask(engine: &Arc<dyn Inference>, session: &str, turn: usize) -> Timed {
    let mut request = ChatRequest::new(QWEN, history(turn)).greedy(1);
    request.tools = tools();
    chat(engine, &Context::test(session), request).await
}

/// What the model is sent in a turn, counted from 1. What it really answered is of no account: the texts are fixed.
fn history(turn: usize) -> Vec<Message> {
    let mut messages = vec![Message::system(SYSTEM)];
    for past in 1..turn {
        let call = ToolCall::new(format!("call_{past}"), "count_stock", json!({ "part": part(past) }).to_string());
        let result = json!({ "pieces": 100 + past, "reserved": 10 + past, "shelf": format!("{}-C-3", 10 + past) });
        messages.push(Message::user(question(past)));
        let answered = Message::tool(vec![ToolResult::text(&call, result.to_string(), false)]);
        messages.push(Message::new(Role::Assistant, vec![call.into()]));
        messages.push(answered);
        messages.push(Message::assistant(format!("{} pieces.", 100 + past)));
    }
    messages.push(Message::user(question(turn)));
    messages
}

fn question(turn: usize) -> String {
    format!("How many {} are left?", part(turn))
}

/// Numbers of equal length, so that turns are.
fn part(turn: usize) -> String {
    format!("AX-{}", 4_000 + turn)
}

fn tools() -> Vec<ToolDefinition> {
    TOOLS.iter().map(|(name, description)| ToolDefinition::new(*name, *description, parameters().to_string())).collect()
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "part": { "type": "string", "description": "The part's number, for example AX-4000" },
            "pieces": { "type": "integer", "minimum": 1, "description": "How many" },
        },
        "required": ["part"],
    })
}
