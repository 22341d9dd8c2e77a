use futures::StreamExt as _;
use llama_stack_core::{Agents as _, Code, EventStream};
use llama_stack_proto::v1::{CreateTurnRequest, TurnEvent, WatchTurnRequest, turn_event::Event};

use crate::{
    doubles::Say::{Call, Text},
    world::{World, names, rest, say, until},
};

async fn watch(world: &World, turn_id: &str, after_sequence: u64) -> EventStream<TurnEvent> {
    let request = WatchTurnRequest { turn_id: turn_id.into(), after_sequence };
    world.runtime.watch_turn(&world.cx, request).await.unwrap()
}

fn numbers(events: &[TurnEvent]) -> Vec<u64> {
    events.iter().filter(|event| !matches!(event.event, Some(Event::Delta(_)))).map(|event| event.sequence).collect()
}

#[tokio::test]
async fn any_number_may_watch_and_all_see_the_same() {
    let world = World::new(vec![vec![Call("c", "wait", "{}")], vec![Text("and so it ends")]]).await;
    let mut first = world.begin(say("go")).await.unwrap();
    let id = first.next().await.unwrap().unwrap().turn_id;
    until(|| world.hands.calls() == 1).await;
    let mut watchers = Vec::new();
    for after in [0, 1, 2, 3, 0] {
        watchers.push(joined(watch(&world, &id, after).await).await);
    }
    world.hands.open.send_replace(true);
    let all = futures::future::join_all(watchers.into_iter().map(rest)).await;
    for (events, after) in all.iter().zip([0, 1, 2, 3, 0]) {
        assert_eq!(numbers(events), (after + 1..=8).collect::<Vec<u64>>());
        let text: String = events.iter().filter_map(delta).collect();
        assert_eq!(text, "and so it ends");
    }
    // And once more, from the journal alone.
    assert_eq!(numbers(&rest(watch(&world, &id, 5).await).await), [6, 7, 8]);
    assert!(rest(watch(&world, &id, 8).await).await.is_empty());
}

/// Has read the first of its events, and so is there for what comes then.
async fn joined(mut watcher: EventStream<TurnEvent>) -> EventStream<TurnEvent> {
    let first = watcher.next().await.unwrap();
    Box::pin(futures::stream::iter([first]).chain(watcher))
}

fn delta(event: &TurnEvent) -> Option<String> {
    match &event.event {
        Some(Event::Delta(delta)) => match delta.event.as_ref()?.event.as_ref()? {
            llama_stack_proto::v1::chat_event::Event::Text(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// A watcher that sleeps through more than is kept reads what it missed from the journal.
#[tokio::test]
async fn a_slow_watcher_misses_no_step() {
    let long: &'static str = Box::leak("word ".repeat(10_000).into_boxed_str());
    let world = World::new(vec![vec![Text(long), Call("c", "add", r#"{"a":1,"b":1}"#)], vec![Text("ok")]]).await;
    let mut slow = world.begin(say("go")).await.unwrap();
    let first = slow.next().await.unwrap().unwrap();
    let fast = rest(watch(&world, &first.turn_id, 0).await).await;
    assert_eq!(names(&fast).last(), Some(&"ended"));
    let mut events = vec![first];
    events.extend(rest(slow).await);
    assert_eq!(numbers(&events), (1..=8).collect::<Vec<u64>>());
}

/// What was not to be stored cannot be read again, but how it ended is told.
#[tokio::test]
async fn a_slow_watcher_is_told_the_end_of_what_is_not_stored() {
    let long: &'static str = Box::leak("word ".repeat(10_000).into_boxed_str());
    let world = World::new(vec![vec![Call("c", "wait", "{}")], vec![Text(long)]]).await;
    let mut slow = world.begin(CreateTurnRequest { store: Some(false), ..say("go") }).await.unwrap();
    let id = slow.next().await.unwrap().unwrap().turn_id;
    until(|| world.hands.calls() == 1).await;
    let fast = joined(watch(&world, &id, 0).await).await;
    world.hands.open.send_replace(true);
    let fast = rest(fast).await;
    let events = rest(slow).await;
    assert_eq!(events.last(), fast.last());
    assert_eq!(names(&events).last(), Some(&"ended"));
}

#[tokio::test]
async fn nothing_begins_while_the_stack_shuts_down() {
    let world = World::new(vec![]).await;
    let (_, turn) = world.run(say("1")).await;
    world.shutdown.cancel();
    let error = world.begin(say("2")).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("shutting_down")));
    assert_eq!(rest(watch(&world, &turn.id, 0).await).await.len(), 4, "what is there can be read");
}
