use llama_stack_core::{Error, fold::ChatFold};
use llama_stack_proto::v1::{ChatResponse, ToolCall};

use super::*;

fn name() -> Name {
    Name { id: "up".into(), host: "host:1".into() }
}

fn events(n: u32, chunks: &[&str]) -> Result<Vec<ChatEvent>> {
    let (mut answers, mut out) = (Answers::new(n), Vec::new());
    for chunk in chunks {
        answers.take(&name(), serde_json::from_str(chunk).unwrap(), &mut out)?;
    }
    answers.end(&name(), true, &mut out)?;
    Ok(out)
}

fn folded(chunks: &[&str]) -> ChatResponse {
    let mut fold = ChatFold::default();
    events(1, chunks).unwrap().into_iter().for_each(|event| fold.push(event).unwrap());
    fold.finish("m")
}

/// The calls that come of deltas, and the finish reason.
fn calls(deltas: &[&str]) -> (Vec<ToolCall>, FinishReason) {
    let mut chunks: Vec<String> =
        deltas.iter().map(|delta| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{delta}]}}}}]}}"#)).collect();
    chunks.push(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.into());
    let response = folded(&chunks.iter().map(String::as_str).collect::<Vec<_>>());
    let choice = &response.choices[0];
    (choice.message.as_ref().unwrap().tool_calls().cloned().collect(), choice.finish_reason())
}

fn pairs(deltas: &[&str]) -> Vec<(String, String)> {
    calls(deltas).0.into_iter().map(|call| (call.name, call.arguments)).collect()
}

fn pair(name: &str, arguments: &str) -> (String, String) {
    (name.into(), arguments.into())
}

