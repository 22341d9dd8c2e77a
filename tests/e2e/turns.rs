//! Turns over gRPC and as Responses, on one runtime.

use llama_stack_proto::v1::{
    AgentConfig, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest, GetTurnRequest, Message, Turn, TurnEvent, TurnStatus,
    step::Step as StepKind, turn_event::Event,
};
use llama_stack_tests::scripted::MODEL;
use serde_json::{Value, json};

use crate::running::{Running, SCRIPTED};

async fn turn(stack: &Running, request: CreateTurnRequest) -> (Vec<TurnEvent>, Turn) {
    let mut stream = stack.agents().create_turn(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    let Some(Event::Ended(turn)) = events.last().and_then(|event| event.event.clone()) else { panic!("no end: {events:?}") };
    (events, *turn)
}

#[tokio::test]
async fn an_agent_uses_a_tool_and_its_turn_is_kept() {
    let stack = Running::start(SCRIPTED).await;
    let config = AgentConfig { model: MODEL.into(), tools: vec!["calculator".into()], ..AgentConfig::default() };
    let agent = stack.agents().create_agent(CreateAgentRequest { config: Some(config) }).await.unwrap().into_inner();
    let session = CreateSessionRequest { agent_id: agent.id, ..CreateSessionRequest::default() };
    let session = stack.agents().create_session(session).await.unwrap().into_inner();
    let ask =
        |text: &str| CreateTurnRequest { session_id: session.id.clone(), input: vec![Message::user(text)], ..CreateTurnRequest::default() };

    let (events, ended) = turn(&stack, ask(r#"call calculator {"expression": "6 * 7"}"#)).await;
    assert_eq!(ended.status(), TurnStatus::Completed);
    let kinds: Vec<&str> = ended
        .steps
        .iter()
        .map(|step| match &step.step {
            Some(StepKind::Inference(_)) => "inference",
            Some(StepKind::Tool(tool)) => {
                assert_eq!(tool.result.as_ref().unwrap().joined_text(), "42");
                "tool"
            }
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["inference", "tool", "inference"]);
    let journalled: Vec<u64> =
        events.iter().filter(|event| !matches!(event.event, Some(Event::Delta(_)))).map(|event| event.sequence).collect();
    assert_eq!(journalled, (1..=journalled.len() as u64).collect::<Vec<_>>());

    // The process ends and another takes over the same home: the turn is there, and the session goes on.
    let home = stack.stop().await;
    let stack = Running::start_in(home, SCRIPTED).await;
    let kept = stack.agents().get_turn(GetTurnRequest { id: ended.id.clone() }).await.unwrap().into_inner();
    assert_eq!(kept, ended);
    let (_, second) = turn(&stack, ask("and now?")).await;
    assert_eq!(second.parent_turn_id, ended.id);
    stack.stop().await;
}

#[tokio::test]
async fn a_response_streams_retrieves_continues_and_is_deleted() {
    let stack = Running::start(SCRIPTED).await;
    let events = stack.events("/v1/responses", json!({ "model": MODEL, "input": "count 3", "stream": true })).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let first = &events.last().unwrap().1["response"];
    assert_eq!(first["output"][0]["content"][0]["text"], "1 2 3");
    let id = first["id"].as_str().unwrap();
    assert_eq!(&stack.get(&format!("/v1/responses/{id}")).await.1, first);

    let (status, second) = stack.post("/v1/responses", json!({ "model": MODEL, "input": "go on", "previous_response_id": id })).await;
    assert_eq!((status, second["previous_response_id"].as_str()), (200, Some(id)));
    let items = stack.get(&format!("/v1/responses/{}/input_items", second["id"].as_str().unwrap())).await.1;
    assert_eq!(items["data"][0]["content"][0]["text"], "go on");

    let gone = reqwest::Client::new().delete(format!("{}/v1/responses/{id}", stack.url)).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    let (status, body) = stack.get(&format!("/v1/responses/{id}")).await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("response_not_found")));
    stack.stop().await;
}

#[tokio::test]
async fn a_function_call_goes_to_the_client_and_comes_back() {
    let stack = Running::start(SCRIPTED).await;
    let tools =
        json!([{ "type": "function", "name": "look", "parameters": { "type": "object", "properties": { "at": { "type": "string" } } } }]);
    let ask = json!({ "model": MODEL, "input": "call look {\"at\":\"it\"}", "tools": tools });
    let (status, asked) = stack.post("/v1/responses", ask).await;
    assert_eq!((status, asked["status"].as_str()), (200, Some("completed")), "{asked}");
    let call = &asked["output"][0];
    assert_eq!((call["type"].as_str(), call["arguments"].as_str()), (Some("function_call"), Some("{\"at\":\"it\"}")));

    let result = |call_id: &Value| json!([{ "type": "function_call_output", "call_id": call_id, "output": "a cat" }]);
    let follow = |call_id: &Value| json!({ "model": MODEL, "previous_response_id": asked["id"], "input": result(call_id), "tools": tools });
    let (status, wrong) = stack.post("/v1/responses", follow(&json!("call_nobody_made"))).await;
    assert_eq!(status, 400, "{wrong}");
    let (status, answered) = stack.post("/v1/responses", follow(&call["call_id"])).await;
    assert_eq!(status, 200, "{answered}");
    assert_eq!(answered["output"][0]["content"][0]["text"], "the tool said: a cat");
    stack.stop().await;
}

#[tokio::test]
async fn what_a_client_sends_itself_is_a_history() {
    let stack = Running::start(SCRIPTED).await;
    let input = json!([
        { "role": "user", "content": "look" },
        { "type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c1", "output": "a dog" },
    ]);
    let (status, answered) = stack.post("/v1/responses", json!({ "model": MODEL, "input": input, "store": false })).await;
    assert_eq!(status, 200, "{answered}");
    assert_eq!(answered["output"][0]["content"][0]["text"], "the tool said: a dog");
    // Not kept, as it was asked.
    assert_eq!(stack.get(&format!("/v1/responses/{}", answered["id"].as_str().unwrap())).await.0, 404);
    stack.stop().await;
}

#[tokio::test]
async fn wrong_responses_are_refused_with_their_field() {
    let stack = Running::start(SCRIPTED).await;
    let refused = async |body: Value| {
        let (status, body) = stack.post("/v1/responses", body).await;
        (
            status,
            body["error"]["param"].as_str().unwrap_or_default().to_owned(),
            body["error"]["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(refused(json!({ "model": "nope", "input": "hi" })).await.0, 404);
    assert_eq!(
        refused(json!({ "model": MODEL, "input": "hi", "previous_response_id": "resp_none" })).await.2,
        "previous_response_not_found"
    );
    assert_eq!(refused(json!({ "model": MODEL, "input": "hi", "max_output_tokens": 0 })).await.1, "max_output_tokens");
    assert_eq!(refused(json!({ "model": MODEL })).await.0, 400);
    assert_eq!(refused(json!({ "model": MODEL, "input": "hi", "temperature": 9 })).await.0, 400);
    assert_eq!(refused(json!({ "model": MODEL, "input": "fail" })).await.0, 503);
    stack.stop().await;
}

#[tokio::test]
async fn a_cut_off_response_says_why() {
    let stack = Running::start(SCRIPTED).await;
    let (status, body) = stack.post("/v1/responses", json!({ "model": MODEL, "input": "count 50", "max_output_tokens": 4 })).await;
    assert_eq!((status, body["status"].as_str()), (200, Some("incomplete")), "{body}");
    assert_eq!(body["incomplete_details"]["reason"], "max_output_tokens");
    stack.stop().await;
}
