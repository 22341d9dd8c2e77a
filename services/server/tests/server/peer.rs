//! One stack behind another that wants to know who calls: over TLS, with a key, and with the end user's name where that is to be.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Context, Identity, Principal, Telemetry};
use llama_stack_proto::v1::{CreateApiKeyRequest, ListRequestsRequest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Server, serve, start_with},
    identity::Authority,
};

/// A stack with TLS that wants a key, and one of its keys.
struct Upstream {
    server: Server,
    history: Arc<dyn Telemetry>,
    secret: String,
    folder: TempDir,
}

impl Upstream {
    /// The key is `front`'s of tenant `house`, with these roles.
    async fn start(roles: &[&str]) -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
        authority.write(folder.path());
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let more = format!(
            "server:\n  tls: {{ cert: \"{}\", key: \"{}\" }}\n  auth: {{ api_keys: true, delegates: [gateway] }}\n",
            at("cert.pem"),
            at("key.pem")
        );
        let mut inside: Option<(Arc<dyn Identity>, Arc<dyn Telemetry>)> = None;
        let server = serve(&more, |stack| inside = Some((stack.identity.clone(), stack.history.clone()))).await;
        let (book, history) = inside.unwrap();
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let request = CreateApiKeyRequest { principal: "front".into(), roles, ..Default::default() };
        let operator = Principal { id: "operator".into(), tenant: "house".into(), roles: vec!["operator".into()] };
        let secret = book.create_api_key(&Context::new(operator), request).await.unwrap().secret;
        Self { server, history, secret, folder }
    }

    /// A stack whose second provider is this one.
    async fn front(&self, config: &str) -> Server {
        let url = format!("https://{}", self.server.address);
        start_with(&format!("    - {{ id: far, type: remote::grpc, config: {{ url: \"{url}\", model_prefix: far-, {config} }} }}\n")).await
    }

    fn authority(&self) -> String {
        format!("ca_certificate: \"{}\"", self.folder.path().join("ca.pem").display())
    }

    /// Who asked for chats, as it saw them: in this tenant.
    async fn seen(&self, tenant: &str) -> Vec<String> {
        let admin = Context::new(Principal { id: "eve".into(), tenant: tenant.into(), roles: vec!["admin".into()] });
        let request = ListRequestsRequest { route: "/llama_stack.v1.Inference/Chat".into(), code: "OK".into(), ..Default::default() };
        let listed = self.history.list_requests(&admin, request).await.unwrap();
        listed.requests.into_iter().map(|request| request.principal).collect()
    }

    /// Until it has written it down, which it does when it is done with the answer.
    async fn seen_once(&self, tenant: &str) -> Vec<String> {
        for _ in 0..6_000 {
            let seen = self.seen(tenant).await;
            if !seen.is_empty() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Vec::new()
    }
}

/// Ann of acme asks the stack in front.
async fn ask(front: &Server, more: &[(&str, &str)]) -> (u16, Value) {
    let body = json!({ "model": "far/far-parrot", "messages": [{ "role": "user", "content": "hi" }] });
    let request = front.http.post(front.url("/v1/chat/completions")).json(&body);
    let request = request.header("x-llama-stack-tenant", "acme").header("x-llama-stack-principal", "ann");
    let response = more.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_stack_uses_another_that_demands_a_key_over_tls_and_does_not_tell_who_asks() {
    let upstream = Upstream::start(&["gateway"]).await;
    let (authority, secret) = (upstream.authority(), &upstream.secret);
    let front = upstream.front(&format!("{authority}, api_key: {secret}")).await;
    let (status, answer) = ask(&front, &[]).await;
    assert_eq!((status, answer["choices"][0]["message"]["content"].is_string()), (200, true), "{answer}");
    assert_eq!(upstream.seen_once("house").await, ["front"]);
    assert!(upstream.seen("acme").await.is_empty(), "who asked was told");
    // Without a key, and with a wrong one, the upstream says no, and that is no fault of the caller's unless the key was theirs.
    for config in [authority.clone(), format!("{authority}, api_key: lsk_wrong")] {
        let front = upstream.front(&config).await;
        let (status, body) = ask(&front, &[]).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("upstream_unauthorized")), "{body}");
        let (status, body) = ask(&front, &[("x-llama-stack-provider-key", "far=lsk_mine")]).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!("invalid_provider_key")), "{body}");
        assert_eq!(ask(&front, &[("x-llama-stack-provider-key", &format!("far={secret}"))]).await.0, 200);
    }
    // Without its authority there is no connection.
    let (status, body) = ask(&upstream.front(&format!("api_key: {secret}")).await, &[]).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("upstream_unreachable")), "{body}");
}

#[tokio::test]
async fn the_end_user_is_passed_on_where_the_manifest_says_so_and_the_upstream_lets_the_key_speak_for_others() {
    for (roles, tenant, who, other) in [(&["gateway"][..], "acme", "ann", "house"), (&[], "house", "front", "acme")] {
        let upstream = Upstream::start(roles).await;
        let config = format!("{}, api_key: {}, pass_identity: true", upstream.authority(), upstream.secret);
        assert_eq!(ask(&upstream.front(&config).await, &[]).await.0, 200);
        assert_eq!(upstream.seen_once(tenant).await, [who], "{roles:?}");
        assert!(upstream.seen(other).await.is_empty(), "{roles:?}");
    }
}
