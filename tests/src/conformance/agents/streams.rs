//! What a turn tells: its events, watching it again, repetitions of its beginning, and who goes away.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all};
use llama_stack_core::{Agents, Code, Context, EventStream, fold::ChatFold};
use llama_stack_proto::v1::{
    CancelTurnRequest, CreateTurnRequest, OnDisconnect, TurnEvent, TurnStatus, Usage, WatchTurnRequest, step, turn_event::Event,
};
use tokio::time::timeout;

use super::{NEVER, begin, ended, inferences, is_delta, journal, names, rest, run, said, say, say_in, session, somebody, turn, turns_of};

const CALCULATE: &str = r#"call calculator {"expression":"6 * 7"}"#;

pub async fn all(agents: Arc<dyn Agents>) {
    a_turn_tells_all_that_happens_in_it(agents.clone()).await;
    deltas_are_what_the_step_says_then(agents.clone()).await;
    watching_from_a_number_gives_the_rest(agents.clone()).await;
    all_who_watch_a_running_turn_see_the_same(agents.clone()).await;
    a_repetition_under_a_key_begins_no_second_turn(agents.clone()).await;
    a_dropped_stream_ends_the_watching_only(agents.clone()).await;
    a_dropped_stream_cancels_where_it_was_asked_to(agents.clone()).await;
    a_callers_deadline_ends_the_stream_only(agents.clone()).await;
    turns_at_once_do_not_mix(agents).await;
}

async fn watch(agents: &Arc<dyn Agents>, cx: &Context, turn_id: &str, after_sequence: u64) -> EventStream<TurnEvent> {
    agents.watch_turn(cx, WatchTurnRequest { turn_id: turn_id.into(), after_sequence }).await.unwrap()
}

async fn cancel(agents: &Arc<dyn Agents>, cx: &Context, id: &str) {
    agents.cancel_turn(cx, CancelTurnRequest { id: id.into() }).await.unwrap();
}

/// From its creation to its end, numbered without gaps, each step's intent before its result; the last event is the
/// whole turn, and that is what is kept.
pub async fn a_turn_tells_all_that_happens_in_it(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let (events, kept) = run(&agents, &cx, say(CALCULATE)).await;
    assert_eq!(names(&events), ["created", "started", "completed", "started", "completed", "started", "completed", "ended"]);
    assert!(events.iter().all(|event| event.turn_id == kept.id && (is_delta(event) || event.time.is_some())));
    let numbers: Vec<u64> = journal(&events).iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<u64>>());

    let Some(Event::Created(created)) = &events[0].event else { panic!("{:?}", events[0]) };
    assert_eq!((created.status(), &created.input, created.steps.len()), (TurnStatus::InProgress, &kept.input, 0));
    let mut open = None;
    for event in journal(&events) {
        match event.event.unwrap() {
            Event::StepStarted(step) => {
                assert!(open.is_none() && step.ended.is_none());
                open = Some(step);
            }
            Event::StepCompleted(step) => {
                let started = open.take().expect("a result without its intent");
                assert_eq!((&step.id, step.index, step.started), (&started.id, started.index, started.started));
                assert_eq!(kept.steps[step.index as usize], step);
                assert!(step.ended.is_some());
            }
            _ => {}
        }
    }
    assert_eq!(ended(&events), kept);
    assert_eq!((kept.status(), said(&kept).as_str(), kept.ended.is_some()), (TurnStatus::Completed, "the tool said: 42", true));
    let mut usage = Usage::default();
    inferences(&kept).iter().for_each(|inference| usage.add(inference.usage.as_ref().unwrap()));
    assert_eq!(kept.usage, Some(usage));
}

/// Each has the number of the event before it, which began its step; folded, they are the message that is kept.
pub async fn deltas_are_what_the_step_says_then(agents: Arc<dyn Agents>) {
    let (events, kept) = run(&agents, &somebody(), say(CALCULATE)).await;
    let (mut steps, mut before) = (Vec::new(), 0);
    for event in events {
        match event.event.unwrap() {
            Event::StepStarted(step) => steps.push((step.id, ChatFold::default())),
            Event::Delta(delta) => {
                let (id, fold) = steps.last_mut().expect("a delta before its step");
                assert_eq!((&delta.step_id, event.sequence), (&*id, before));
                fold.push(delta.event.unwrap()).unwrap();
            }
            _ => {}
        }
        before = event.sequence;
    }
    for (id, fold) in steps {
        let step = kept.steps.iter().find(|step| step.id == id).unwrap();
        if let Some(step::Step::Inference(inference)) = &step.step {
            let mut folded = fold.finish("").choices.remove(0).message.unwrap();
            folded.parts.iter_mut().for_each(|part| part.provenance = "assistant".into());
            assert_eq!(Some(folded), inference.message);
        }
    }
}

/// Exactly the events with greater numbers, and of those the same as were told first.
pub async fn watching_from_a_number_gives_the_rest(agents: Arc<dyn Agents>) {
    let cx = somebody();
    for text in [CALCULATE, "call ask {}", "fail"] {
        let (events, kept) = run(&agents, &cx, say(text)).await;
        let all = journal(&events);
        for after in 0..=all.len() {
            assert_eq!(rest(watch(&agents, &cx, &kept.id, after as u64).await).await, all[after..], "{text} after {after}");
        }
    }
}

