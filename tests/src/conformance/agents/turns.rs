//! What a turn does: waiting for its client, cancelling, its history, its limits, and leaving nothing behind.

use std::sync::Arc;

use futures::future::join_all;
use llama_stack_core::{Agents, Code, Context, EventStream, Result};
use llama_stack_proto::v1::{
    AgentConfig, CancelTurnRequest, CreateTurnRequest, DeleteTurnRequest, GetSessionRequest, Limits, ListSessionsRequest, Message,
    ResumeTurnRequest, ToolResult, Turn, TurnEvent, TurnStatus, WatchTurnRequest, step, turn_event::Event,
};

use super::{
    awaited, begin, code, config, ended, inferences, journal, names, rest, result, run, said, say, say_in, session, somebody, turn,
    turns_of,
};

/// A call for the client and one for the stack.
const BOTH: &str = "call ask {\"q\":\"name?\"}\ncall calculator {\"expression\":\"6 * 7\"}";

pub async fn all(agents: Arc<dyn Agents>) {
    a_turn_waits_for_its_client_and_goes_on(agents.clone()).await;
    only_the_awaited_results_are_taken(agents.clone()).await;
    of_two_who_resume_one_is_refused(agents.clone()).await;
    results_may_come_as_the_input_of_a_new_turn(agents.clone()).await;
    cancelling_ends_a_turn_for_good(agents.clone()).await;
    a_session_runs_one_turn_at_a_time(agents.clone()).await;
    the_next_turn_can_begin_once_the_end_is_told(agents.clone()).await;
    a_turn_continues_the_newest_or_its_parent(agents.clone()).await;
    a_deleted_turn_is_gone(agents.clone()).await;
    a_turn_that_is_not_to_be_stored_leaves_nothing(agents.clone()).await;
    a_limit_ends_a_turn_and_says_which(agents.clone()).await;
    a_models_failure_is_the_end_of_the_turn(agents).await;
}

async fn resume(agents: &Arc<dyn Agents>, cx: &Context, id: &str, results: Vec<ToolResult>) -> Result<EventStream<TurnEvent>> {
    agents.resume_turn(cx, ResumeTurnRequest { turn_id: id.into(), results, ..ResumeTurnRequest::default() }).await
}

async fn cancel(agents: &Arc<dyn Agents>, cx: &Context, id: &str) -> Result<Turn> {
    agents.cancel_turn(cx, CancelTurnRequest { id: id.into() }).await
}

/// The stack's calls run first; the client's results come back in call order, labelled, and the numbers go on.
pub async fn a_turn_waits_for_its_client_and_goes_on(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let (events, waiting) = run(&agents, &cx, say(BOTH)).await;
    assert_eq!(names(&events), ["created", "started", "completed", "started", "completed", "started", "awaiting"]);
    assert_eq!((waiting.status(), waiting.ended), (TurnStatus::AwaitingTools, None));
    let calls = awaited(&events);
    assert_eq!(calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect::<Vec<_>>(), [("ask", "{\"q\":\"name?\"}")]);

    let stream = resume(&agents, &cx, &waiting.id, vec![result(&calls[0].id, "Ann")]).await.unwrap();
    let more = rest(stream).await;
    assert_eq!((names(&more), more[0].sequence), (vec!["resumed", "started", "completed", "ended"], 8));
    let kept = turn(&agents, &cx, &waiting.id).await.unwrap();
    assert_eq!((&ended(&more), kept.status(), said(&kept).as_str()), (&kept, TurnStatus::Completed, "the tool said: Ann | 42"));
    let watched = agents.watch_turn(&cx, WatchTurnRequest { turn_id: kept.id.clone(), after_sequence: 0 }).await.unwrap();
    assert_eq!(rest(watched).await, [journal(&events), journal(&more)].concat());

    let answered = kept.steps.iter().find_map(|step| match &step.step {
        Some(step::Step::Tool(tool)) if tool.client => tool.result.clone(),
        _ => None,
    });
    let answered = answered.unwrap();
    assert_eq!((answered.name.as_str(), answered.parts[0].provenance.as_str()), ("ask", "tool:ask"));
}

