//! Which models a server has.

use serde_json::json;

use llama_stack_core::Code;
use llama_stack_proto::v1::{ChatRequest, GetModelRequest, ListModelsRequest, ModelKind};

use crate::{
    cx, openai,
    server::{Server, json, spoken},
};

#[tokio::test]
async fn the_servers_list_is_ours() {
    for wrapped in [true, false] {
        let list = json!([
            { "id": "a", "object": "model", "created": 1_700_000_000, "owned_by": "vllm", "max_model_len": 4096 },
            { "id": "b", "type": "embedding", "context_length": 512 },
        ]);
        let body = if wrapped { json!({ "object": "list", "data": list }) } else { list };
        let server = Server::start(move |_, _| json(&body)).await;
        let provider = openai(json!({ "url": server.url })).await;
        let models = provider.list_models(&cx(), ListModelsRequest::default()).await.unwrap().models;
        assert_eq!(server.requests()[0].line, "GET /v1/models HTTP/1.1");
        assert_eq!((models[0].id.as_str(), models[0].context_length, models[0].provider_id.as_str()), ("a", 4096, "up"));
        assert_eq!(models[0].created.as_ref().unwrap().seconds, 1_700_000_000);
        assert_eq!((models[1].kind(), models[1].context_length), (ModelKind::Embedding, 512));
        assert_eq!(provider.get_model(&cx(), GetModelRequest { id: "b".into() }).await.unwrap().id, "b");
    }
}

#[tokio::test]
async fn configured_models_have_their_own_names_and_ask_nobody() {
    let server = Server::start(|_, _| json(&spoken("ok"))).await;
    let models = json!(["plain", { "id": "big", "upstream": "org/Big-70B", "context_length": 8192 }, { "id": "vec", "kind": "embedding" }]);
    let provider = openai(json!({ "url": server.url, "models": models })).await;
    let listed =
        provider.list_models(&cx(), ListModelsRequest { kind: ModelKind::Chat.into(), ..Default::default() }).await.unwrap().models;
    assert_eq!(listed.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["plain", "big"]);
    let error = provider.chat(&cx(), ChatRequest::user("other", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("model_not_found")));
    assert!(error.message().contains("plain, big, vec"), "{error}");
    assert!(server.requests().is_empty());
    let response = provider.chat(&cx(), ChatRequest::user("big", "hi")).await.unwrap();
    assert_eq!((response.model.as_str(), &server.requests()[0].json()["model"]), ("big", &json!("org/Big-70B")));
}
