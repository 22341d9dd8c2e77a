use llama_stack_proto::v1::{
    AgentConfig, Message, Role, RunShieldResponse, ShieldStage, ShieldStep, Step as TurnStep, ToolResult, Violation, violation::Level,
};

use super::*;

impl<F: Fn(&ToolCall) -> bool> Desk for F {
    fn runner(&self, call: &ToolCall) -> RunBy {
        if self(call) { RunBy::Client } else { RunBy::Stack }
    }

    fn gate(&self, call: &ToolCall) -> Gate {
        match call.id.as_str() {
            id if id.starts_with("ask") => Gate::Ask { asked_by: "agent".into(), policy: String::new() },
            id if id.starts_with("shut") => Gate::Shut { policy: "deny:p".into() },
            _ => Gate::Open { policy: String::new() },
        }
    }

    fn request(&self, call: &ToolCall, asked_by: &str) -> ApprovalRequest {
        ApprovalRequest {
            id: format!("approve {}", call.id),
            call: Some(call.clone()),
            asked_by: asked_by.into(),
            ..ApprovalRequest::default()
        }
    }
}

fn next(turn: &Turn, desk: fn(&ToolCall) -> bool) -> Next {
    super::next(&Fold { turn: turn.clone(), ..Fold::default() }, &desk)
}

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
    fresh.input = vec![Message::user("hi"), Message::user("hi"), Message::user("there")];
    assert_eq!(started(next(&fresh, client)), ["s", "s"], "each text once");
    let Next::Start(steps) = next(&fresh, client) else { panic!() };
    for step in steps {
        let Step::Shield(shield) = step else { panic!() };
        let judged = ShieldStep { verdict: Some(Default::default()), ..shield };
        fresh.steps.push(TurnStep { step: Some(Step::Shield(judged)), ..TurnStep::default() });
    }
    assert_eq!(started(next(&fresh, client)), ["infer"]);
    let answered = turn(Limits::default(), vec![says(FinishReason::Stop, &[])]);
    assert_eq!(next(&answered, client), Next::End(TurnStatus::Completed, ""));
}

#[test]
fn the_stacks_calls_run_before_the_clients_are_asked_for() {
    let asked = says(FinishReason::ToolCalls, &["client1", "a", "b"]);
    assert_eq!(started(next(&turn(Limits::default(), vec![asked.clone()]), client)), ["a", "b"]);
    // After a crash in between: what has begun is not begun again.
    assert_eq!(started(next(&turn(Limits::default(), vec![asked.clone(), done("b")]), client)), ["a"]);
    let Next::Await(calls, _) = next(&turn(Limits::default(), vec![asked.clone(), done("a"), done("b")]), client) else { panic!() };
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
    let last = says(FinishReason::ToolCalls, &["a"]);
    assert_eq!(started(next(&turn(calls(1), vec![last, done("a")]), client)), ["infer without tools"], "it answers with what it has");
    let steps = Limits { max_steps: 1, ..Limits::default() };
    let spent = turn(steps, vec![asked(), done("a"), done("b")]);
    assert_eq!(next(&spent, client), Next::End(TurnStatus::Incomplete, "max_steps"));
    let cut = turn(Limits::default(), vec![says(FinishReason::Length, &["a"])]);
    assert_eq!(next(&cut, client), Next::End(TurnStatus::Incomplete, "max_output_tokens"));
}