/// Missing, unknown, answered before and sent twice are refused by name, and the turn goes on waiting.
pub async fn only_the_awaited_results_are_taken(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let (events, waiting) = run(&agents, &cx, say(&format!("call ask {{}}\n{BOTH}"))).await;
    let calls = awaited(&events);
    let (first, second) = (calls[0].id.as_str(), calls[1].id.as_str());
    let ours = inferences(&waiting)[0].message.as_ref().unwrap().tool_calls().find(|call| call.name == "calculator").unwrap().id.clone();
    let cases = [
        (vec![], "tool_result_missing", "results", first),
        (vec![first], "tool_result_missing", "results", second),
        (vec!["call_nobody_made"], "unexpected_tool_result", "results[0].call_id", "call_nobody_made"),
        (vec![first, second, &ours], "unexpected_tool_result", "results[2].call_id", &ours),
        (vec![first, first, second], "unexpected_tool_result", "results[1].call_id", first),
    ];
    for (ids, reason, field, named) in cases {
        let results = ids.iter().map(|id| result(id, "Ann")).collect();
        let error = resume(&agents, &cx, &waiting.id, results).await.err().unwrap();
        assert_eq!((error.code(), error.reason(), error.field()), (Code::InvalidArgument, Some(reason), Some(field)), "{ids:?}");
        assert!(error.message().contains(named), "{error}");
    }
    assert_eq!(turn(&agents, &cx, &waiting.id).await.unwrap(), waiting);

    // In whatever order.
    let results = vec![result(second, "Bob"), result(first, "Ann")];
    let done = ended(&rest(resume(&agents, &cx, &waiting.id, results.clone()).await.unwrap()).await);
    assert_eq!(said(&done), "the tool said: Ann | Bob | 42");
    let error = resume(&agents, &cx, &waiting.id, results).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_not_awaiting")));
}

pub async fn of_two_who_resume_one_is_refused(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let (events, waiting) = run(&agents, &cx, say("call ask {}")).await;
    let call = &awaited(&events)[0].id;
    let (mut done, mut refused) = (Vec::new(), 0);
    for resumed in join_all(["Ann", "Bob"].map(|name| resume(&agents, &cx, &waiting.id, vec![result(call, name)]))).await {
        match resumed {
            Ok(stream) => done.push(ended(&rest(stream).await)),
            Err(error) => {
                assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((done.len(), refused), (1, 1));
    assert_eq!(done, [turn(&agents, &cx, &waiting.id).await.unwrap()]);
}

/// All of them; the parent stays as it is.
pub async fn results_may_come_as_the_input_of_a_new_turn(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let (events, parent) = run(&agents, &cx, say(BOTH)).await;
    let next = |input| CreateTurnRequest { parent_turn_id: parent.id.clone(), input, ..say("") };
    let error = agents.create_turn(&cx, next(vec![Message::user("well?")])).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some("tool_result_missing")));
    let answer = Message::tool(vec![result(&awaited(&events)[0].id, "Ann")]);
    let (_, child) = run(&agents, &cx, next(vec![answer])).await;
    assert_eq!((child.status(), said(&child).as_str()), (TurnStatus::Completed, "the tool said: Ann"));
    assert_eq!((&child.parent_turn_id, &child.session_id), (&parent.id, &parent.session_id));
    assert_eq!(turn(&agents, &cx, &parent.id).await.unwrap(), parent);
}

/// One that runs and one that waits; again, it answers the same. One that has ended stays as it is.
pub async fn cancelling_ends_a_turn_for_good(agents: Arc<dyn Agents>) {
    let cx = somebody();
    for text in ["forever", "hang", "call ask {}"] {
        let (id, stream) = begin(&agents, &cx, say(text)).await;
        // One that waits is cancelled while nobody watches it.
        let waits = text.starts_with("call");
        let (before, cancelled) = if waits {
            let events = rest(stream).await;
            (events, cancel(&agents, &cx, &id).await.unwrap())
        } else {
            let (events, cancelled) = tokio::join!(rest(stream), cancel(&agents, &cx, &id));
            (events, cancelled.unwrap())
        };
        assert_eq!((cancelled.status(), cancelled.ended.is_some()), (TurnStatus::Cancelled, true), "{text}");
        if !waits {
            assert_eq!(ended(&before), cancelled);
        }
        assert_eq!(cancel(&agents, &cx, &id).await.unwrap(), cancelled);
        assert_eq!(turn(&agents, &cx, &id).await.unwrap(), cancelled);
        assert_eq!(code(resume(&agents, &cx, &id, Vec::new()).await), Code::FailedPrecondition);
    }
    let (_, done) = run(&agents, &cx, say("hello")).await;
    assert_eq!(cancel(&agents, &cx, &done.id).await.unwrap(), done);
}

/// Another is refused while one is in progress, unless it branches off; a session whose turn waits is not free either.
pub async fn a_session_runs_one_turn_at_a_time(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let session = session(&agents, &cx).await;
    let (_, first) = run(&agents, &cx, say_in(&session, "hello")).await;
    let (id, stream) = begin(&agents, &cx, say_in(&session, "forever")).await;
    let error = agents.create_turn(&cx, say_in(&session, "and?")).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_in_progress")));
    assert!(error.message().contains(&session.id), "{error}");
    let error = agents.create_turn(&cx, CreateTurnRequest { parent_turn_id: id.clone(), ..say("and?") }).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_in_progress")));
    let (_, branch) = run(&agents, &cx, CreateTurnRequest { parent_turn_id: first.id.clone(), ..say("or else") }).await;
    assert_eq!((branch.status(), &branch.session_id), (TurnStatus::Completed, &session.id));
    let (_, cancelled) = tokio::join!(rest(stream), cancel(&agents, &cx, &id));
    assert_eq!(cancelled.unwrap().status(), TurnStatus::Cancelled);
    let (_, next) = run(&agents, &cx, say_in(&session, "and now?")).await;
    assert_eq!(next.status(), TurnStatus::Completed);
}

pub async fn the_next_turn_can_begin_once_the_end_is_told(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let session = session(&agents, &cx).await;
    let mut before = String::new();
    for n in 0..25 {
        let done = ended(&rest(agents.create_turn(&cx, say_in(&session, &n.to_string())).await.unwrap()).await);
        assert_eq!(done.parent_turn_id, before);
        before = done.id;
    }
}

/// What the model reads shows in the tokens of its prompt: the scripted one counts words.
pub async fn a_turn_continues_the_newest_or_its_parent(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let session = session(&agents, &cx).await;
    let read = |turn: &Turn| turn.usage.unwrap().prompt_tokens;
    let (_, first) = run(&agents, &cx, say_in(&session, "count 3")).await;
    let (_, second) = run(&agents, &cx, say_in(&session, "go on")).await;
    assert_eq!((first.parent_turn_id.as_str(), read(&first)), ("", 2));
    assert_eq!((&second.parent_turn_id, read(&second)), (&first.id, 2 + 3 + 2));
    let (_, branch) = run(&agents, &cx, CreateTurnRequest { parent_turn_id: first.id.clone(), ..say("or so then") }).await;
    assert_eq!((&branch.parent_turn_id, &branch.session_id, read(&branch)), (&first.id, &session.id, 2 + 3 + 3));
    assert_eq!(turns_of(&agents, &cx, &session).await, [first.clone(), second, branch]);

    let elsewhere = super::session(&agents, &cx).await;
    let request = CreateTurnRequest { parent_turn_id: first.id, ..say_in(&elsewhere, "here?") };
    let error = agents.create_turn(&cx, request).await.err().unwrap();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("parent_turn_id")));
}

