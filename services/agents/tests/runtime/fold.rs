use llama_stack_agents::fold::Fold;
use llama_stack_core::Code;
use llama_stack_proto::v1::{
    AwaitingTools, InferenceStep, Message, Step, ToolCall, ToolResult, ToolResults, ToolStep, Turn, TurnEvent, TurnStatus, Usage, step,
    turn_event::Event,
};
use proptest::prelude::*;
use prost_types::Timestamp;

/// One move of a turn.
#[derive(Clone, Copy, Debug)]
enum Move {
    Infer,
    Call,
    Ask,
    End,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    proptest::collection::vec(prop_oneof![3 => Just(Move::Infer), 3 => Just(Move::Call), 2 => Just(Move::Ask), 1 => Just(Move::End)], 0..20)
}

/// A journal as a turn that makes these moves writes it; the last step may be cut off.
fn journal(moves: &[Move], cut: bool) -> Vec<TurnEvent> {
    let mut events: Vec<TurnEvent> = Vec::new();
    let mut push = |event: Event| {
        let sequence = events.len() as u64 + 1;
        events.push(TurnEvent {
            sequence,
            time: Some(Timestamp { seconds: sequence as i64, nanos: 0 }),
            event: Some(event),
            ..TurnEvent::default()
        });
    };
    push(Event::Created(Box::new(Turn { id: "t".into(), input: vec![Message::user("go")], ..Turn::default() })));
    for (steps, made) in (0_u32..).zip(moves) {
        let id = format!("step{steps}");
        let step = |what, ended| Step { id: id.clone(), index: steps, ended, step: Some(what), ..Step::default() };
        let now = Some(Timestamp::default());
        let call = Some(ToolCall::new(id.clone(), "f", "{}"));
        match made {
            Move::Infer => {
                push(Event::StepStarted(step(step::Step::Inference(InferenceStep::default()), None)));
                let usage = Some(Usage { completion_tokens: 1, ..Usage::default() });
                push(Event::StepCompleted(step(step::Step::Inference(InferenceStep { usage, ..InferenceStep::default() }), now)));
            }
            Move::Call => {
                let tool = ToolStep { call, ..ToolStep::default() };
                push(Event::StepStarted(step(step::Step::Tool(tool.clone()), None)));
                push(Event::StepCompleted(step(step::Step::Tool(ToolStep { result: Some(ToolResult::default()), ..tool }), now)));
            }
            Move::Ask => {
                push(Event::StepStarted(step(
                    step::Step::Tool(ToolStep { call: call.clone(), client: true, ..ToolStep::default() }),
                    None,
                )));
                push(Event::AwaitingTools(AwaitingTools { calls: call.into_iter().collect(), ..AwaitingTools::default() }));
                let result = ToolResult { call_id: id.clone(), ..ToolResult::default() };
                push(Event::Resumed(ToolResults { results: vec![result], ..ToolResults::default() }));
            }
            Move::End => {
                push(Event::Ended(Box::new(Turn { id: "t".into(), status: TurnStatus::Completed.into(), ..Turn::default() })));
                return events;
            }
        }
    }
    if cut && events.len() > 1 {
        events.pop();
    }
    events
}

proptest! {
    /// Where a process dies does not matter: what it had folded, and the rest, give the whole.
    #[test]
    fn a_prefix_and_the_rest_give_the_whole(moves in moves(), cut: bool, at in 0.0..1.0f64) {
        let events = journal(&moves, cut);
        let whole = Fold::of(events.clone()).unwrap();
        let at = 1 + ((events.len() - 1) as f64 * at) as usize;
        let mut pieces = Fold::of(events[..at].to_vec()).unwrap();
        for event in &events[at..] {
            pieces.push(event).unwrap();
        }
        prop_assert_eq!(&pieces, &whole);
        prop_assert_eq!(whole.sequence, events.len() as u64);
        let inferences = moves.iter().take_while(|made| !matches!(made, Move::End)).filter(|made| matches!(made, Move::Infer)).count();
        if !whole.ended() && !cut {
            prop_assert_eq!(whole.turn.usage.unwrap_or_default().completion_tokens as usize, inferences);
            prop_assert!(whole.open_steps().is_empty());
        }
    }

    /// A journal with an event missing, doubled or out of order is damaged, and is never taken for another.
    #[test]
    fn a_damaged_journal_is_found_out(moves in moves(), at in 0.0..1.0f64, doubled: bool) {
        let mut events = journal(&moves, false);
        prop_assume!(events.len() > 2);
        let at = (((events.len() - 1) as f64) * at) as usize;
        if doubled {
            events.insert(at, events[at].clone());
        } else {
            events.remove(at);
        }
        prop_assert_eq!(Fold::of(events).unwrap_err().code(), Code::DataLoss);
    }
}

#[test]
fn waiting_is_counted_and_results_find_their_steps() {
    let fold = Fold::of(journal(&[Move::Ask, Move::Infer, Move::Ask], false)).unwrap();
    assert_eq!(fold.waited, std::time::Duration::from_secs(2));
    assert!(fold.turn.steps.iter().all(|step| step.ended.is_some()));
    let waiting = Fold::of(journal(&[Move::Ask], true)).unwrap();
    assert_eq!((waiting.turn.status(), waiting.awaiting.len()), (TurnStatus::AwaitingTools, 1));
    assert!(waiting.open_steps().is_empty(), "the client's steps are not the runtime's to run");
}
