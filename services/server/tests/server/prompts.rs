use llama_stack_core::{
    Context, Prompts,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{GetPromptRequest, prompts_client::PromptsClient};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::client::start;

#[tokio::test]
async fn a_prompt_is_kept_in_versions() {
    let server = start().await;
    let first = server.json("POST", "/v1/prompts", json!({ "prompt": "Hello {{ name }}", "variables": ["name"] })).await;
    let id = first["prompt_id"].as_str().unwrap();
    assert_eq!((&first["version"], &first["variables"], &first["is_default"]), (&json!(1), &json!(["name"]), &json!(true)));
    let one = format!("/v1/prompts/{id}");

    let second = server.json("POST", &one, json!({ "prompt": "Bye", "version": 1, "set_as_default": false })).await;
    assert_eq!((&second["version"], &second["is_default"]), (&json!(2), &json!(false)));
    assert_eq!(server.json("GET", &one, Value::Null).await, first);
    let behind = server.refused("POST", &one, json!({ "prompt": "No", "version": 1 })).await;
    assert_eq!((behind.0, behind.2), (409, json!("prompt_version_taken")));

    let chosen = server.json("POST", &format!("{one}/set-default-version"), json!({ "version": 2 })).await;
    assert_eq!((&chosen["prompt"], &chosen["is_default"]), (&json!("Bye"), &json!(true)));
    assert_eq!(server.json("GET", &one, Value::Null).await["version"], 2);
    assert_eq!(server.json("GET", &format!("{one}?version=1"), Value::Null).await["is_default"], false);
    let versions = server.json("GET", &format!("{one}/versions"), Value::Null).await;
    let numbers: Vec<&Value> = versions["data"].as_array().unwrap().iter().map(|prompt| &prompt["version"]).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(server.json("GET", "/v1/prompts", Value::Null).await["data"][0]["version"], 2);

    // The same over gRPC.
    let remote = Remote::<PromptsClient<Channel>>::new(channel(&server.url(""), std::time::Duration::from_secs(2)).unwrap());
    let kept = remote.get_prompt(&Context::new(Default::default()), GetPromptRequest { id: id.into(), version: 1 }).await.unwrap();
    assert_eq!((kept.text.as_str(), kept.is_default), ("Hello {{ name }}", false));

    assert_eq!(server.json("DELETE", &one, Value::Null).await["deleted"], true);
    assert_eq!(server.refused("GET", &one, Value::Null).await, (404, Value::Null, json!("prompt_not_found")));
}

#[tokio::test]
async fn wrong_prompts_are_refused_with_their_field() {
    let server = start().await;
    let refused = async |body: Value| server.refused("POST", "/v1/prompts", body).await.1;
    assert_eq!(refused(json!({ "prompt": "" })).await, "prompt");
    assert_eq!(refused(json!({ "prompt": "{{ a }}", "variables": ["b"] })).await, "variables");
    assert_eq!(refused(json!({})).await, "prompt");
}
