//! Conversations, over agents that keep what they are told.

use llama_stack_proto::v1::Role;
use serde_json::{Value, json};

use crate::{
    client::{Server, start_over},
    ledger::Ledger,
};

async fn begun() -> (Server, Ledger, String) {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    let items = json!([{ "role": "user", "content": "one" }, { "role": "assistant", "content": "two" }]);
    let conversation = server.json("POST", "/v1/conversations", json!({ "items": items, "metadata": { "a": "b" } })).await;
    assert_eq!((&conversation["object"], &conversation["metadata"]), (&json!("conversation"), &json!({ "a": "b" })));
    let id = conversation["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("conv_"));
    (server, ledger, id)
}

fn texts(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn items_are_those_of_the_turns_in_order() {
    let (server, ledger, id) = begun().await;
    assert!(ledger.last_asked().append_only, "no model is asked for items that are added by hand");
    let response = server.json("POST", "/v1/responses", json!({ "model": "m", "input": "three", "conversation": id })).await;
    assert_eq!((&response["conversation"]["id"], &response["previous_response_id"]), (&json!(id), &Value::Null));
    let items = format!("/v1/conversations/{id}/items");
    let added = server.json("POST", &items, json!({ "items": [{ "role": "user", "content": "four" }] })).await;
    assert_eq!(texts(&added), ["four"]);

    let all = server.json("GET", &format!("{items}?order=asc"), Value::Null).await;
    assert_eq!((texts(&all), &all["has_more"]), (vec!["one", "two", "three", "Hello", "four"], &json!(false)));
    let newest = server.json("GET", &format!("{items}?limit=2"), Value::Null).await;
    assert_eq!((texts(&newest), &newest["has_more"]), (vec!["four", "Hello"], &json!(true)));
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.json("GET", &format!("{items}?limit=2{after}"), Value::Null).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|item| item["id"].clone()));
        if page["has_more"] == json!(false) {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
    let ids: Vec<Value> = all["data"].as_array().unwrap().iter().rev().map(|item| item["id"].clone()).collect();
    assert_eq!(seen, ids, "pages cover the list once");

    let one = server.json("GET", &format!("{items}/{}", ids[1].as_str().unwrap()), Value::Null).await;
    assert_eq!(one["content"][0]["text"], "Hello");
}

#[tokio::test]
async fn an_item_is_taken_out_of_its_turn() {
    let (server, ledger, id) = begun().await;
    let items = format!("/v1/conversations/{id}/items");
    let all = server.json("GET", &format!("{items}?order=asc"), Value::Null).await;
    let second = all["data"][1]["id"].as_str().unwrap();
    let conversation = server.json("DELETE", &format!("{items}/{second}"), Value::Null).await;
    assert_eq!(conversation["id"], id.as_str());
    let redacted = ledger.kept().redacted.pop().unwrap();
    let place = redacted.parts[0];
    assert_eq!((place.place, place.part), (Some(llama_stack_proto::v1::part_place::Place::Input(1)), 0));
}

#[tokio::test]
async fn a_conversation_is_changed_and_deleted() {
    let (server, _, id) = begun().await;
    let one = format!("/v1/conversations/{id}");
    assert_eq!(server.json("POST", &one, json!({ "metadata": { "c": "d" } })).await["metadata"], json!({ "c": "d" }));
    assert_eq!(server.json("GET", &one, Value::Null).await["metadata"], json!({ "c": "d" }));
    assert_eq!(server.json("DELETE", &one, Value::Null).await, json!({ "id": id, "object": "conversation.deleted", "deleted": true }));
    for (method, path) in [("GET", one.clone()), ("DELETE", one.clone()), ("GET", format!("{one}/items"))] {
        assert_eq!(server.refused(method, &path, Value::Null).await, (404, Value::Null, json!("conversation_not_found")));
    }
}

#[tokio::test]
async fn wrong_conversations_are_refused() {
    let (server, ledger, id) = begun().await;
    let items = format!("/v1/conversations/{id}/items");
    let many = vec![json!({ "role": "user", "content": "x" }); 21];
    assert_eq!(server.refused("POST", &items, json!({ "items": many })).await.1, "items");
    assert_eq!(server.refused("POST", &items, json!({ "items": [] })).await.1, "items");
    assert_eq!(server.refused("POST", &items, json!({ "items": [{ "role": "robot", "content": "x" }] })).await.1, "items[0].role");
    assert_eq!(server.refused("GET", &format!("{items}/msg_1"), Value::Null).await.2, "item_not_found");
    assert_eq!(server.refused("GET", &format!("{items}?after=msg_1"), Value::Null).await.1, "after");
    let ask = |extra: Value| {
        let mut body = json!({ "model": "m", "input": "hi" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let response = server.json("POST", "/v1/responses", ask(json!({}))).await;
    let both = ask(json!({ "conversation": { "id": id }, "previous_response_id": response["id"] }));
    assert_eq!(server.refused("POST", "/v1/responses", both).await.1, "conversation");
    let unknown = server.refused("POST", "/v1/responses", ask(json!({ "conversation": "conv_0" }))).await;
    assert_eq!(unknown, (404, json!("conversation"), json!("conversation_not_found")));
    // Items that are refused leave no conversation behind.
    let count = ledger.kept().sessions.len();
    server.refused("POST", "/v1/conversations", json!({ "items": [{ "role": "user", "content": "refuse" }] })).await;
    server.refused("POST", "/v1/conversations", json!({ "items": [{ "role": "robot", "content": "x" }] })).await;
    assert_eq!(ledger.kept().sessions.len(), count);
}

/// One of another branch is in no history of this one.
#[tokio::test]
async fn a_reference_to_another_branch_stands_for_its_item() {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    let ask = async |input: Value, previous: &Value| {
        server.json("POST", "/v1/responses", json!({ "model": "m", "input": input, "previous_response_id": previous })).await
    };
    let root = ask(json!("root"), &Value::Null).await;
    let left = ask(json!("left"), &root["id"]).await;
    let right = ask(json!("right"), &root["id"]).await;
    let refer = |response: &Value| json!({ "type": "item_reference", "id": response["output"][0]["id"] });
    let input = json!([refer(&root), refer(&left), refer(&right), refer(&root), { "role": "user", "content": "and?" }]);
    ask(input, &right["id"]).await;
    let asked = ledger.last_asked().input;
    assert_eq!(asked.iter().map(|message| message.joined_text()).collect::<Vec<_>>(), ["Hello", "and?"], "the left one's");
}

/// An item of another conversation can be referred to; one of this conversation is in the history already.
#[tokio::test]
async fn a_reference_stands_for_its_item() {
    let (server, ledger, id) = begun().await;
    let all = server.json("GET", &format!("/v1/conversations/{id}/items?order=asc"), Value::Null).await;
    let input = json!([{ "type": "item_reference", "id": all["data"][1]["id"] }, { "role": "user", "content": "and?" }]);
    server.json("POST", "/v1/responses", json!({ "model": "m", "input": input })).await;
    let asked = ledger.last_asked().input;
    assert_eq!((asked[0].role(), asked[0].joined_text(), asked.len()), (Role::Assistant, "two".to_owned(), 2));
    server.json("POST", "/v1/responses", json!({ "model": "m", "input": input, "conversation": id })).await;
    assert_eq!(ledger.last_asked().input.len(), 1);
    let unknown = json!({ "model": "m", "input": [{ "type": "item_reference", "id": "msg_0123456789abcdef0123456789abcdef00000000" }] });
    assert_eq!(server.refused("POST", "/v1/responses", unknown).await, (404, json!("input[0].id"), json!("item_not_found")));
}