/// By every method. One that runs has to be cancelled first; those that follow keep their own history.
pub async fn a_deleted_turn_is_gone(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let session = session(&agents, &cx).await;
    let delete = |id: &str| agents.delete_turn(&cx, DeleteTurnRequest { id: id.into() });
    let (_, first) = run(&agents, &cx, say_in(&session, "hello")).await;
    let (_, second) = run(&agents, &cx, say_in(&session, "go on")).await;
    delete(&first.id).await.unwrap();
    let watched = agents.watch_turn(&cx, WatchTurnRequest { turn_id: first.id.clone(), after_sequence: 0 }).await;
    let codes = [
        code(turn(&agents, &cx, &first.id).await),
        code(watched),
        code(cancel(&agents, &cx, &first.id).await),
        code(delete(&first.id).await),
        code(agents.create_turn(&cx, CreateTurnRequest { parent_turn_id: first.id.clone(), ..say("and?") }).await),
    ];
    assert_eq!(codes, [Code::NotFound; 5]);
    assert_eq!(turns_of(&agents, &cx, &session).await, [second]);
    let (_, third) = run(&agents, &cx, say_in(&session, "well")).await;
    assert_eq!((third.status(), third.usage.unwrap().prompt_tokens), (TurnStatus::Completed, 2 + 4 + 1));

    let (id, stream) = begin(&agents, &cx, say_in(&session, "forever")).await;
    let error = delete(&id).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_in_progress")));
    let (_, cancelled) = tokio::join!(rest(stream), cancel(&agents, &cx, &id));
    cancelled.unwrap();
    delete(&id).await.unwrap();
}

