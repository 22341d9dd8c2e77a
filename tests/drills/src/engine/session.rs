//! An agent's session: each turn's prompt is all that was said before, and as much new text as any other turn's.

use std::sync::Arc;

use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{ChatRequest, Message, Part, Role, ToolCall, ToolDefinition, ToolResult};
use llama_stack_tests::conformance::local::{QWEN, qwen_spec};
use serde_json::{Value, json};

use super::{
    answer::{Timed, chat, engine, with_options},
    cores,
};
use crate::figures::median;

const TURNS: usize = 20;

/// The newest exchange of a turn has one of these: the same turn once more, and not yet read.
const TAKES: [&str; 3] = ["Let me look.", "One moment, please.", "Right away."];

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
    let runs = if long { 3 } else { 1 };
    let mut seen = Seen::default();
    let reusing = engine("inline::llama-cpp", spec(true)).await;
    for run in 0..runs {
        seen.session(&reusing, &format!("session-{run}")).await;
    }
    drop(reusing);
    let mut anew = Seen::default();
    let forgetting = engine("inline::llama-cpp", spec(false)).await;
    for _ in 0..runs {
        anew.second.push(ask(&forgetting, "session", 2, 0).await.first);
        if long {
            anew.last.push(ask(&forgetting, "session", TURNS, 0).await.first);
        }
    }
    drop(forgetting);

    let hits = f64::from(seen.cached) / f64::from(seen.prompts);
    println!("\n{:<28} {:>10} {:>10} {:>8} {:>8}", "first token, s", "turn 2", "turn 20", "ratio", "hits");
    let growth = row("inline::llama-cpp", seen.second, seen.last, &format!("{hits:.3}"));
    row("  prefix_reuse: false", anew.second, anew.last, "-");
    if long {
        row("inline::mistralrs", vec![mistral().await], Vec::new(), "-");
    }
    Found { hits, growth }
}

/// The ratio of the medians.
fn row(name: &str, second: Vec<f64>, last: Vec<f64>, hits: &str) -> f64 {
    let second = median(second);
    if last.is_empty() {
        println!("{name:<28} {second:>10.3} {:>10} {:>8} {hits:>8}", "-", "-");
        return f64::NAN;
    }
    let last = median(last);
    println!("{name:<28} {second:>10.3} {last:>10.3} {:>8.2} {hits:>8}", last / second);
    last / second
}

/// Of sessions.
#[derive(Default)]
struct Seen {
    /// Seconds to the first token of turn 2, and of the last turn.
    second: Vec<f64>,
    last: Vec<f64>,
    /// Tokens of the prompts after the first, and how many of them were known.
    prompts: u32,
    cached: u32,
}

impl Seen {
    async fn session(&mut self, engine: &Arc<dyn Inference>, session: &str) {
        ask(engine, session, 1, 0).await;
        for turn in 2..=TURNS {
            let answer = ask(engine, session, turn, 0).await;
            self.prompts += answer.usage.prompt_tokens;
            self.cached += answer.usage.cached_tokens;
            let times = match turn {
                2 => &mut self.second,
                TURNS => &mut self.last,
                _ => continue,
            };
            times.push(answer.first);
            for take in 1..TAKES.len() {
                times.push(ask(engine, session, turn, take).await.first);
            }
        }
    }
}

/// Time to the first token of turn 2, after turn 1.
async fn mistral() -> f64 {
    let engine = engine("inline::mistralrs", qwen_spec()).await;
    ask(&engine, "session", 1, 0).await;
    ask(&engine, "session", 2, 0).await.first
}

/// A session is its tenant's: what one has read is of no use to the next.
async fn ask(engine: &Arc<dyn Inference>, session: &str, turn: usize, take: usize) -> Timed {
    let mut request = ChatRequest::new(QWEN, history(turn, take)).greedy(1);
    request.tools = tools();
    chat(engine, &Context::test(session), request).await
}

/// What the model is sent in a turn, counted from 1. What it really answered is of no account: the texts are fixed.
fn history(turn: usize, take: usize) -> Vec<Message> {
    let mut messages = vec![Message::system(SYSTEM)];
    for past in 1..turn {
        let call = ToolCall::new(format!("call_{past}"), "count_stock", json!({ "part": part(past) }).to_string());
        let result = json!({ "pieces": 100 + past, "reserved": 10 + past, "shelf": format!("{}-C-3", 10 + past) });
        messages.push(Message::user(question(past)));
        let answered = Message::tool(vec![ToolResult::text(&call, result.to_string(), false)]);
        let text = TAKES[if past + 1 == turn { take } else { 0 }];
        messages.push(Message::new(Role::Assistant, vec![Part::text(text), call.into()]));
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
