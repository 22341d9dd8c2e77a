use futures::StreamExt;
use llama_stack_proto::v1::{
    AgentTool, ApprovalRequest, AwaitingTools, Citation, CompactionStep, ErrorInfo, FileSearch, HandoffStep, SearchResult, ToolListStep,
    ToolResult, ToolResults, ToolStep,
};
use serde_json::json;

use super::{super::echo, super::response::Response, super::transcript, *};

/// The inference as it is seen live, and as its journal alone tells it.
fn live_and_read() -> [Vec<TurnEvent>; 2] {
    let start = event(Happened::StepStarted(open(0, inference(InferenceStep::default()))));
    let end = [
        event(Happened::StepCompleted(done(0, inference(said(FinishReason::ToolCalls))))),
        event(Happened::AwaitingTools(AwaitingTools::default())),
    ];
    let live = begun().into_iter().chain([start.clone()]).chain(pieces().into_iter().map(delta)).chain(end.clone());
    [live.collect(), begun().into_iter().chain([start]).chain(end).collect()]
}

#[test]
fn events_come_in_the_order_of_the_openai_api() {
    let [live, _] = live_and_read();
    let lines = run(live);
    assert_eq!(
        kinds(&lines),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    assert_eq!(numbers(&lines), (0..lines.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_is_read_again_is_the_same_event_by_event() {
    let [live, read] = live_and_read();
    let lines = run(live.clone());
    assert_eq!(run(read), lines);
    // Also for who saw some of the deltas and then the whole step.
    for missing in 1..pieces().len() {
        let mut behind = live.clone();
        let end = behind.len() - 2;
        behind.drain(end - missing..end);
        assert_eq!(run(behind), lines, "{missing} deltas missing");
    }
}

#[test]
fn a_step_that_does_not_say_how_it_came_is_one_delta_per_part() {
    let mut old = said(FinishReason::ToolCalls);
    (old.pieces, old.piece_logprobs) = (Vec::new(), Vec::new());
    let start = event(Happened::StepStarted(open(0, inference(InferenceStep::default()))));
    let end = event(Happened::StepCompleted(done(0, inference(old.clone()))));
    let lines = run(begun().into_iter().chain([start.clone(), end.clone()]).collect());
    assert_eq!(kinds(&lines).iter().filter(|kind| kind.ends_with(".delta")).count(), 3);
    // Who saw it live gets nothing twice.
    let seen = run(begun().into_iter().chain([start]).chain(pieces().into_iter().map(delta)).chain([end]).collect());
    assert_eq!(items_done(&seen), items_done(&lines));
    // Pieces that do not come to the text are none.
    old.pieces = vec![2, 7, 4, 0, 5, 2];
    assert!(super::super::pieces::as_streamed(&old).is_none());
    old.pieces = vec![2, 9, 3, 0, 5, 2];
    assert!(super::super::pieces::as_streamed(&old).is_none(), "a piece ends within a character");
}

#[test]
fn what_is_streamed_is_what_is_read_back() {
    let [live, _] = live_and_read();
    let lines = run(live);
    let last = &lines.last().unwrap()["response"];
    assert_eq!(json!(items_done(&lines)), last["output"]);
    let turn = Turn {
        status: TurnStatus::AwaitingTools.into(),
        ..ended(TurnStatus::AwaitingTools, vec![done(0, inference(said(FinishReason::ToolCalls)))])
    };
    assert_eq!(json!(Response::new(&turn, &[]))["output"], last["output"]);
    assert_eq!(last["usage"]["total_tokens"], 5);
}

/// Also where the answer is cut off, in its last item alone.
#[test]
fn an_item_that_is_not_whole_says_so() {
    let finished = |reason: FinishReason| {
        let step = done(0, inference(said(reason)));
        let start = event(Happened::StepStarted(open(0, inference(InferenceStep::default()))));
        let turn = ended(TurnStatus::Incomplete, vec![step.clone()]);
        let end = [event(Happened::StepCompleted(step)), event(Happened::Ended(Box::new(turn)))];
        let lines = run(begun().into_iter().chain([start]).chain(pieces().into_iter().map(delta)).chain(end).collect());
        let items = items_done(&lines);
        assert_eq!(json!(items), lines.last().unwrap()["response"]["output"]);
        items.iter().map(|item| item["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(finished(FinishReason::Length), ["completed", "completed", "incomplete"]);
    assert_eq!(finished(FinishReason::ToolCalls), ["completed", "completed", "completed"]);
}

/// What a model said before a restart is in no journal: who saw it and who did not agree again after it.
#[test]
fn after_a_step_that_was_cut_off_numbers_go_on_at_the_next_million() {
    let start = |index: u32| event(Happened::StepStarted(open(index, inference(InferenceStep::default()))));
    let cut = InferenceStep { cut_off: true, ..InferenceStep::default() };
    let whole = said(FinishReason::Stop);
    let steps = vec![done(0, inference(cut)), done(1, inference(whole))];
    let tail = vec![
        event(Happened::StepCompleted(steps[0].clone())),
        start(1),
        event(Happened::StepCompleted(steps[1].clone())),
        event(Happened::Ended(Box::new(ended(TurnStatus::Completed, steps)))),
    ];
    let live = run(begun().into_iter().chain([start(0)]).chain(pieces().into_iter().take(2).map(delta)).chain(tail.clone()).collect());
    let read = run(begun().into_iter().chain([start(0)]).chain(tail).collect());
    let after =
        |lines: &[Value]| lines.iter().filter(|line| line["sequence_number"].as_u64() >= Some(1_000_000)).cloned().collect::<Vec<_>>();
    assert_eq!(after(&live), after(&read));
    assert_eq!(numbers(&after(&read))[0], 1_000_000);
    assert!(numbers(&live).is_sorted());
    assert_eq!(json!(items_done(&after(&read))), read.last().unwrap()["response"]["output"]);
    let closed = live.iter().filter(|line| line["item"]["status"] == "incomplete").count();
    assert_eq!(closed, 1, "what was open is closed");
}

/// A window of the answer did not pass: what was shown before it stays, and the refusal ends the message.
#[test]
fn an_answer_that_a_shield_ends_is_a_message_with_a_refusal() {
    let words = || [ChatEvent::text(0, "so far "), ChatEvent::text(0, "so good"), ChatEvent::new(0, Chat::Refusal("No more.".into()))];
    let step = InferenceStep {
        message: Some(Message::new(Role::Assistant, vec![Part::text("so far so good"), Part::new(Content::Refusal("No more.".into()))])),
        finish_reason: FinishReason::ContentFilter.into(),
        pieces: vec![7, 7, 8],
        ..InferenceStep::default()
    };
    let start = event(Happened::StepStarted(open(0, inference(InferenceStep::default()))));
    let mut turn = ended(TurnStatus::Incomplete, vec![done(0, inference(step.clone()))]);
    turn.incomplete_reason = "content_filter".into();
    let end = [event(Happened::StepCompleted(done(0, inference(step)))), event(Happened::Ended(Box::new(turn)))];
    let live = run(begun().into_iter().chain([start.clone()]).chain(words().map(delta)).chain(end.clone()).collect());
    assert_eq!(
        kinds(&live)[2..],
        [
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "content_part.added",
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "output_item.done",
            "incomplete",
        ]
    );
    assert_eq!(run(begun().into_iter().chain([start]).chain(end).collect()), live);
    let response = &live.last().unwrap()["response"];
    assert_eq!(response["incomplete_details"]["reason"], "content_filter");
    assert_eq!(json!(items_done(&live)), response["output"]);
    assert_eq!(response["output"][0]["status"], "incomplete");
}

/// So a client that saw words of the failed model hears of the failure when it comes back.
#[test]
fn a_failure_has_one_number_for_all_watchers() {
    let start = event(Happened::StepStarted(open(0, inference(InferenceStep::default()))));
    let mut failed = ended(TurnStatus::Failed, vec![open(0, inference(InferenceStep::default()))]);
    failed.error = Some(ErrorInfo { code: "UNAVAILABLE".into(), message: "gone".into(), reason: String::new() });
    let end = event(Happened::Ended(Box::new(failed)));
    let live =
        run(begun().into_iter().chain([start.clone()]).chain(pieces().into_iter().take(2).map(delta)).chain([end.clone()]).collect());
    let read = run(begun().into_iter().chain([start, end]).collect());
    assert_eq!(live.last(), read.last());
    assert_eq!((kinds(&read).last(), numbers(&read).last()), (Some(&"failed"), Some(&1_000_000)));
}

fn tool(name: &str, label: &str) -> ToolStep {
    let call = ToolCall::new(format!("call_{name}"), name, "{\"query\":\"cats\"}");
    ToolStep { call: Some(call), server_label: label.into(), ..ToolStep::default() }
}

fn answered(step: &ToolStep, text: &str, is_error: bool) -> StepKind {
    let result = ToolResult::text(step.call.as_ref().unwrap(), text, is_error);
    StepKind::Tool(ToolStep { result: Some(result), ..step.clone() })
}

#[test]
fn every_step_is_its_item() {
    let (search, mcp, own, failing) = (tool("web_search", ""), tool("read", "files"), tool("calculator", ""), tool("write", "files"));
    let listed = ToolListStep { server_label: "files".into(), ..ToolListStep::default() };
    let definitions = vec![ToolDefinition::new("read", "Reads.", "{\"type\":\"object\"}")];
    let list = ToolListStep { tools: definitions, read_only: vec!["read".into()], ..listed.clone() };
    let broken = ToolListStep { server_label: "gone".into(), ..ToolListStep::default() };
    let error = Some(ErrorInfo { message: "no answer".into(), ..ErrorInfo::default() });
    let handoff =
        HandoffStep { call: Some(ToolCall::new("call_h", "ask_ada", "{}")), agent_id: "agent_1".into(), ..HandoffStep::default() };
    let handed = HandoffStep {
        config: Some(AgentConfig { agents: vec![AgentTool::default()], ..AgentConfig::default() }),
        result: Some(ToolResult { parts: vec![Part::text("ada has it")], ..ToolResult::default() }),
        ..handoff.clone()
    };
    let child = tool("ask_bob", "");
    let compaction = CompactionStep { summary: "cats".into(), ..CompactionStep::default() };
    let waves: Vec<Vec<(StepKind, StepKind)>> = vec![
        vec![
            (StepKind::ToolList(listed), StepKind::ToolList(list)),
            (StepKind::ToolList(broken.clone()), StepKind::ToolList(ToolListStep { error, ..broken })),
        ],
        vec![
            (StepKind::Tool(search.clone()), answered(&search, "found", false)),
            (StepKind::Tool(mcp.clone()), answered(&mcp, "text", false)),
            (StepKind::Tool(failing.clone()), answered(&failing, "denied", true)),
            (StepKind::Tool(own.clone()), answered(&own, "42", false)),
        ],
        vec![(StepKind::Handoff(handoff), StepKind::Handoff(handed))],
        vec![(StepKind::Tool(child.clone()), answered(&child, "bob says", false))],
        vec![(StepKind::Compaction(CompactionStep::default()), StepKind::Compaction(compaction))],
    ];
    let (mut events, mut steps) = (begun(), Vec::new());
    for wave in waves {
        let first = steps.len() as u32;
        let begin = |(index, (kind, _)): (u32, &(StepKind, StepKind))| event(Happened::StepStarted(open(index, kind.clone())));
        events.extend((first..).zip(&wave).map(begin));
        let ends: Vec<Step> = (first..).zip(wave).map(|(index, (_, kind))| done(index, kind)).collect();
        // Their ends come in any order.
        events.extend(ends.iter().rev().map(|step| event(Happened::StepCompleted(step.clone()))));
        steps.extend(ends);
    }
    let whole = ended(TurnStatus::Completed, steps);
    events.push(event(Happened::Ended(Box::new(whole.clone()))));
    let lines = run(events);
    assert_eq!(json!(items_done(&lines)), lines.last().unwrap()["response"]["output"]);
    assert_eq!(json!(Response::new(&whole, &[])), lines.last().unwrap()["response"]);
    insta::assert_json_snapshot!(lines.last().unwrap()["response"]["output"]);
    // `tests/e2e/sdks` reads this one as the official package would.
    insta::assert_json_snapshot!("every_event", lines);
}

#[test]
fn a_search_of_the_web_shows_its_pages_where_they_are_asked_for() {
    let found = answered(&tool("web_search", ""), "[1] Cats\nhttps://cats.example/\nAll of them.", false);
    let mut turn = ended(TurnStatus::Completed, vec![done(0, found)]);
    let action = |turn: &Turn| json!(Response::new(turn, &[]))["output"][0]["action"].clone();
    assert_eq!(action(&turn), json!({ "type": "search", "query": "cats", "queries": ["cats"] }));
    echo::include(&mut turn, &["web_search_call.action.sources".to_owned()]);
    assert_eq!(action(&turn)["sources"], json!([{ "type": "url", "url": "https://cats.example/" }]));
}

#[test]
fn a_call_that_waits_for_approval_is_a_request_and_then_a_call() {
    let request = ApprovalRequest {
        id: "mcpr_1".into(),
        call: Some(ToolCall::new("call_1", "read", "{}")),
        server_label: "files".into(),
        ..ApprovalRequest::default()
    };
    let approvals = vec![request.clone()];
    let waits = event(Happened::AwaitingTools(AwaitingTools { approvals: approvals.clone(), ..AwaitingTools::default() }));
    let lines = run(begun().into_iter().chain([waits.clone()]).collect());
    let output = &lines.last().unwrap()["response"]["output"];
    assert_eq!(
        output[0],
        json!({ "type": "mcp_approval_request", "id": "mcpr_1", "server_label": "files", "name": "read", "arguments": "{}" })
    );
    assert_eq!(json!(Response::new(&ended(TurnStatus::AwaitingTools, Vec::new()), &approvals))["output"], *output);

    // The turn that carries the decision out.
    let step = ToolStep { approval_request_id: "mcpr_1".into(), ..tool("read", "files") };
    let start = event(Happened::StepStarted(open(0, StepKind::Tool(step.clone()))));
    let end = event(Happened::StepCompleted(done(0, answered(&step, "text", false))));
    let lines = run(begun().into_iter().chain([start.clone(), end.clone()]).collect());
    assert_eq!(items_done(&lines)[0]["approval_request_id"], "mcpr_1");

    // Or the turn itself goes on: after the numbers that anyone has seen, and the call is in the place of the request.
    let resumed = event(Happened::Resumed(ToolResults::default()));
    let lines = run(begun().into_iter().chain([waits, resumed, start, end]).collect());
    assert!(numbers(&lines).is_sorted() && numbers(&lines).last() > Some(&1_000_000));
    let added: Vec<(&Value, &Value)> = lines
        .iter()
        .filter(|line| line["type"] == "response.output_item.added")
        .map(|line| (&line["output_index"], &line["item"]["type"]))
        .collect();
    assert_eq!(added, [(&json!(0), &json!("mcp_approval_request")), (&json!(0), &json!("mcp_call"))]);
}

#[test]
fn what_a_cancelled_turn_left_open_is_closed() {
    let kinds = [StepKind::Tool(tool("read", "files")), StepKind::Tool(tool("web_search", ""))];
    let steps: Vec<Step> = (0..).zip(kinds).map(|(index, kind)| open(index, kind)).collect();
    let starts = steps.iter().map(|step| event(Happened::StepStarted(step.clone())));
    let end = event(Happened::Ended(Box::new(ended(TurnStatus::Cancelled, steps.clone()))));
    let lines = run(begun().into_iter().chain(starts).chain([end]).collect());
    let statuses: Vec<Value> = items_done(&lines).iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, [json!("incomplete"), json!("incomplete")]);
    assert_eq!(json!(items_done(&lines)), lines.last().unwrap()["response"]["output"]);
    assert_eq!(lines.last().unwrap()["response"]["status"], "cancelled");
}

#[test]
fn a_background_response_is_queued_first() {
    let background = Turn { background: true, ..turn() };
    let lines = run(vec![event(Happened::Created(Box::new(background)))]);
    assert_eq!(kinds(&lines), ["created", "queued", "in_progress"]);
    let statuses: Vec<&Value> = lines.iter().map(|line| &line["response"]["status"]).collect();
    assert_eq!(statuses, ["queued", "queued", "in_progress"]);
}

#[tokio::test]
async fn a_stream_goes_on_after_any_number() {
    let [live, _] = live_and_read();
    let all = run(live.clone());
    for after in 0..all.len() as u64 {
        let events = futures::stream::iter(live.clone().into_iter().map(Ok)).boxed();
        let rest: Vec<Value> = transcript::lines(events, Some(after)).map(|(_, line)| line).collect().await;
        assert_eq!(rest, all[after as usize + 1..]);
    }
}

/// A stream that breaks is not a response that failed: the client may go on after what it saw.
#[tokio::test]
async fn a_broken_stream_says_where_to_go_on() {
    let [live, _] = live_and_read();
    let events = futures::stream::iter(live.into_iter().take(5).map(Ok)).boxed();
    let lines: Vec<Value> = transcript::lines(events, None).map(|(_, line)| line).collect().await;
    let [.., before, error] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((error["type"].as_str(), &error["sequence_number"]), (Some("error"), &before["sequence_number"]));
}

/// With what a search of files found, where it was asked for, and what the answer rests on.
#[test]
fn a_search_of_files_and_an_answer_that_cites() {
    let call = ToolCall::new("call_f", "file_search", "{\"query\":\"veto\",\"queries\":[\"king\"]}");
    let step = ToolStep { call: Some(call.clone()), ..ToolStep::default() };
    let found = SearchResult {
        bank_id: "bank_1".into(),
        document_id: "file_1".into(),
        file_id: "file_1".into(),
        filename: "laws.pdf".into(),
        score: 0.5,
        text: "The king may not veto.".into(),
        attributes: "{\"year\":1814}".into(),
        page: 7,
        number: 1,
        ..SearchResult::default()
    };
    let result = ToolResult { search_results: vec![found.clone()], ..ToolResult::text(&call, "[1] laws.pdf", false) };
    let citation = |start, end| Citation {
        start,
        end,
        file_id: "file_1".into(),
        filename: "laws.pdf".into(),
        page: 7,
        quote: "The king may not veto.".into(),
        ..Citation::default()
    };
    let text = "N\u{e9}: he may not [1]. Never [1].";
    let part = Part { citations: vec![citation(16, 19), citation(27, 30)], ..Part::text(text) };
    let answer = InferenceStep {
        message: Some(Message::new(Role::Assistant, vec![part])),
        finish_reason: FinishReason::Stop.into(),
        pieces: vec![16, 15],
        ..InferenceStep::default()
    };
    let begun_and_done = [
        (StepKind::Tool(step.clone()), StepKind::Tool(ToolStep { result: Some(result), ..step })),
        (inference(InferenceStep::default()), inference(answer)),
    ];
    let mut config = AgentConfig { model: "m".into(), ..AgentConfig::default() };
    config.file_search = Some(FileSearch { bank_ids: vec!["bank_1".into()], max_results: 5, ..FileSearch::default() });
    config.metadata.insert("openai.file_search_results".into(), "true".into());
    let begun = Turn { config: Some(config.clone()), ..turn() };
    let (mut events, mut steps) = (vec![event(Happened::Created(Box::new(begun)))], Vec::new());
    for (index, (start, end)) in (0..).zip(begun_and_done) {
        events.push(event(Happened::StepStarted(open(index, start))));
        steps.push(done(index, end));
        events.push(event(Happened::StepCompleted(done(index, steps[index as usize].step.clone().unwrap()))));
    }
    let whole = Turn { config: Some(config), ..ended(TurnStatus::Completed, steps) };
    events.push(event(Happened::Ended(Box::new(whole.clone()))));
    let lines = run(events.clone());
    assert_eq!(json!(items_done(&lines)), lines.last().unwrap()["response"]["output"]);
    assert_eq!(json!(Response::new(&whole, &[])), lines.last().unwrap()["response"]);
    // Who saw the words as they came has the same events.
    let text_of = |text: &str| event(Happened::Delta(StepDelta { step_id: "step_1".into(), event: Some(ChatEvent::text(0, text)) }));
    let (first, second) = text.split_at(16);
    events.splice(4..4, [text_of(first), text_of(second)]);
    assert_eq!(run(events), lines);
    // Places are counted in characters.
    let annotations = &lines.last().unwrap()["response"]["output"][1]["content"][0]["annotations"];
    let indices: Vec<&Value> = annotations.as_array().unwrap().iter().map(|annotation| &annotation["index"]).collect();
    assert_eq!(indices, [15, 26]);
    assert_eq!(
        kinds(&lines),
        [
            "created",
            "in_progress",
            "output_item.added",
            "file_search_call.in_progress",
            "file_search_call.searching",
            "file_search_call.completed",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.annotation.added",
            "output_text.annotation.added",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
    );
    let stem = TURN.trim_start_matches("turn_");
    let found = json!({
        "file_id": "file_1", "filename": "laws.pdf", "score": 0.5, "text": "The king may not veto.", "attributes": { "year": 1814 },
        "vector_store_id": "vs_1",
    });
    assert_eq!(
        items_done(&lines)[0],
        json!({
            "type": "file_search_call", "id": format!("fs_{stem}00010000"), "status": "completed", "queries": ["veto", "king"],
            "results": [found],
        })
    );
    let annotation = json!({
        "type": "file_citation", "index": 26, "file_id": "file_1", "filename": "laws.pdf", "page": 7, "quote": "The king may not veto.",
    });
    assert_eq!(
        lines[12],
        json!({
            "type": "response.output_text.annotation.added", "sequence_number": 12, "item_id": format!("msg_{stem}00020000"),
            "output_index": 1, "content_index": 0, "annotation_index": 1, "annotation": annotation,
        })
    );

    let mut silent = whole;
    silent.config.as_mut().unwrap().metadata.clear();
    assert_eq!(json!(Response::new(&silent, &[]))["output"][0]["results"], Value::Null);
}