#[test]
fn a_call_that_needs_a_word_waits_for_it_after_those_that_do_not() {
    let said = says(FinishReason::ToolCalls, &["ask1", "client1", "a", "shut1"]);
    assert_eq!(started(next(&turn(Limits::default(), vec![said.clone()]), client)), ["a", "shut1"]);
    let begun = turn(Limits::default(), vec![said.clone(), done("a"), done("shut1")]);
    let Next::Await(calls, approvals) = next(&begun, client) else { panic!() };
    assert_eq!((calls.len(), approvals[0].id.as_str()), (1, "approve ask1"));
    // Decided on, it begins, whatever was decided: a call that was denied has that as its result.
    let decided = vec![(approvals[0].clone(), None)];
    let next = super::next(&Fold { turn: begun, decided, ..Fold::default() }, &(client as fn(&ToolCall) -> bool));
    let Next::Start(steps) = next else { panic!("{next:?}") };
    let [Step::Tool(tool)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(tool.approval_request_id, "approve ask1");
}

#[test]
fn a_turn_carries_out_what_was_decided_on_its_parents_calls_before_it_asks_the_model() {
    let mut fresh = turn(Limits::default(), vec![]);
    fresh.decided = vec![ApprovalRequest { id: "r".into(), call: Some(ToolCall::new("ask1", "ask1", "{}")), ..ApprovalRequest::default() }];
    let fold = Fold { decided: vec![(fresh.decided[0].clone(), None)], turn: fresh.clone(), ..Fold::default() };
    assert_eq!(started(super::next(&fold, &(client as fn(&ToolCall) -> bool))), ["ask1"]);
    fresh.steps.push(TurnStep { step: Some(done("ask1")), ..TurnStep::default() });
    assert_eq!(started(super::next(&Fold { turn: fresh, ..fold }, &(client as fn(&ToolCall) -> bool))), ["infer"]);
}

#[test]
fn an_inference_that_was_cut_off_is_made_again() {
    let cut = Step::Inference(InferenceStep { cut_off: true, ..InferenceStep::default() });
    assert_eq!(started(next(&turn(Limits { max_steps: 1, ..Limits::default() }, vec![cut]), client)), ["infer"]);
}

fn arguments(id: &str, violation: Option<Violation>) -> Step {
    let verdict = Some(RunShieldResponse { violation, ..RunShieldResponse::default() });
    Step::Shield(ShieldStep { stage: ShieldStage::ToolArguments.into(), call_id: id.into(), verdict, ..ShieldStep::default() })
}

#[test]
fn a_call_whose_arguments_a_shield_refused_waits_for_nobody() {
    let violation = || Some(Violation { level: Level::Error.into(), ..Violation::default() });
    let said = says(FinishReason::ToolCalls, &["ask1", "client1", "a"]);
    let judged = |ids: [Option<Violation>; 3]| {
        let [ask, client, ours] = ids;
        vec![said.clone(), arguments("ask1", ask), arguments("client1", client), arguments("a", ours)]
    };
    let refused = turn(Limits::default(), judged([violation(), violation(), violation()]));
    assert_eq!(started(next(&refused, client)), ["ask1", "client1", "a"]);
    let warned = Some(Violation { level: Level::Warn.into(), ..Violation::default() });
    let passed = turn(Limits::default(), judged([None, warned, None]));
    assert_eq!(started(next(&passed, client)), ["a"]);
    // A verdict on words that were lost counts for nothing.
    let mut again = judged([violation(), violation(), violation()]);
    again[0] = Step::Inference(InferenceStep { cut_off: true, ..InferenceStep::default() });
    again.push(said.clone());
    assert_eq!(started(next(&turn(Limits::default(), again), client)), ["a"]);
}

#[test]
fn what_a_shield_redacts_is_not_judged_by_it_again_and_by_others_is() {
    let mut fresh = turn(Limits::default(), vec![]);
    fresh.config.as_mut().unwrap().input_shields = vec!["s".into(), "t".into()];
    fresh.input = vec![Message::user("my secret")];
    let hash = crate::judged::fingerprint(&fresh.input[0].parts);
    let redacted = Some(Message::user("my [1]"));
    let verdict = |id: &str, redacted| ShieldStep {
        stage: ShieldStage::Input.into(),
        judged_sha256: hash.clone(),
        shield_id: id.into(),
        verdict: Some(RunShieldResponse { redacted, ..RunShieldResponse::default() }),
        ..ShieldStep::default()
    };
    for shield in [verdict("s", redacted), verdict("t", None)] {
        fresh.steps.push(TurnStep { step: Some(Step::Shield(shield.clone())), ..TurnStep::default() });
        crate::judged::apply(&mut fresh, &shield);
    }
    assert_eq!(fresh.input[0].joined_text(), "my [1]");
    assert_eq!(started(next(&fresh, client)), ["infer"], "they sat together until all had passed it");
    fresh.config.as_mut().unwrap().input_shields.push("u".into());
    assert_eq!(started(next(&fresh, client)), ["u"]);
}