/// Whenever they come, and up to the same end.
pub async fn all_who_watch_a_running_turn_see_the_same(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let (id, first) = begin(&agents, &cx, say("forever")).await;
    let mut first = first.take(20).collect::<Vec<_>>().await;
    let mut watchers = Vec::new();
    for after in [0, 1, 2, 0] {
        watchers.push((after, watch(&agents, &cx, &id, after).await));
    }
    let watching = join_all(watchers.into_iter().map(async |(after, stream)| (after, rest(stream).await)));
    let (watched, ()) = tokio::join!(watching, cancel(&agents, &cx, &id));
    let kept = turn(&agents, &cx, &id).await.unwrap();
    let all = rest(watch(&agents, &cx, &id, 0).await).await;
    assert_eq!(names(&all), ["created", "started", "ended"]);
    for (after, events) in watched {
        assert_eq!((journal(&events), ended(&events)), (all[after as usize..].to_vec(), kept.clone()), "after {after}");
    }
    assert!(first.pop().unwrap().is_ok_and(|event| is_delta(&event)));
}

/// It watches the turn that the first call began, also while that still runs; another request under the key is refused.
pub async fn a_repetition_under_a_key_begins_no_second_turn(agents: Arc<dyn Agents>) {
    let cx = somebody().with_idempotency_key("once");
    let session = session(&agents, &cx).await;
    let request = say_in(&session, "call ask {}");
    let streams = join_all((0..8).map(|_| agents.create_turn(&cx, request.clone()))).await;
    let told = join_all(streams.into_iter().map(|stream| rest(stream.unwrap()))).await;
    let kept = turns_of(&agents, &cx, &session).await;
    assert_eq!(kept.len(), 1);
    for events in &told {
        assert_eq!((journal(events), &events[0].turn_id), (journal(&told[0]), &kept[0].id));
    }
    assert_eq!(journal(&run(&agents, &cx, request).await.0), journal(&told[0]));
    let error = agents.create_turn(&cx, say_in(&session, "call ask {\"q\":\"?\"}")).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::Aborted, Some("idempotency_key_reused")));
    assert_eq!(turns_of(&agents, &cx, &session).await.len(), 1);
}

pub async fn a_dropped_stream_ends_the_watching_only(agents: Arc<dyn Agents>) {
    let cx = somebody();
    for on_disconnect in [OnDisconnect::Unspecified, OnDisconnect::Continue] {
        let request = CreateTurnRequest { on_disconnect: on_disconnect.into(), ..say("forever") };
        let (id, stream) = begin(&agents, &cx, request).await;
        drop(stream);
        // It still speaks, long after the connection was dropped.
        let said = watch(&agents, &cx, &id, 0).await.filter(|event| std::future::ready(is_delta(event.as_ref().unwrap()))).take(200);
        assert_eq!(timeout(NEVER, said.count()).await.expect("the turn is silent"), 200);
        assert_eq!(turn(&agents, &cx, &id).await.unwrap().status(), TurnStatus::InProgress);
        cancel(&agents, &cx, &id).await;
    }
}

pub async fn a_dropped_stream_cancels_where_it_was_asked_to(agents: Arc<dyn Agents>) {
    let cx = somebody();
    for text in ["forever", "hang"] {
        let request = CreateTurnRequest { on_disconnect: OnDisconnect::Cancel.into(), ..say(text) };
        let (id, stream) = begin(&agents, &cx, request).await;
        drop(stream);
        let events = rest(watch(&agents, &cx, &id, 0).await).await;
        assert_eq!(ended(&events).status(), TurnStatus::Cancelled);
    }
    // To see it to its rest is no disconnection.
    let request = CreateTurnRequest { on_disconnect: OnDisconnect::Cancel.into(), ..say("call ask {}") };
    let (_, waiting) = run(&agents, &cx, request).await;
    assert_eq!(waiting.status(), TurnStatus::AwaitingTools);
}

/// The turn has a time of its own, `max_seconds`.
pub async fn a_callers_deadline_ends_the_stream_only(agents: Arc<dyn Agents>) {
    let cx = somebody();
    // It may pass before the turn has begun: then another one has more.
    let mut begun = None;
    for seconds in [1, 10, 60] {
        let hurried = cx.clone().with_timeout(Duration::from_secs(seconds));
        let Ok(mut stream) = agents.create_turn(&hurried, say("forever")).await else { continue };
        if let Some(Ok(created)) = stream.next().await {
            begun = Some((created.turn_id, stream));
            break;
        }
    }
    let (id, stream) = begun.expect("no turn began in time");
    let last = timeout(NEVER, stream.collect::<Vec<_>>()).await.expect("the deadline was not kept").pop();
    assert_eq!(last.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(turn(&agents, &cx, &id).await.unwrap().status(), TurnStatus::InProgress);
    cancel(&agents, &cx, &id).await;
}

/// Each calls its own tool and gets its own answer.
pub async fn turns_at_once_do_not_mix(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let ask = async |n: u32| run(&agents, &cx, say(&format!(r#"call calculator {{"expression":"{n} * 1000"}}"#))).await.1;
    let turns = join_all((1..=16).map(ask)).await;
    for (n, turn) in (1..=16).zip(turns) {
        assert_eq!(said(&turn), format!("the tool said: {n}000"));
    }
}
