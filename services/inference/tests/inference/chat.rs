//! What is sent, and what comes of the answer.

use std::time::Instant;

use serde_json::{Value, json};

use llama_stack_core::Code;
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, FinishReason, Image, Message, Part, ResponseFormat, Role, SamplingParams, ToolCall, ToolChoice,
    ToolDefinition, ToolResult, Usage,
    image::Source,
    part::Content,
    response_format::{Format, JsonObject, JsonSchema},
    tool_choice::Mode,
};

use crate::{
    cx, openai,
    server::{Server, json, spoken},
};

/// The body that a request becomes at a server of this preset.
async fn sent(preset: &str, request: ChatRequest) -> Value {
    let server = Server::start(|_, _| json(&spoken("ok"))).await;
    let provider = openai(json!({ "url": server.url, "preset": preset })).await;
    provider.chat(&cx(), request).await.unwrap();
    server.requests()[0].json()
}

/// Everything that a request may hold.
fn full() -> ChatRequest {
    let (a, b) = (ToolCall::new("a", "f", r#"{"x":1}"#), ToolCall::new("b", "g", ""));
    let image = |source, media_type: &str| Part::image(Image { source: Some(source), media_type: media_type.into() });
    let user = vec![Part::text("see"), image(Source::Url("https://h/i.png".into()), ""), image(Source::Data(vec![1, 2, 3]), "image/png")];
    let messages = vec![
        Message::system("be brief"),
        Message { name: "ann".into(), ..Message::new(Role::User, user) },
        Message::new(Role::Assistant, vec![Part::new(Content::Reasoning("hm".into())), a.clone().into(), b.clone().into()]),
        Message::tool(vec![ToolResult::text(&a, "one", false), ToolResult::text(&b, "two", true)]),
        Message::new(Role::Assistant, vec![Part::new(Content::Refusal("no".into()))]),
        Message::new(Role::User, vec![Part::text("why"), Part::text("?")]),
    ];
    ChatRequest {
        tools: vec![
            ToolDefinition { strict: true, ..ToolDefinition::new("f", "does f", r#"{"type":"object", "x": 1e2}"#) },
            ToolDefinition::new("g", "", ""),
        ],
        tool_choice: Some(ToolChoice { mode: Mode::Named.into(), name: "f".into(), ..ToolChoice::default() }),
        response_format: Some(ResponseFormat {
            format: Some(Format::JsonSchema(JsonSchema { schema: r#"{"type":"string"}"#.into(), strict: true, ..JsonSchema::default() })),
        }),
        sampling: Some(SamplingParams {
            temperature: Some(0.7),
            top_p: Some(0.9),
            frequency_penalty: Some(-1.0),
            presence_penalty: Some(1.0),
            seed: Some(7),
            max_tokens: Some(5),
            stop: vec!["END".into()],
            logit_bias: [(42, -1.5)].into(),
            ..SamplingParams::default()
        }),
        logprobs: true,
        top_logprobs: 2,
        parallel_tool_calls: Some(false),
        user: "ann".into(),
        reasoning_effort: "low".into(),
        ..ChatRequest::new("m", messages)
    }
}

#[tokio::test]
async fn a_request_is_written_as_the_api_has_it() {
    let body = sent("openai", full()).await;
    let expected = json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "name": "ann", "content": [
                { "type": "text", "text": "see" },
                { "type": "image_url", "image_url": { "url": "https://h/i.png" } },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AQID" } },
            ] },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } },
                { "id": "b", "type": "function", "function": { "name": "g", "arguments": "{}" } },
            ] },
            { "role": "tool", "content": "one", "tool_call_id": "a" },
            { "role": "tool", "content": "two", "tool_call_id": "b" },
            { "role": "assistant", "content": null, "refusal": "no" },
            { "role": "user", "content": "why?" },
        ],
        "tools": [
            { "type": "function", "function": { "name": "f", "description": "does f", "parameters": { "type": "object", "x": 1e2 }, "strict": true } },
            { "type": "function", "function": { "name": "g", "parameters": { "type": "object", "properties": {} } } },
        ],
        "tool_choice": { "type": "function", "function": { "name": "f" } },
        "parallel_tool_calls": false,
        "response_format": { "type": "json_schema", "json_schema": { "name": "answer", "schema": { "type": "string" }, "strict": true } },
        "temperature": 0.7, "top_p": 0.9, "frequency_penalty": -1.0, "presence_penalty": 1.0,
        "seed": 7, "max_completion_tokens": 5, "stop": ["END"], "logit_bias": { "42": -1.5 },
        "logprobs": true, "top_logprobs": 2, "reasoning_effort": "low", "user": "ann", "stream": false,
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn presets_speak_their_servers_dialect() {
    let sampled = |sampling| ChatRequest { sampling: Some(sampling), ..ChatRequest::user("m", "hi") };
    let extended = || {
        sampled(SamplingParams {
            top_k: Some(3),
            min_p: Some(0.5),
            repetition_penalty: Some(1.25),
            max_tokens: Some(9),
            ..Default::default()
        })
    };
    let vllm = sent("vllm", extended()).await;
    assert_eq!(
        (&vllm["top_k"], &vllm["min_p"], &vllm["repetition_penalty"], &vllm["max_tokens"]),
        (&json!(3), &json!(0.5), &json!(1.25), &json!(9))
    );
    assert_eq!(sent("llama-cpp", extended()).await["repeat_penalty"], 1.25);
    let mistral = sent("mistral", sampled(SamplingParams { seed: Some(4), ..Default::default() })).await;
    assert_eq!((&mistral["random_seed"], mistral.get("seed")), (&json!(4), None));
    let negative = sent("openai", sampled(SamplingParams { seed: Some(u64::MAX), ..Default::default() })).await;
    assert_eq!(negative["seed"], -1);
    let formatted = |format| ChatRequest { response_format: Some(ResponseFormat { format: Some(format) }), ..ChatRequest::user("m", "hi") };
    assert_eq!(sent("vllm", formatted(Format::Regex("[ab]".into()))).await["structured_outputs"], json!({ "regex": "[ab]" }));
    assert_eq!(sent("vllm", formatted(Format::Grammar("start: x".into()))).await["structured_outputs"], json!({ "grammar": "start: x" }));
    assert_eq!(
        sent("together", formatted(Format::Regex("[ab]".into()))).await["response_format"],
        json!({ "type": "regex", "pattern": "[ab]" })
    );
    assert_eq!(sent("tgi", formatted(Format::Regex("[ab]".into()))).await["response_format"], json!({ "type": "regex", "value": "[ab]" }));
    let schema = JsonSchema { name: "n".into(), schema: r#"{"type":"string"}"#.into(), ..JsonSchema::default() };
    assert_eq!(
        sent("tgi", formatted(Format::JsonSchema(schema))).await["response_format"],
        json!({ "type": "json", "value": { "type": "string" } })
    );
}

#[tokio::test]
async fn servers_that_refuse_names_and_refusals_get_none() {
    let talk = || {
        let refused = Message::new(Role::Assistant, vec![Part::new(Content::Refusal("no".into()))]);
        ChatRequest::new("m", vec![Message { name: "ann".into(), ..Message::user("a") }, refused, Message::user("b")])
    };
    for preset in ["groq", "mistral"] {
        let expected = json!([
            { "role": "user", "content": "a" },
            { "role": "assistant", "content": "no" },
            { "role": "user", "content": "b" },
        ]);
        assert_eq!(sent(preset, talk()).await["messages"], expected, "{preset}");
    }
    assert_eq!(sent("vllm", talk()).await["messages"][0]["name"], "ann");
}

#[tokio::test]
async fn a_stream_asks_for_its_usage_where_the_server_knows_how() {
    for (preset, asked) in [("vllm", json!({ "include_usage": true })), ("mistral", Value::Null)] {
        let server = Server::start(|_, _| json(&spoken("ok"))).await;
        let provider = openai(json!({ "url": server.url, "preset": preset })).await;
        drop(provider.stream_chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap());
        let body = server.requests()[0].json();
        assert_eq!((&body["stream"], &body["stream_options"]), (&json!(true), &asked));
    }
}

#[tokio::test]
async fn what_a_server_lacks_is_refused_before_it_is_asked() {
    let server = Server::start(|_, _| json(&spoken("ok"))).await;
    let request = || ChatRequest::user("m", "hi");
    let sampled = |sampling| ChatRequest { sampling: Some(sampling), ..request() };
    let formatted = |format| ChatRequest { response_format: Some(ResponseFormat { format: Some(format) }), ..request() };
    for (preset, request, field) in [
        ("openai", formatted(Format::Regex("a".into())), "response_format.regex"),
        ("together", formatted(Format::Grammar("a".into())), "response_format.grammar"),
        ("openai", sampled(SamplingParams { top_k: Some(1), ..Default::default() }), "sampling.top_k"),
        ("deepseek", sampled(SamplingParams { seed: Some(1), ..Default::default() }), "sampling.seed"),
        ("groq", ChatRequest { logprobs: true, ..request() }, "logprobs"),
        ("ollama", ChatRequest { n: 2, ..request() }, "n"),
        ("deepseek", formatted(Format::JsonSchema(JsonSchema::default())), "response_format.json_schema"),
        ("tgi", formatted(Format::JsonObject(JsonObject {})), "response_format.json_object"),
    ] {
        let provider = openai(json!({ "url": server.url, "preset": preset })).await;
        let error = provider.chat(&cx(), request).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::Unimplemented, Some(field)), "{preset}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn an_answer_is_read_whole() {
    let body = json!({
        "id": "x", "model": "something-else", "object": "chat.completion",
        "choices": [
            { "index": 1, "message": { "role": "assistant", "content": "two" }, "finish_reason": "length" },
            { "index": 0, "message": { "role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } },
                { "id": "b", "type": "function", "function": { "name": "g", "arguments": "{\"x\":1}" } },
            ] }, "finish_reason": "tool_calls", "logprobs": { "content": [{ "token": "f", "logprob": -0.5, "bytes": [102], "top_logprobs": [] }] } },
        ],
        "usage": { "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "prompt_tokens_details": { "cached_tokens": 3 } },
    });
    let server = Server::start(move |_, _| json(&body)).await;
    let provider = openai(json!({ "url": server.url })).await;
    let response = provider.chat(&cx(), ChatRequest { n: 2, logprobs: true, ..ChatRequest::user("m", "hi") }).await.unwrap();
    assert_eq!(response.model, "m");
    assert_eq!(response.usage, Some(Usage { prompt_tokens: 5, completion_tokens: 6, cached_tokens: 3, reasoning_tokens: 0 }));
    let [first, second] = &response.choices[..] else { panic!("{} choices", response.choices.len()) };
    let calls: Vec<&str> = first.message.as_ref().unwrap().tool_calls().map(|call| call.name.as_str()).collect();
    assert_eq!((first.finish_reason(), calls), (FinishReason::ToolCalls, vec!["f", "g"]));
    assert_eq!(first.logprobs[0].logprob, -0.5);
    assert_eq!((second.finish_reason(), second.message.as_ref().unwrap().joined_text()), (FinishReason::Length, "two".into()));
}

#[tokio::test]
async fn a_completion_is_read_whole() {
    let body = json!({ "choices": [{ "index": 0, "text": "abc", "finish_reason": "stop", "logprobs": { "tokens": ["abc"], "token_logprobs": [-1.0], "top_logprobs": null } }], "usage": { "prompt_tokens": 1, "completion_tokens": 1 } });
    let server = Server::start(move |_, _| json(&body)).await;
    let provider = openai(json!({ "url": server.url, "preset": "openai" })).await;
    let request =
        CompleteRequest { logprobs: true, echo: true, sampling: Some(SamplingParams::greedy(4)), ..CompleteRequest::text("m", "x") };
    let response = provider.complete(&cx(), request).await.unwrap();
    assert_eq!((response.choices[0].text.as_str(), response.choices[0].logprobs[0].logprob), ("abc", -1.0));
    let sent = server.requests()[0].json();
    assert_eq!(
        sent,
        json!({ "model": "m", "prompt": "x", "temperature": 0.0, "max_tokens": 4, "logprobs": 0, "echo": true, "stream": false })
    );
}

#[tokio::test]
async fn connections_are_kept_for_the_next_call() {
    let server = Server::start(|_, _| json(&spoken("ok"))).await;
    let provider = openai(json!({ "url": server.url })).await;
    let began = Instant::now();
    for _ in 0..20 {
        provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap();
    }
    assert_eq!(server.requests().len(), 20);
    // One that was idle for four seconds is not used again.
    let aged = began.elapsed().as_secs() as usize / 4;
    assert!(server.connections() <= 1 + aged, "{} connections", server.connections());
}
