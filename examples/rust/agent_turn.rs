//! An agent with a tool, over gRPC. Start the stack first: `cargo run --release -- run starter`.
//!
//! `cargo run --release --bin agent_turn -- "What is 1234 * 5678?"`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use llama_stack_proto::v1::{
    AgentConfig, CreateAgentRequest, CreateTurnRequest, Limits, Message, SamplingParams, agents_client::AgentsClient, chat_event, step,
    turn_event,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("LLAMA_STACK_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8321".into());
    let question = std::env::args().nth(1).unwrap_or_else(|| "What is 1234 * 5678? Use the calculator.".into());
    let mut agents = AgentsClient::connect(url).await?;

    let config = AgentConfig {
        model: std::env::var("MODEL").unwrap_or_else(|_| "qwen2.5-coder-0.5b-instruct".into()),
        instructions: "You answer briefly. Use the calculator for arithmetic.".into(),
        tools: vec!["calculator".into()],
        sampling: Some(SamplingParams::greedy(200)),
        // A model of this size would go on computing.
        limits: Some(Limits { max_tool_calls: 1, ..Limits::default() }),
        ..AgentConfig::default()
    };
    let agent = agents.create_agent(CreateAgentRequest { config: Some(config) }).await?.into_inner();

    // Without a session the turn begins one of its own.
    let turn = CreateTurnRequest { agent_id: agent.id, input: vec![Message::user(question)], ..CreateTurnRequest::default() };
    let mut events = agents.create_turn(turn).await?.into_inner();
    while let Some(event) = events.message().await? {
        match event.event {
            Some(turn_event::Event::Delta(delta)) => {
                if let Some(chat_event::Event::Text(text)) = delta.event.and_then(|event| event.event) {
                    print!("{text}");
                }
            }
            Some(turn_event::Event::StepCompleted(done)) => {
                if let Some(step::Step::Tool(tool)) = done.step {
                    let (call, result) = (tool.call.unwrap_or_default(), tool.result.unwrap_or_default());
                    println!("[{} {} -> {}]", call.name, call.arguments, result.joined_text());
                }
            }
            Some(turn_event::Event::Ended(turn)) => {
                let usage = turn.usage.unwrap_or_default();
                println!("\n{:?}, {} tokens in, {} out", turn.status(), usage.prompt_tokens, usage.completion_tokens);
            }
            _ => {}
        }
    }
    Ok(())
}
