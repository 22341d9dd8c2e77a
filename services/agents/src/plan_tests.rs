use llama_stack_proto::v1::{Message, Role, ShieldStep, Step as TurnStep, ToolResult};

use super::*;

fn turn(limits: Limits, steps: Vec<Step>) -> Turn {
    let config = AgentConfig { model: "m".into(), limits: Some(limits), input_shields: vec!["s".into()], ..AgentConfig::default() };
    let passed = Step::Shield(ShieldStep { stage: ShieldStage::Input.into(), verdict: Some(Default::default()), ..ShieldStep::default() });
    let steps = std::iter::once(passed).chain(steps).map(|step| TurnStep { step: Some(step), ..TurnStep::default() }).collect();
    Turn { config: Some(config), steps, ..Turn::default() }
}

fn says(finish: FinishReason, calls: &[&str]) -> Step {
    let parts = calls.iter().map(|id| ToolCall::new(*id, *id, "{}").into()).collect();
    Step::Inference(InferenceStep {
        message: Some(Message::new(Role::Assistant, parts)),
        finish_reason: finish.into(),
        ..Default::default()
    })
}

fn done(id: &str) -> Step {
    Step::Tool(ToolStep { call: Some(ToolCall::new(id, id, "{}")), result: Some(ToolResult::default()), ..ToolStep::default() })
}

fn started(next: Next) -> Vec<String> {
    let Next::Start(steps) = next else { panic!("{next:?}") };
    let name = |step| match step {
        Step::Inference(step) => format!("infer{}", if step.tools_withheld { " without tools" } else { "" }),
        Step::Tool(step) => step.call.unwrap().id,
        Step::Shield(step) => step.shield_id,
        Step::ToolList(step) => step.server_label,
        Step::Handoff(step) => step.agent_id,
        Step::Compaction(_) => "compact".into(),
    };
    steps.into_iter().map(name).collect()
}

fn client(call: &ToolCall) -> bool {
    call.id.starts_with("client")
}

#[test]
fn shields_come_first_then_the_model_then_the_end() {
    let mut fresh = turn(Limits::default(), vec![]);
    fresh.steps.clear();
    assert_eq!(started(next(&fresh, client)), ["s"]);
    assert_eq!(started(next(&turn(Limits::default(), vec![]), client)), ["infer"]);
    let answered = turn(Limits::default(), vec![says(FinishReason::Stop, &[])]);
    assert_eq!(next(&answered, client), Next::End(TurnStatus::Completed, ""));
}

#[test]
fn the_stacks_calls_run_before_the_clients_are_asked_for() {
    let asked = says(FinishReason::ToolCalls, &["client1", "a", "b"]);
    assert_eq!(started(next(&turn(Limits::default(), vec![asked.clone()]), client)), ["a", "b"]);
    // After a crash in between: what has begun is not begun again.
    assert_eq!(started(next(&turn(Limits::default(), vec![asked.clone(), done("b")]), client)), ["a"]);
    let Next::Await(calls) = next(&turn(Limits::default(), vec![asked.clone(), done("a"), done("b")]), client) else { panic!() };
    assert_eq!(calls[0].id, "client1");
    let all = turn(Limits::default(), vec![asked, done("a"), done("b"), done("client1")]);
    assert_eq!(started(next(&all, client)), ["infer"]);
}

#[test]
fn a_turn_of_repeats_alone_loses_its_tools() {
    let asked = |ids| says(FinishReason::ToolCalls, ids);
    let repeated = turn(Limits::default(), vec![asked(&["a"]), done("a"), asked(&["a"]), done("a")]);
    assert_eq!(started(next(&repeated, client)), ["infer without tools"]);
    let mixed = turn(Limits::default(), vec![asked(&["a"]), done("a"), asked(&["a", "b"]), done("a"), done("b")]);
    assert_eq!(started(next(&mixed, client)), ["infer"]);
}

#[test]
fn bounds_hold() {
    let asked = || says(FinishReason::ToolCalls, &["a", "b"]);
    let calls = |max_tool_calls| Limits { max_tool_calls, ..Limits::default() };
    assert_eq!(started(next(&turn(calls(1), vec![asked()]), client)), ["a"]);
    assert_eq!(next(&turn(calls(1), vec![asked(), done("a")]), client), Next::End(TurnStatus::Incomplete, "max_tool_calls"));
    let steps = Limits { max_steps: 1, ..Limits::default() };
    let spent = turn(steps, vec![asked(), done("a"), done("b")]);
    assert_eq!(next(&spent, client), Next::End(TurnStatus::Incomplete, "max_steps"));
    let cut = turn(Limits::default(), vec![says(FinishReason::Length, &["a"])]);
    assert_eq!(next(&cut, client), Next::End(TurnStatus::Incomplete, "max_output_tokens"));
}
