use std::time::Duration;

use futures::StreamExt as _;
use llama_stack_core::Agents as _;
use llama_stack_proto::v1::{CancelTurnRequest, Limits, OnDisconnect, TurnStatus};

use crate::{
    doubles::Say::{Call, Hang, Length, Text},
    world::{World, names, rest, say, until},
};

fn add(n: usize) -> crate::doubles::Say {
    Call("", "add", [r#"{"a":1,"b":1}"#, r#"{"a":2,"b":1}"#, r#"{"a":3,"b":1}"#, r#"{"a":4,"b":1}"#][n])
}

async fn bounded(limits: Limits) -> (String, World) {
    let world = World::new((0..4).map(|n| vec![add(n)]).collect()).await;
    let mut request = say("go");
    request.config.as_mut().unwrap().limits = Some(limits);
    let (_, turn) = world.run(request).await;
    let expected = if turn.incomplete_reason.is_empty() { TurnStatus::Completed } else { TurnStatus::Incomplete };
    assert_eq!(turn.status(), expected);
    (turn.incomplete_reason, world)
}

#[tokio::test]
async fn a_bound_that_is_met_ends_the_turn_and_says_which() {
    let (reason, world) = bounded(Limits { max_steps: 2, ..Limits::default() }).await;
    assert_eq!((reason.as_str(), world.script.asked(), world.hands.calls()), ("max_steps", 2, 2));
    let (reason, world) = bounded(Limits { max_tool_calls: 3, ..Limits::default() }).await;
    assert_eq!((reason.as_str(), world.hands.calls()), ("max_tool_calls", 3));
    let (reason, world) = bounded(Limits { max_tokens: 8, ..Limits::default() }).await;
    assert_eq!((reason.as_str(), world.script.asked()), ("max_output_tokens", 2));
    assert_eq!(world.script.request(1).sampling.unwrap().max_tokens, Some(3), "the second step has what the first left");
    let (reason, _) = bounded(Limits::default()).await;
    assert_eq!(reason, "");
}

#[tokio::test]
async fn a_turn_ends_when_its_time_is_over() {
    let world = World::new(vec![vec![Call("c", "hang", "{}")]]).await;
    let mut request = say("go");
    request.config.as_mut().unwrap().limits = Some(Limits { max_seconds: 1, ..Limits::default() });
    let (events, turn) = world.run(request).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "max_seconds"));
    assert_eq!(names(&events).last(), Some(&"ended"));
}

#[tokio::test]
async fn a_cut_answer_is_incomplete() {
    let world = World::new(vec![vec![Text("once upon"), Length]]).await;
    let (_, turn) = world.run(say("go")).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "max_output_tokens"));
}

#[tokio::test]
async fn a_cancelled_turn_ends_at_once_and_for_good() {
    let world = World::new(vec![vec![Text("one "), Hang]]).await;
    let stream = world.begin(say("go")).await.unwrap();
    until(|| world.script.asked() == 1).await;
    let mut stream = stream;
    let id = stream.next().await.unwrap().unwrap().turn_id;
    let cancel = || world.runtime.cancel_turn(&world.cx, CancelTurnRequest { id: id.clone() });
    assert_eq!(cancel().await.unwrap().status(), TurnStatus::Cancelled);
    assert_eq!(cancel().await.unwrap().status(), TurnStatus::Cancelled);
    assert_eq!(names(&rest(stream).await).last(), Some(&"ended"));
    assert_eq!(world.turn(&id).await.status(), TurnStatus::Cancelled);
}

#[tokio::test]
async fn dropping_the_stream_stops_the_watching_or_the_turn() {
    for (on_disconnect, status) in [(OnDisconnect::Unspecified, TurnStatus::Completed), (OnDisconnect::Cancel, TurnStatus::Cancelled)] {
        let world = World::new(vec![vec![Call("c", "wait", "{}")]]).await;
        let mut request = say("go");
        request.on_disconnect = on_disconnect.into();
        let mut stream = world.begin(request).await.unwrap();
        let id = stream.next().await.unwrap().unwrap().turn_id;
        until(|| world.hands.calls() == 1).await;
        drop(stream);
        if status == TurnStatus::Completed {
            world.hands.open.send_replace(true);
        }
        let watch = llama_stack_proto::v1::WatchTurnRequest { turn_id: id.clone(), after_sequence: 0 };
        rest(world.runtime.watch_turn(&world.cx, watch).await.unwrap()).await;
        assert_eq!(world.turn(&id).await.status(), status);
    }
}

/// The caller's deadline ends the stream; the turn has its own.
#[tokio::test]
async fn a_callers_deadline_does_not_end_the_turn() {
    // Its time may be over before the turn has begun, on a machine that stands still: then another one has more.
    let mut begun = None;
    for milliseconds in [200, 5_000, 60_000] {
        let world = World::new(vec![vec![Call("c", "wait", "{}")]]).await;
        let cx = world.cx.clone().with_timeout(Duration::from_millis(milliseconds));
        let stream = world.runtime.create_turn(&cx, say("go")).await;
        if let Ok(stream) = stream {
            begun = Some((world, stream));
            break;
        }
    }
    let (world, stream) = begun.expect("no turn began in time");
    let events: Vec<_> = stream.collect().await;
    let error = events.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.code(), llama_stack_core::Code::DeadlineExceeded);
    let id = events[0].as_ref().unwrap().turn_id.clone();
    world.hands.open.send_replace(true);
    let watch = llama_stack_proto::v1::WatchTurnRequest { turn_id: id.clone(), after_sequence: 0 };
    rest(world.runtime.watch_turn(&world.cx, watch).await.unwrap()).await;
    assert_eq!(world.turn(&id).await.status(), TurnStatus::Completed);
}
