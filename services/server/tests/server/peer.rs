//! One stack behind another that wants to know who calls: over TLS, with a key, and with the end user's name where that is to be.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Context, Deps, Identity, Inference, Principal};
use llama_stack_proto::v1::{ChatRequest, CreateApiKeyRequest, ListRequestsRequest};
use llama_stack_server::registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Server, serve},
    identity::Authority,
};

/// A stack with TLS and keys, and the secret of a key with these roles.
async fn upstream(folder: &TempDir, authority: &Authority, roles: &[&str]) -> (Server, Arc<dyn llama_stack_core::Telemetry>, String) {
    authority.write(folder.path());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let more = format!(
        "server:\n  tls: {{ cert: \"{}\", key: \"{}\" }}\n  auth: {{ api_keys: true, delegates: [gateway] }}\n",
        at("cert.pem"),
        at("key.pem")
    );
    let mut inside: Option<(Arc<dyn Identity>, Arc<dyn llama_stack_core::Telemetry>)> = None;
    let server = serve(&more, |stack| inside = Some((stack.identity.clone(), stack.history.clone()))).await;
    let (book, history) = inside.unwrap();
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let request = CreateApiKeyRequest { principal: "front".into(), roles, ..Default::default() };
    let secret = book.create_api_key(&Context::test("house"), request).await.unwrap().secret;
    (server, history, secret)
}

async fn peer(server: &Server, folder: &TempDir, config: Value) -> Arc<dyn Inference> {
    let mut whole = json!({ "url": format!("https://{}", server.address), "ca_certificate": folder.path().join("ca.pem") });
    whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let deps = Deps { provider_id: "far".into(), ..Deps::new(folder.path()) };
    registry().inference.build("remote::grpc", whole, deps).await.unwrap()
}

fn ann() -> Context {
    Context::new(Principal { id: "ann".into(), tenant: "acme".into(), roles: Vec::new() }).with_timeout(Duration::from_secs(20))
}

/// Who asked for chats at the upstream, as it saw them: tenant by tenant.
async fn seen(history: &dyn llama_stack_core::Telemetry, tenant: &str) -> Vec<String> {
    let admin = Context::new(Principal { id: "eve".into(), tenant: tenant.into(), roles: vec!["admin".into()] });
    let route = "/llama_stack.v1.Inference/Chat".into();
    let listed = history.list_requests(&admin, ListRequestsRequest { route, ..Default::default() }).await.unwrap();
    listed.requests.into_iter().filter(|request| request.code == "OK").map(|request| request.principal).collect()
}

/// Until the upstream has written it down, which it does when it is done with the answer.
async fn seen_once(history: &dyn llama_stack_core::Telemetry, tenant: &str) -> Vec<String> {
    for _ in 0..500 {
        let seen = seen(history, tenant).await;
        if !seen.is_empty() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Vec::new()
}

#[tokio::test]
async fn a_stack_uses_another_that_demands_a_key_over_tls_and_does_not_tell_who_asks() {
    let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
    let (server, history, secret) = upstream(&folder, &authority, &["gateway"]).await;
    let far = peer(&server, &folder, json!({ "api_key": secret })).await;
    far.chat(&ann(), ChatRequest::user("parrot", "hi")).await.unwrap();
    assert_eq!(seen_once(&*history, "house").await, ["front"]);
    assert!(seen(&*history, "acme").await.is_empty(), "who asked was told");
    // Without a key, and with a wrong one, the upstream says no; without its authority there is no connection.
    for (config, reason) in [(json!({}), "missing_credentials"), (json!({ "api_key": "lsk_wrong" }), "invalid_api_key")] {
        let error = peer(&server, &folder, config).await.chat(&ann(), ChatRequest::user("parrot", "hi")).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some(reason)), "{error:?}");
    }
    let stranger = peer(&server, &folder, json!({ "api_key": secret, "ca_certificate": "" })).await;
    let error = stranger.chat(&ann(), ChatRequest::user("parrot", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_unreachable")), "{error:?}");
}

#[tokio::test]
async fn the_end_user_is_passed_on_where_the_manifest_says_so_and_the_upstream_lets_the_key_speak_for_others() {
    let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
    let (server, history, secret) = upstream(&folder, &authority, &["gateway"]).await;
    let far = peer(&server, &folder, json!({ "api_key": secret, "pass_identity": true })).await;
    far.chat(&ann(), ChatRequest::user("parrot", "hi")).await.unwrap();
    assert_eq!(seen_once(&*history, "acme").await, ["ann"]);
    assert!(seen(&*history, "house").await.is_empty());
    // A key without the role speaks for itself, whatever it says.
    let other = TempDir::new().unwrap();
    let (server, history, secret) = upstream(&other, &authority, &[]).await;
    let far = peer(&server, &other, json!({ "api_key": secret, "pass_identity": true })).await;
    far.chat(&ann(), ChatRequest::user("parrot", "hi")).await.unwrap();
    assert_eq!(seen_once(&*history, "house").await, ["front"]);
    assert!(seen(&*history, "acme").await.is_empty());
}