/// The moment that its end is told it is gone, however it ended, with the session that was made for it.
pub async fn a_turn_that_is_not_to_be_stored_leaves_nothing(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let session = session(&agents, &cx).await;
    let fleeting = |request: CreateTurnRequest| CreateTurnRequest { store: Some(false), ..request };
    // Again and again: what is deleted a moment too late is found only now and then.
    for text in ["count 3", r#"call calculator {"expression":"1 + 1"}"#, "fail", "break"].repeat(8) {
        for request in [say(text), say_in(&session, text)] {
            let mut stream = agents.create_turn(&cx, fleeting(request)).await.unwrap();
            let mut told = Vec::new();
            while !matches!(told.last(), Some(TurnEvent { event: Some(Event::Ended(_)), .. })) {
                told.push(futures::StreamExt::next(&mut stream).await.unwrap().unwrap());
            }
            is_gone(&agents, &cx, &ended(&told)).await;
        }
    }
    let (id, stream) = begin(&agents, &cx, fleeting(say("forever"))).await;
    let (_, cancelled) = tokio::join!(rest(stream), cancel(&agents, &cx, &id));
    assert_eq!(cancelled.as_ref().unwrap().status(), TurnStatus::Cancelled);
    is_gone(&agents, &cx, &cancelled.unwrap()).await;

    // One that waits is kept for its client.
    let (_, waiting) = run(&agents, &cx, fleeting(say("call ask {}"))).await;
    assert_eq!(waiting.status(), TurnStatus::AwaitingTools);
    let cancelled = cancel(&agents, &cx, &waiting.id).await.unwrap();
    assert_eq!(cancelled.status(), TurnStatus::Cancelled);
    is_gone(&agents, &cx, &cancelled).await;
    let (events, waiting) = run(&agents, &cx, fleeting(say("call ask {}"))).await;
    let results = vec![result(&awaited(&events)[0].id, "Ann")];
    let done = ended(&rest(resume(&agents, &cx, &waiting.id, results).await.unwrap()).await);
    assert_eq!(said(&done), "the tool said: Ann");
    is_gone(&agents, &cx, &done).await;

    assert!(turns_of(&agents, &cx, &session).await.is_empty());
    assert_eq!(agents.list_sessions(&cx, ListSessionsRequest::default()).await.unwrap().sessions, [session]);
}

async fn is_gone(agents: &Arc<dyn Agents>, cx: &Context, ended: &Turn) {
    assert!(!ended.store);
    assert_eq!(code(turn(agents, cx, &ended.id).await), Code::NotFound);
    let watched = agents.watch_turn(cx, WatchTurnRequest { turn_id: ended.id.clone(), after_sequence: 0 }).await;
    assert_eq!(code(watched), Code::NotFound);
    match agents.get_session(cx, GetSessionRequest { id: ended.session_id.clone() }).await {
        Ok(session) => assert!(turns_of(agents, cx, &session).await.is_empty()),
        Err(error) => assert_eq!(error.code(), Code::NotFound),
    }
}

/// `TURN_STATUS_INCOMPLETE`, with the limit's name, and no step more than it allows.
pub async fn a_limit_ends_a_turn_and_says_which(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let two_calls = "call calculator {\"expression\":\"1 + 1\"}\ncall calculator {\"expression\":\"2 + 2\"}";
    let cases = [
        (Limits { max_steps: 1, ..Limits::default() }, two_calls, "max_steps", 3),
        (Limits { max_tool_calls: 1, ..Limits::default() }, two_calls, "max_tool_calls", 2),
        (Limits { max_tokens: 4, ..Limits::default() }, "count 50", "max_output_tokens", 1),
        (Limits { max_seconds: 1, ..Limits::default() }, "hang", "max_seconds", 1),
        (Limits { max_seconds: 1, ..Limits::default() }, "forever", "max_seconds", 1),
    ];
    for (limits, text, reason, steps) in cases {
        let config = AgentConfig { limits: Some(limits), ..config() };
        let (events, kept) = run(&agents, &cx, CreateTurnRequest { config: Some(config), ..say(text) }).await;
        assert_eq!((kept.status(), kept.incomplete_reason.as_str()), (TurnStatus::Incomplete, reason));
        // The time may be over before the first step.
        let came = if reason == "max_seconds" { kept.steps.len().max(1) } else { kept.steps.len() };
        assert_eq!((&ended(&events), came), (&kept, steps), "{reason}");
    }
    let (_, kept) = run(&agents, &cx, say(two_calls)).await;
    let limits = kept.config.unwrap().limits.unwrap();
    assert_eq!((kept.incomplete_reason.as_str(), limits.max_steps, limits.max_seconds), ("", 16, 600), "the defaults are told");
}

/// Told as the turn's `error`: the stream itself ends well.
pub async fn a_models_failure_is_the_end_of_the_turn(agents: Arc<dyn Agents>) {
    let cx = somebody();
    for (text, reason) in [("fail", ""), ("break", "stream_broken")] {
        let (events, kept) = run(&agents, &cx, say(text)).await;
        assert_eq!((kept.status(), &ended(&events)), (TurnStatus::Failed, &kept));
        let error = kept.error.unwrap();
        assert_eq!((error.code.as_str(), error.reason.as_str()), ("UNAVAILABLE", reason));
        assert!(error.message.contains("as it was asked to"), "{error:?}");
    }
}