#[test]
fn parallel_calls_are_told_apart_by_index() {
    let (calls, finish) = calls(&[
        r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
        r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{\"y\""}}"#,
        r#"{"index":0,"function":{"arguments":"{\"x\":1}"}}"#,
        r#"{"index":1,"function":{"arguments":":2}"}}"#,
    ]);
    assert_eq!(calls, [ToolCall::new("a", "f", r#"{"x":1}"#), ToolCall::new("b", "g", r#"{"y":2}"#)]);
    // The upstream said `stop`; what it did was to call.
    assert_eq!(finish, FinishReason::ToolCalls);
}

#[test]
fn calls_without_index_are_told_apart_by_id_or_name() {
    let by_id = [
        r#"{"id":"a","function":{"name":"f","arguments":"{"}}"#,
        r#"{"id":"b","function":{"name":"f","arguments":"{"}}"#,
        r#"{"id":"a","function":{"arguments":"}"}}"#,
        r#"{"id":"b","function":{"arguments":" }"}}"#,
    ];
    assert_eq!(pairs(&by_id), [pair("f", "{}"), pair("f", "{ }")]);
    let by_name = [
        r#"{"function":{"name":"f","arguments":"{\"x\":"}}"#,
        r#"{"function":{"arguments":"1}"}}"#,
        r#"{"function":{"name":"g","arguments":"{}"}}"#,
    ];
    assert_eq!(pairs(&by_name), [pair("f", r#"{"x":1}"#), pair("g", "{}")]);
}

#[test]
fn whole_calls_that_are_all_numbered_0_stay_apart() {
    let deltas = [
        r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#,
        r#"{"index":0,"id":"b","function":{"name":"f","arguments":"{\"x\":2}"}}"#,
    ];
    assert_eq!(pairs(&deltas), [pair("f", r#"{"x":1}"#), pair("f", r#"{"x":2}"#)]);
}

#[test]
fn a_call_without_id_gets_one_of_its_own() {
    let (calls, _) = calls(&[r#"{"index":0,"function":{"name":"f","arguments":"{}"}}"#, r#"{"index":1,"function":{"name":"g"}}"#]);
    assert!(calls.iter().all(|call| call.id.starts_with("call_")));
    assert_ne!(calls[0].id, calls[1].id);
}

#[test]
fn a_name_that_comes_late_or_again_begins_one_call() {
    let late = [
        r#"{"index":0,"id":"a","function":{"arguments":"{\"x\""}}"#,
        r#"{"index":0,"function":{"name":"f"}}"#,
        r#"{"index":0,"id":"a","function":{"name":"f","arguments":":1}"}}"#,
    ];
    assert_eq!(pairs(&late), [pair("f", r#"{"x":1}"#)]);
}

#[test]
fn arguments_that_are_no_string_are_written_as_json() {
    assert_eq!(pairs(&[r#"{"index":3,"id":"a","function":{"name":"f","arguments":{"x":[1]}}}"#]), [pair("f", r#"{"x":[1]}"#)]);
    assert_eq!(pairs(&[r#"{"index":0,"id":"a","function":{"name":"f","arguments":null}}"#]), [pair("f", "")]);
}

#[test]
fn the_older_function_call_is_a_call() {
    let chunks = [
        r#"{"choices":[{"delta":{"function_call":{"name":"f","arguments":""}}}]}"#,
        r#"{"choices":[{"delta":{"function_call":{"arguments":"{}"}},"finish_reason":"function_call"}]}"#,
    ];
    let response = folded(&chunks);
    let choice = &response.choices[0];
    assert_eq!(choice.finish_reason(), FinishReason::ToolCalls);
    assert_eq!(choice.message.as_ref().unwrap().tool_calls().next().unwrap().name, "f");
}

#[test]
fn every_kind_of_words_is_its_own_event() {
    let chunks = [
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning":" so"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"!"}]},{"type":"text","text":"yes"}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":null,"refusal":"no"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"late"},"finish_reason":"content_filter"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"after the end"}}]}"#,
    ];
    let kinds: Vec<Event> = events(1, &chunks).unwrap().into_iter().filter_map(|event| event.event).collect();
    let usage = Usage { prompt_tokens: 3, completion_tokens: 4, cached_tokens: 2, reasoning_tokens: 1 };
    let text = |text: &str| Event::Text(text.into());
    let reasoning = |text: &str| Event::Reasoning(text.into());
    assert_eq!(
        kinds,
        [
            reasoning("hm"),
            reasoning(" so"),
            reasoning("!"),
            text("yes"),
            Event::Refusal("no".into()),
            text("late"),
            Event::Finish(FinishReason::ContentFilter.into()),
            Event::Usage(usage),
        ]
    );
}

#[test]
fn usage_is_one_event_after_the_last_finish() {
    let chunks = [
        r#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"eos_token"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3,"prompt_cache_hit_tokens":1}}"#,
    ];
    let events = events(2, &chunks).unwrap();
    let finishes: Vec<(u32, &Event)> = events.iter().filter_map(|event| Some((event.choice, event.event.as_ref()?))).collect();
    assert_eq!(finishes[1], (1, &Event::Finish(FinishReason::Length.into())));
    assert_eq!(finishes[3], (0, &Event::Finish(FinishReason::Stop.into())));
    assert_eq!(finishes[4], (0, &Event::Usage(Usage { prompt_tokens: 1, completion_tokens: 3, cached_tokens: 1, reasoning_tokens: 0 })));
    assert_eq!(finishes.len(), 5);
}

#[test]
fn logprobs_go_with_their_text_or_wait_for_the_next_event() {
    let chunks = [
        r#"{"choices":[{"delta":{"content":""},"logprobs":{"content":[{"token":"\\xf0","logprob":-0.5,"bytes":[240],"top_logprobs":[]}]}}]}"#,
        r#"{"choices":[{"delta":{"content":"é"},"logprobs":{"content":[{"token":"é","logprob":-0.25,"bytes":null,"top_logprobs":[{"token":"e","logprob":null}]}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    ];
    let events = events(1, &chunks).unwrap();
    let logprobs = &events[0].logprobs;
    assert_eq!((logprobs[0].bytes.as_slice(), logprobs[0].logprob), ([240].as_slice(), -0.5));
    assert_eq!((logprobs[1].bytes.as_slice(), logprobs[1].logprob), ("é".as_bytes(), -0.25));
    assert_eq!(logprobs[1].top[0].logprob, f32::NEG_INFINITY);
    assert!(events[1].logprobs.is_empty());
}

#[test]
fn the_logprobs_of_a_completion_are_lists_side_by_side() {
    let chunk = r#"{"choices":[{"text":"ab","finish_reason":"stop","logprobs":{"tokens":["a","b"],"token_logprobs":[null,-1.5],"top_logprobs":[null,{"c":-2.0,"b":-1.5}]}}]}"#;
    let events = events(1, &[chunk]).unwrap();
    let b = &events[0].logprobs[1];
    assert_eq!((b.token.as_str(), b.logprob), ("b", -1.5));
    assert_eq!(b.top.iter().map(|top| top.token.as_str()).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn an_answer_that_is_not_done_is_broken_off() {
    let broken = |result: Result<Vec<ChatEvent>, Error>| assert_eq!(result.unwrap_err().reason(), Some("stream_broken"));
    broken(events(1, &[]));
    broken(events(2, &[r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#]));
    // Said to be the end, though without a reason.
    assert_eq!(folded(&[r#"{"choices":[{"delta":{"content":"a"}}]}"#]).choices[0].finish_reason(), FinishReason::Stop);
}

#[test]
fn what_nobody_asked_for_or_has_no_name_is_malformed() {
    let reason = |chunks: &[&str]| events(1, chunks).unwrap_err().reason().unwrap().to_owned();
    assert_eq!(reason(&[r#"{"choices":[{"index":1,"delta":{"content":"a"}}]}"#]), "upstream_malformed");
    let nameless = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
    assert_eq!(reason(&[nameless]), "upstream_malformed");
    assert_eq!(reason(&[r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#]), "upstream_error");
}

#[test]
fn calls_without_end_are_refused() {
    let deltas: Vec<String> =
        (0..5_000).map(|n| format!(r#"{{"index":{n},"id":"c{n}","function":{{"name":"f","arguments":""}}}}"#)).collect();
    let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{}]}}}}]}}"#, deltas.join(","));
    assert_eq!(events(1, &[&chunk]).unwrap_err().reason(), Some("upstream_malformed"));
}
