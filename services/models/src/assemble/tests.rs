use llama_stack_proto::v1::{SamplingParams, ToolChoice, ToolDefinition, chat_event::Event, tool_choice::Mode};
use proptest::prelude::*;

use super::*;

fn request(stop: &[&str]) -> ChatRequest {
    let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
    let tools = vec![ToolDefinition::new("f", "", "")];
    ChatRequest { tools, sampling: Some(SamplingParams { stop, ..SamplingParams::default() }), ..ChatRequest::user("m", "hi") }
}

fn token(text: &str, id: u32) -> TokenLogprob {
    TokenLogprob { token: text.into(), bytes: text.as_bytes().to_vec(), token_id: id, ..TokenLogprob::default() }
}

/// One token per text, ids from 0.
fn run(request: &ChatRequest, texts: &[&str], reason: FinishReason) -> Vec<ChatEvent> {
    let mut assembler = Assembler::new(request, 0);
    let mut events = Vec::new();
    for (id, text) in texts.iter().enumerate() {
        let (more, stop) = assembler.push(text, vec![token(text, id as u32)]);
        events.extend(more);
        if stop {
            break;
        }
    }
    events.extend(assembler.finish(reason));
    events
}

/// Events in words: `text`, `f({})`, `finish`; with the ids of their tokens.
fn told(events: &[ChatEvent]) -> Vec<(String, Vec<u32>)> {
    let tell = |event: &ChatEvent| match event.event.as_ref().unwrap() {
        Event::Text(text) => text.clone(),
        Event::ToolCall(call) => format!("{}:{}({})", call.index, call.name, call.arguments),
        Event::Finish(reason) => FinishReason::try_from(*reason).unwrap().as_str_name().replace("FINISH_REASON_", ""),
        other => format!("{other:?}"),
    };
    events.iter().map(|event| (tell(event), event.logprobs.iter().map(|logprob| logprob.token_id).collect())).collect()
}

fn expect(events: &[(&str, &[u32])]) -> Vec<(String, Vec<u32>)> {
    events.iter().map(|(text, ids)| ((*text).to_owned(), ids.to_vec())).collect()
}

const CALL: [&str; 3] = ["{\"name\": \"f\", ", "\"arguments\": {}", "}"];

#[test]
fn held_back_text_brings_its_logprobs_when_it_comes() {
    let events = run(&request(&["</end>"]), &["a", " <", "/e", "x"], FinishReason::Length);
    assert_eq!(told(&events), expect(&[("a", &[0]), (" ", &[1]), ("</ex", &[2, 3]), ("LENGTH", &[])]));
}

#[test]
fn a_stop_string_takes_its_tokens_with_it() {
    let events = run(&request(&["</end>"]), &["a", "b <", "/en", "d> c", "never"], FinishReason::Stop);
    assert_eq!(told(&events), expect(&[("a", &[0]), ("b ", &[1]), ("STOP", &[])]));
}

#[test]
fn calls_have_ids_and_change_the_reason() {
    let events = run(&request(&[]), &[&["ok "], &CALL[..], &["\n"], &CALL[..]].concat(), FinishReason::Stop);
    assert_eq!(told(&events), expect(&[("ok ", &[0]), ("0:f({})", &[1, 2, 3]), ("1:f({})", &[4, 5, 6, 7]), ("TOOL_CALLS", &[])]));
    let ids: Vec<&str> = events
        .iter()
        .filter_map(|event| if let Some(Event::ToolCall(call)) = &event.event { Some(call.id.as_str()) } else { None })
        .collect();
    assert!(ids[0].starts_with("call_") && ids[0] != ids[1]);
}

#[test]
fn without_parallel_calls_the_first_ends_the_answer() {
    let mut request = request(&[]);
    request.parallel_tool_calls = Some(false);
    let mut assembler = Assembler::new(&request, 3);
    let (events, stop) = assembler.push(&[CALL.concat(), CALL.concat(), "more".into()].concat(), vec![]);
    assert!(stop && events.len() == 1 && events[0].choice == 3);
    assert_eq!(told(&assembler.finish(FinishReason::Stop)), expect(&[("TOOL_CALLS", &[])]));
}

#[test]
fn tool_choice_none_leaves_calls_as_text() {
    let mut request = request(&[]);
    request.tool_choice = Some(ToolChoice { mode: Mode::None.into(), ..ToolChoice::default() });
    let events = run(&request, &[&CALL.concat()], FinishReason::Stop);
    assert_eq!(told(&events), expect(&[(&CALL.concat(), &[0]), ("STOP", &[])]));
}

#[test]
fn a_call_that_the_limit_cut_off_ends_by_length() {
    let events = run(&request(&[]), &["<function=f>{\"a\": \"cut"], FinishReason::Length);
    assert_eq!(told(&events), expect(&[("0:f({\"a\": \"cut)", &[0]), ("LENGTH", &[])]));
    let events = run(&request(&[]), &[&CALL.concat(), "\n"], FinishReason::Length);
    assert_eq!(told(&events), expect(&[("0:f({})", &[0]), ("TOOL_CALLS", &[1])]));
}

#[test]
fn a_character_of_several_tokens_brings_all_of_them() {
    let mut assembler = Assembler::new(&request(&[]), 0);
    let half = |id: u32| TokenLogprob { bytes: vec![0xc3], token_id: id, ..TokenLogprob::default() };
    assert_eq!(assembler.push("", vec![half(0)]).0, []);
    assert_eq!(told(&assembler.push("é", vec![half(1)]).0), expect(&[("é", &[0, 1])]));
}

proptest! {
    #[test]
    fn no_logprob_is_lost_or_doubled_and_no_text_is_empty(
        texts in prop::collection::vec(prop::sample::select(vec!["a", "é ", "<", "{", "\"", "}", "{\"name\": \"f\", ", "\"arguments\": {}}", "\n", ";", "<function=f>", "`"]), 0..16),
    ) {
        let events = run(&request(&[]), &texts, FinishReason::Stop);
        let ids: Vec<u32> = events.iter().flat_map(|event| event.logprobs.iter().map(|logprob| logprob.token_id)).collect();
        prop_assert_eq!(ids, (0..texts.len() as u32).collect::<Vec<_>>());
        prop_assert!(events.iter().all(|event| event.event != Some(Event::Text(String::new()))));
        prop_assert_eq!(events.iter().filter(|event| matches!(event.event, Some(Event::Finish(_)))).count(), 1);
    }
}
