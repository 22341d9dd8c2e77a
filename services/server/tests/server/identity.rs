//! Keys from their making to their end, the same caller over HTTP and gRPC, TLS, and policies that change.

use std::{path::Path, time::Duration};

use llama_stack_core::{
    Code, Context, Error, Identity, Principal, Telemetry as _,
    context::Secret,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    Caller, CreateApiKeyRequest, GetCallerRequest, HandOverRequest, ListAuditEventsRequest, identity_client::IdentityClient,
    telemetry_client::TelemetryClient,
};
use llama_stack_server::{Stack, bind};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    client::{PATIENCE, Server, chat, manifest, options, serve, start_with},
    scripted::Script,
};

const KEYS: &str = "server: { auth: { api_keys: true } }\n";

/// A stack, and the secret of an admin of `acme`.
async fn start(more: &str) -> (Server, String) {
    let mut book = None;
    let server = serve(more, |stack| book = Some(stack.identity.clone())).await;
    let request = CreateApiKeyRequest { principal: "eve".into(), roles: vec!["admin".into()], ..Default::default() };
    let issued = book.unwrap().create_api_key(&Context::test("acme"), request).await.unwrap();
    (server, issued.secret)
}

async fn told(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn status(server: &Server, secret: &str) -> u16 {
    told(server.http.get(server.url("/v1/whoami")).bearer_auth(secret)).await.0
}

/// Polls until it holds. What never holds ends the test by its own patience.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come about");
}

#[tokio::test]
async fn a_key_is_made_used_rotated_and_revoked() {
    let (server, admin) = start(KEYS).await;
    let keys = server.url("/v1/api-keys");
    let body = json!({ "name": "ci", "principal": "ann", "attributes": { "team": "blue" } });
    let (code, key) = told(server.http.post(&keys).bearer_auth(&admin).json(&body)).await;
    assert_eq!((code, key["tenant"].as_str(), key["created_by"].as_str()), (200, Some("acme"), Some("eve")), "{key}");
    let (id, first) = (key["id"].as_str().unwrap(), key["secret"].as_str().unwrap().to_owned());
    assert!(first.starts_with("lsk_"));
    let (_, who) = told(server.http.get(server.url("/v1/whoami")).bearer_auth(&first)).await;
    let expected = json!({ "principal": "ann", "tenant": "acme", "roles": [], "attributes": { "team": "blue" }, "credential": id });
    assert_eq!(who, expected);

    let rotate = |grace: u64| server.http.post(format!("{keys}/{id}/rotate")).bearer_auth(&admin).json(&json!({ "grace_seconds": grace }));
    let second = told(rotate(3600)).await.1["secret"].as_str().unwrap().to_owned();
    assert_eq!((status(&server, &first).await, status(&server, &second).await), (200, 200), "both are good for a while");
    let third = told(rotate(0)).await.1["secret"].as_str().unwrap().to_owned();
    assert_eq!((status(&server, &first).await, status(&server, &second).await, status(&server, &third).await), (401, 401, 200));

    let (code, revoked) = told(server.http.delete(format!("{keys}/{id}")).bearer_auth(&admin)).await;
    assert!(code == 200 && revoked["revoked_at"].is_number(), "{revoked}");
    assert_eq!(status(&server, &third).await, 401);
    let (_, list) = told(server.http.get(&keys).bearer_auth(&admin)).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains("lsk_"), "no list tells a secret: {list}");
    let (code, error) = told(rotate(0)).await;
    assert_eq!((code, error["error"]["code"].as_str()), (400, Some("api_key_revoked")));
    let (code, error) = told(server.http.get(format!("{keys}/key_none")).bearer_auth(&admin)).await;
    assert_eq!((code, error["error"]["code"].as_str()), (404, Some("api_key_not_found")));
    let crooked = json!({ "principal": "a/../b" });
    let (code, error) = told(server.http.post(&keys).bearer_auth(&admin).json(&crooked)).await;
    assert_eq!((code, error["error"]["param"].as_str()), (400, Some("principal")));
}

/// Headers that name somebody else do not help who has a key.
#[tokio::test]
async fn http_and_grpc_see_the_same_caller_whatever_the_headers_say() {
    let (server, admin) = start(KEYS).await;
    let claimed = server.http.get(server.url("/v1/whoami")).bearer_auth(&admin);
    let claimed = claimed.header("x-llama-stack-tenant", "umbrella").header("x-llama-stack-principal", "root");
    let (_, over_http) = told(claimed.header("x-llama-stack-roles", "god")).await;
    let remote = Remote::<IdentityClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let cx = Context::test("umbrella").with_bearer(Secret::new(&admin));
    let over_grpc = remote.get_caller(&cx, GetCallerRequest {}).await.unwrap();
    assert_eq!((over_grpc.principal.as_str(), over_grpc.tenant.as_str(), over_grpc.roles), ("eve", "acme", vec!["admin".to_owned()]));
    assert_eq!((&over_http["principal"], &over_http["tenant"], &over_http["roles"]), (&json!("eve"), &json!("acme"), &json!(["admin"])));
    let error = remote.get_caller(&Context::test("acme"), GetCallerRequest {}).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some("missing_credentials")));
    let wrong = Context::test("acme").with_bearer(Secret::new("lsk_wrong"));
    let error = remote.get_caller(&wrong, GetCallerRequest {}).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some("invalid_api_key")));
}

/// Which of two counts, a proxy may see otherwise.
#[tokio::test]
async fn two_credentials_at_once_are_none() {
    let (server, admin) = start(KEYS).await;
    let request = server.http.get(server.url("/v1/whoami")).bearer_auth(&admin).bearer_auth(&admin);
    let (code, error) = told(request).await;
    assert_eq!((code, error["error"]["code"].as_str()), (401, Some("invalid_authorization")));
}

#[tokio::test]
async fn who_has_no_key_is_told_in_openais_words() {
    let (server, _) = start(KEYS).await;
    let response = server.http.post(server.url("/v1/chat/completions")).json(&chat("hi")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    let error = response.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!((error["type"].as_str(), error["code"].as_str()), (Some("authentication_error"), Some("missing_credentials")));
    let (code, error) = told(server.http.post(server.url("/v1/chat/completions")).bearer_auth("lsk_x").json(&chat("hi"))).await;
    assert_eq!((code, error["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    // A route that there is not is none of a stranger's business either.
    assert_eq!(told(server.http.get(server.url("/v1/nope"))).await.0, 401);
}

#[tokio::test]
async fn headers_count_where_they_are_trusted() {
    let server = start_with("server: { auth: { trust_headers: true } }\n").await;
    let request = server.http.get(server.url("/v1/whoami")).header("x-llama-stack-principal", "ann");
    let (_, who) = told(request.header("x-llama-stack-tenant", "acme")).await;
    assert_eq!((&who["principal"], &who["tenant"]), (&json!("ann"), &json!("acme")));
    let request = server.http.get(server.url("/v1/whoami")).header("x-llama-stack-principal", "eve");
    let (code, error) = told(request.header("x-llama-stack-principal", "ann")).await;
    assert_eq!((code, error["error"]["param"].as_str()), (400, Some("x-llama-stack-principal")), "a client's beside the proxy's");
    // And may be denied what is not theirs.
    assert_eq!(told(server.http.get(server.url("/v1/api-keys")).header("x-llama-stack-principal", "ann")).await.0, 403);
}

#[tokio::test]
async fn anonymous_callers_have_no_roles_whatever_they_say() {
    let server = start_with("server: { auth: { anonymous: true, api_keys: true } }\n").await;
    assert_eq!(told(server.http.post(server.url("/v1/chat/completions")).json(&chat("hi"))).await.0, 200);
    let request = server.http.get(server.url("/v1/api-keys")).header("x-llama-stack-roles", "admin");
    assert_eq!(told(request).await.0, 403);
}

#[tokio::test]
async fn a_public_listener_without_auth_does_not_start() {
    let (script, home) = (Script::default(), TempDir::new().unwrap());
    let stack = Stack::build(manifest(""), &script.registry(), options(&home)).await.unwrap();
    let error = stack.serve(bind("0.0.0.0:0").await.unwrap(), CancellationToken::new()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("listener_without_auth")));
}

/// A key that anybody could make would count once the stack asks who calls.
#[tokio::test]
async fn a_stack_without_auth_gives_out_no_keys() {
    let server = start_with("").await;
    let admin = |request: RequestBuilder| request.header("x-llama-stack-roles", "admin");
    let (code, error) = told(admin(server.http.post(server.url("/v1/api-keys")).json(&json!({})))).await;
    assert_eq!((code, error["error"]["code"].as_str()), (400, Some("no_auth")), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("key create --offline"), "{error}");
    let (code, error) = told(admin(server.http.post(server.url("/v1/api-keys/key_1/rotate")).json(&json!({})))).await;
    assert_eq!((code, error["error"]["code"].as_str()), (400, Some("no_auth")), "{error}");
    let remote = Remote::<IdentityClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let error = remote.create_api_key(&Context::default(), CreateApiKeyRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("no_auth")));
    assert_eq!(told(admin(server.http.get(server.url("/v1/api-keys")))).await.1["data"], json!([]));
}

/// DNS rebinding: a browser sends the name of the page, which was made to point at this machine.
#[tokio::test]
async fn a_loopback_stack_answers_to_no_foreign_name_and_to_no_foreign_page() {
    let server = start_with("server: { hosts: [stack.local] }\n").await;
    let port = server.address.port();
    let ask = |host: String| told(server.http.get(server.url("/v1/models")).header("host", host));
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "stack.local".to_owned()] {
        assert_eq!(ask(host.clone()).await.0, 200, "{host}");
    }
    let (code, error) = ask(format!("evil.example:{port}")).await;
    assert_eq!((code, error["error"]["code"].as_str()), (421, Some("wrong_host")), "{error}");
    let post = |origin: String| told(server.http.post(server.url("/v1/chat/completions")).header("origin", origin).json(&chat("hi")));
    assert_eq!(post(format!("http://{}", server.address)).await.0, 200, "the playground's own");
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let (code, error) = post(origin.to_owned()).await;
        assert_eq!((code, error["error"]["code"].as_str()), (403, Some("origin_not_allowed")), "{origin}: {error}");
    }
    // And over gRPC, whose clients say the name as :authority.
    let endpoint = tonic::transport::Endpoint::from_shared(server.url("")).unwrap().origin("http://evil.example".parse().unwrap());
    let remote = Remote::<IdentityClient<Channel>>::new(endpoint.connect().await.unwrap());
    let error = remote.get_caller(&Context::default(), GetCallerRequest {}).await.unwrap_err();
    assert_eq!((error.code(), error.message().contains("loopback")), (Code::PermissionDenied, true), "{error:?}");
}

#[tokio::test]
async fn policies_are_read_again_when_their_file_changes() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("own.cedar");
    let forbid = |what: &str| format!("@id(\"mine\") forbid (principal, action == Action::\"{what}\", resource);");
    std::fs::write(&file, forbid("Inference.Embed")).unwrap();
    let (server, admin) =
        start(&format!("server: {{ auth: {{ api_keys: true, policy: {{ files: [\"{}\"] }} }} }}\n", file.display())).await;
    let models = || told(server.http.get(server.url("/v1/models")).bearer_auth(&admin));
    assert_eq!(models().await.0, 200);
    std::fs::write(&file, forbid("Inference.ListModels")).unwrap();
    until("the new policy", async || models().await.0 == 403).await;
    let (_, error) = models().await;
    assert!(error["error"]["message"].as_str().unwrap().contains("forbidden by policy mine"), "{error}");
    // What is wrong changes nothing.
    std::fs::write(&file, "permit (").unwrap();
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    assert_eq!(models().await.0, 403);
    std::fs::write(&file, forbid("Inference.Embed")).unwrap();
    until("the old policy", async || models().await.0 == 200).await;
}

#[tokio::test]
async fn a_wrong_policy_or_certificate_is_refused_with_its_place() {
    let refusal = async |more: &str| -> Error {
        let (script, home) = (Script::default(), TempDir::new().unwrap());
        Stack::build(manifest(more), &script.registry(), options(&home)).await.err().expect("was built")
    };
    let error = refusal("server: { auth: { api_keys: true, policy: { text: \"permit (\" } } }\n").await;
    assert!(error.message().contains("server.auth.policy.text"), "{error}");
    let error = refusal("server:\n  tls: { cert: /none/cert.pem, key: /none/key.pem }\n").await;
    assert!(error.message().starts_with("test.yaml:8: server.tls.cert: /none/cert.pem: cannot be read"), "{error}");
}

/// An authority that signs for servers and clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ours");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, in PEM.
    fn certify(&self, name: &str) -> (String, String) {
        let (params, key) = (CertificateParams::new([name.to_owned()]).unwrap(), KeyPair::generate().unwrap());
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn write(&self, folder: &Path) {
        let (cert, key) = self.certify("127.0.0.1");
        std::fs::write(folder.join("cert.pem"), cert).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
    }

    fn client(&self, name: Option<&str>) -> Client {
        let root = reqwest::Certificate::from_pem(self.0.pem().as_bytes()).unwrap();
        let builder = Client::builder().no_proxy().tls_certs_only([root]).timeout(PATIENCE);
        let builder = match name {
            Some(name) => {
                let (cert, key) = self.certify(name);
                builder.identity(reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap())
            }
            None => builder,
        };
        builder.build().unwrap()
    }
}

#[tokio::test]
async fn a_clients_certificate_says_who_calls_and_certificates_are_read_again() {
    let (folder, ours) = (TempDir::new().unwrap(), Authority::new());
    let at = |name: &str| folder.path().join(name).display().to_string();
    ours.write(folder.path());
    std::fs::write(at("ca.pem"), ours.0.pem()).unwrap();
    let (server, admin) = start(&format!(
        "server:\n  tls: {{ cert: \"{}\", key: \"{}\", client_ca: \"{}\" }}\n  auth:\n    api_keys: true\n    mtls: {{ tenant: acme, roles_of: {{ robot.acme: [admin], clerk.acme: [operator] }} }}\n",
        at("cert.pem"),
        at("key.pem"),
        at("ca.pem")
    ))
    .await;
    let whoami = format!("https://{}/v1/whoami", server.address);
    let (code, who) = told(ours.client(Some("robot.acme")).get(&whoami)).await;
    assert_eq!(code, 200, "{who}");
    assert_eq!((&who["principal"], &who["tenant"], &who["roles"]), (&json!("robot.acme"), &json!("acme"), &json!(["admin"])));
    assert_eq!(who["credential"], "certificate");
    // Over gRPC as well: an empty message in gRPC-Web's frame, and a Caller as the answer.
    let call = format!("https://{}/llama_stack.v1.Identity/GetCaller", server.address);
    let over_grpc = async |client: Client| {
        let request = client.post(&call).header("content-type", "application/grpc-web+proto").header("x-grpc-web", "1");
        let response = request.body(vec![0_u8; 5]).send().await.unwrap();
        let status = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
        (status, response.bytes().await.unwrap())
    };
    let (refused, frame) = over_grpc(ours.client(Some("robot.acme"))).await;
    assert_eq!(refused, None, "{frame:?}");
    let length = u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize;
    let caller = Caller::decode(&frame[5..5 + length]).unwrap();
    assert_eq!((caller.principal.as_str(), caller.tenant.as_str(), caller.credential.as_str()), ("robot.acme", "acme", "certificate"));
    assert_eq!(caller.roles, ["admin"]);
    // UNAUTHENTICATED.
    let (refused, body) = over_grpc(ours.client(None)).await;
    assert!(refused.as_deref() == Some("16") || String::from_utf8_lossy(&body).contains("grpc-status:16"), "{refused:?} {body:?}");
    // Without one a key does; without either, nothing. A certificate of somebody else's authority ends in the handshake.
    assert_eq!(told(ours.client(None).get(&whoami).bearer_auth(&admin)).await.1["principal"], "eve");
    assert_eq!(told(ours.client(None).get(&whoami)).await.0, 401);
    let theirs = Authority::new();
    let (cert, key) = theirs.certify("robot.acme");
    let root = reqwest::Certificate::from_pem(ours.0.pem().as_bytes()).unwrap();
    let identity = reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap();
    let stranger = Client::builder().no_proxy().tls_certs_only([root]).identity(identity).build().unwrap();
    assert!(stranger.get(&whoami).send().await.is_err());
    // Nor is there any for what speaks no TLS. Both are counted, and the certificate is a refused credential.
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
    let metrics = format!("https://{}/metrics", server.address);
    until("the count of both", async || {
        let text = ours.client(None).get(&metrics).bearer_auth(&admin).send().await.unwrap().text().await.unwrap();
        let counted = |reason: &str| {
            let line = format!("llama_stack_tls_handshakes_failed_total{{reason=\"{reason}\"}} ");
            text.lines().any(|found| found.strip_prefix(&line).is_some_and(|count| count != "0"))
        };
        counted("certificate") && counted("protocol")
    })
    .await;
    let audit = format!("https://{}/v1/audit?kind=credential", server.address);
    let (code, list) = told(ours.client(Some("clerk.acme")).get(&audit)).await;
    let is_it = |row: &Value| row["action"] == "TLS handshake" && row["reason"] == "invalid_certificate" && row["address"] == "127.0.0.1";
    assert!(code == 200 && list["data"].as_array().unwrap().iter().any(is_it), "{list}");
    // Another authority signs the server from now on.
    theirs.write(folder.path());
    until("the new certificate", async || {
        theirs.client(None).get(&whoami).bearer_auth(&admin).send().await.is_ok_and(|response| response.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn lists_hold_what_the_caller_may_read() {
    let (server, admin) = start(KEYS).await;
    let issue = async |principal: &str| {
        let request = server.http.post(server.url("/v1/api-keys")).bearer_auth(&admin).json(&json!({ "principal": principal }));
        told(request).await.1["secret"].as_str().unwrap().to_owned()
    };
    let (ann, bob) = (issue("ann").await, issue("bob").await);
    let body = json!({ "model": "parrot", "input": "hi" });
    let (code, response) = told(server.http.post(server.url("/v1/responses")).bearer_auth(&ann).json(&body)).await;
    assert_eq!(code, 200, "{response}");
    let listed = async |path: &str, secret: &str| {
        let (_, list) = told(server.http.get(server.url(path)).bearer_auth(secret)).await;
        list["data"].as_array().unwrap().len()
    };
    for path in ["/v1/responses", "/v1/conversations"] {
        assert_eq!((listed(path, &ann).await, listed(path, &bob).await, listed(path, &admin).await), (1, 0, 1), "{path}");
    }
    // Nor may it be gone on with.
    let body = json!({ "model": "parrot", "input": "and?", "previous_response_id": response["id"] });
    assert_eq!(told(server.http.post(server.url("/v1/responses")).bearer_auth(&bob).json(&body)).await.0, 404);
    assert_eq!(told(server.http.post(server.url("/v1/responses")).bearer_auth(&ann).json(&body)).await.0, 200);
    // Nor does a page's token serve another than who it was given to.
    let body = json!({ "model": "parrot", "input": "hi again" });
    assert_eq!(told(server.http.post(server.url("/v1/responses")).bearer_auth(&ann).json(&body)).await.0, 200);
    let page = async |secret: &str, token: &str| {
        let url = server.url(&format!("/v1/conversations?limit=1&page={token}"));
        told(server.http.get(url).bearer_auth(secret)).await
    };
    let (_, first) = page(&ann, "").await;
    let token = first["next_page"].as_str().unwrap();
    let (code, rest) = page(&ann, token).await;
    assert_eq!((code, rest["data"].as_array().unwrap().len()), (200, 1), "{rest}");
    let (code, refused) = page(&bob, token).await;
    assert_eq!((code, &refused["error"]["code"]), (400, &json!("bad_page_token")), "{refused}");
}

/// Who may and who may not, by whom and under which policy: over both protocols, for admins.
#[tokio::test]
async fn every_decision_about_a_call_is_in_the_audit_log() {
    let (server, admin) = start(KEYS).await;
    let request = server.http.post(server.url("/v1/api-keys")).bearer_auth(&admin).json(&json!({ "principal": "ann" }));
    let (_, key) = told(request).await;
    let ann = key["secret"].as_str().unwrap();
    for (path, code) in [("/v1/models", 200), ("/v1/api-keys", 403), ("/v1/audit", 403)] {
        assert_eq!(told(server.http.get(server.url(path)).bearer_auth(ann)).await.0, code, "{path}");
    }
    let read = async |query: &str| {
        let (code, list) = told(server.http.get(server.url(&format!("/v1/audit?{query}"))).bearer_auth(&admin)).await;
        assert_eq!(code, 200, "{list}");
        list
    };
    let list = read("principal=ann").await;
    let seen: Vec<(&str, &str)> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    let expected = [("Telemetry.ListAuditEvents", "denied"), ("Identity.ListApiKeys", "denied"), ("Inference.ListModels", "allowed")];
    assert_eq!(seen, expected, "{list}");
    let event = &list["data"][2];
    assert_eq!((&event["kind"], &event["credential"]), (&json!("access"), &key["id"]));
    assert_eq!(event["policies"], json!(["built-in/use"]));
    assert!(!event["request_id"].as_str().unwrap().is_empty() && !list.to_string().contains("lsk_"), "{list}");
    // Page by page, and by outcome.
    let page = read("principal=ann&limit=2").await;
    let rest = read(&format!("principal=ann&limit=2&page={}", page["next_page"].as_str().unwrap())).await;
    assert_eq!((page["data"].as_array().unwrap().len(), &rest["data"][0], &rest["next_page"]), (2, event, &Value::Null));
    assert_eq!(read("outcome=denied&kind=access").await["data"].as_array().unwrap().len(), 2);
    for (query, field) in [("limit=0", "limit"), ("kind=x", "kind"), ("page=x", "page"), ("since=-1", "since")] {
        let (code, error) = told(server.http.get(server.url(&format!("/v1/audit?{query}"))).bearer_auth(&admin)).await;
        assert_eq!((code, error["error"]["param"].as_str()), (400, Some(field)), "{error}");
    }
    let remote = Remote::<TelemetryClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let request = ListAuditEventsRequest { principal: "ann".into(), ..Default::default() };
    let events = remote.list_audit_events(&Context::default().with_bearer(Secret::new(&admin)), request.clone()).await.unwrap().events;
    assert_eq!(events.len(), 3);
    let error = remote.list_audit_events(&Context::default().with_bearer(Secret::new(ann)), request).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
}

/// Who shows nothing, or something wrong, is nobody's caller: the operator reads where from, what for and why, and never what was shown.
#[tokio::test]
async fn refused_credentials_are_in_the_audit_log_and_a_flood_of_them_is_a_few_rows() {
    let mut book = None;
    let server =
        serve("server: { auth: { api_keys: true, attempts: { burst: 1000 } } }\n", |stack| book = Some(stack.identity.clone())).await;
    let issue = async |role: &str| {
        let who = Principal { id: "eve".into(), tenant: "acme".into(), roles: vec!["operator".into()] };
        let request = CreateApiKeyRequest { roles: vec![role.into()], ..CreateApiKeyRequest::default() };
        book.as_ref().unwrap().create_api_key(&Context::new(who), request).await.unwrap().secret
    };
    let (admin, operator) = (issue("admin").await, issue("operator").await);
    assert_eq!(told(server.http.get(server.url("/v1/models"))).await.0, 401);
    let remote = Remote::<IdentityClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let wrong = Context::test("acme").with_bearer(Secret::new("lsk_wrong"));
    assert_eq!(remote.get_caller(&wrong, GetCallerRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    for _ in 0..30 {
        assert_eq!(status(&server, "lsk_guessed").await, 401);
    }
    let read = async |secret: &str, query: &str| told(server.http.get(server.url(&format!("/v1/audit{query}"))).bearer_auth(secret)).await;
    let (code, list) = read(&operator, "?kind=credential").await;
    let rows = list["data"].as_array().unwrap();
    assert_eq!((code, rows.len()), (200, 10), "{list}");
    let first = &rows[9];
    assert_eq!((&first["kind"], &first["principal"], &first["outcome"]), (&json!("credential"), &json!("unknown"), &json!("refused")));
    assert_eq!(
        (&first["address"], &first["action"], &first["reason"]),
        (&json!("127.0.0.1"), &json!("GET /v1/models"), &json!("missing_credentials"))
    );
    assert!(rows[8]["action"].as_str().unwrap().ends_with("Identity/GetCaller") && rows[8]["reason"] == "invalid_api_key", "{list}");
    assert!(!list.to_string().contains("lsk_") && rows.iter().all(|row| row["request_id"] != ""), "{list}");
    // They are no tenant's.
    assert_eq!(read(&admin, "?kind=credential").await.0, 403);
    let (code, own) = read(&admin, "").await;
    assert!(code == 200 && !own.to_string().contains("refused"), "{own}");
}

/// So many wrong ones, over whichever protocol; then none is looked at, not even a right one. Who shows nothing is only asked to.
#[tokio::test]
async fn wrong_credentials_of_one_address_are_bounded_over_both_protocols() {
    let auth = "auth: { api_keys: true, attempts: { burst: 4, per_minute: 1 } }";
    let (server, admin) = start(&format!("server: {{ trusted_proxies: [\"127.0.0.0/8\"], {auth} }}\n")).await;
    let ask = |from: &str, secret: &str| {
        server.http.get(server.url("/v1/whoami")).header("x-forwarded-for", format!("6.6.6.6, {from}")).bearer_auth(secret)
    };
    let over_grpc = async |from: &str, secret: &str| {
        let mut request = tonic::Request::new(GetCallerRequest {});
        request.metadata_mut().insert("x-forwarded-for", from.parse().unwrap());
        request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
        let mut client = IdentityClient::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
        client.get_caller(request).await.map(|who| who.into_inner().principal).map_err(Error::from)
    };
    for _ in 0..2 {
        assert_eq!(told(ask("192.0.2.9", "lsk_guessed")).await.0, 401);
        assert_eq!(over_grpc("192.0.2.9", "lsk_guessed").await.unwrap_err().code(), Code::Unauthenticated);
        // What is right takes no attempt.
        assert_eq!(told(ask("192.0.2.8", &admin)).await.0, 200);
    }
    for secret in ["lsk_guessed", admin.as_str()] {
        let response = ask("192.0.2.9", secret).send().await.unwrap();
        let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(response.status() == 429 && (1..=60).contains(&seconds), "{response:?}");
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!((&error["code"], &error["type"]), (&json!("too_many_wrong_credentials"), &json!("rate_limit_error")), "{error}");
        let error = over_grpc("192.0.2.9", secret).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("too_many_wrong_credentials")));
        assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(60)), "{error:?}");
    }
    // Nobody else is held up, and who shows nothing has shown nothing wrong.
    assert_eq!(told(ask("192.0.2.8", &admin)).await.0, 200);
    assert_eq!(over_grpc("192.0.2.7", &admin).await.unwrap(), "eve");
    assert_eq!(told(server.http.get(server.url("/v1/whoami")).header("x-forwarded-for", "192.0.2.9")).await.0, 401);
    let metrics = server.http.get(server.url("/metrics")).header("x-forwarded-for", "192.0.2.8").bearer_auth(&admin);
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"llama_stack_requests_refused_total{reason="too_many_wrong_credentials"} 4"#), "{metrics}");
}

/// What a caller writes of itself counts for nothing, unless a proxy that is named passes it on.
#[tokio::test]
async fn behind_a_trusted_proxy_the_audit_log_has_the_callers_address() {
    for (proxies, expected) in [("[\"127.0.0.0/8\"]", "192.0.2.9"), ("[10.0.0.1]", "127.0.0.1")] {
        let mut book = None;
        let manifest = format!("server: {{ trusted_proxies: {proxies}, auth: {{ api_keys: true }} }}\n");
        let server = serve(&manifest, |stack| book = Some(stack.identity.clone())).await;
        let who = Principal { id: "eve".into(), tenant: "acme".into(), roles: vec!["operator".into()] };
        let request = CreateApiKeyRequest { roles: vec!["operator".into()], ..CreateApiKeyRequest::default() };
        let operator = book.unwrap().create_api_key(&Context::new(who), request).await.unwrap().secret;
        let asked = server.http.get(server.url("/v1/models")).header("x-forwarded-for", "6.6.6.6, 192.0.2.9");
        assert_eq!(told(asked).await.0, 401);
        let (code, list) = told(server.http.get(server.url("/v1/audit?kind=credential")).bearer_auth(&operator)).await;
        assert_eq!((code, list["data"][0]["address"].as_str()), (200, Some(expected)), "{list}");
    }
}

/// What was made on a stack that did not ask who calls is out of reach once it does, until an admin gives it to somebody.
#[tokio::test]
async fn what_was_made_before_callers_were_told_apart_is_handed_to_a_principal() {
    let folder = TempDir::new().unwrap();
    let store = format!("store: {{ url: \"sqlite://{}/state.db\" }}\n", folder.path().display());
    let server = start_with(&store).await;
    let answer = server.json("POST", "/v1/responses", json!({ "model": "parrot", "input": "before" })).await;
    let prompt = server.json("POST", "/v1/prompts", json!({ "prompt": "before" })).await;
    server.stop.cancel();
    tokio::time::timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();

    let mut book = None;
    let server = serve(&format!("{store}{KEYS}"), |stack| book = Some(stack.identity.clone())).await;
    let book = book.unwrap();
    let issue = async |principal: &str, roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let request = CreateApiKeyRequest { principal: principal.into(), roles, ..Default::default() };
        book.create_api_key(&Context::default(), request).await.unwrap().secret
    };
    let (admin, ann, bob) = (issue("eve", &["admin"]).await, issue("ann", &[]).await, issue("bob", &[]).await);
    let response = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    let read = async |secret: &str| told(server.http.get(server.url(&response)).bearer_auth(secret)).await.0;
    assert_eq!((read(&ann).await, read(&admin).await), (404, 200));

    let remote = Remote::<IdentityClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let request = HandOverRequest { to: "ann".into(), ..Default::default() };
    let by = |secret: &str| Context::default().with_bearer(Secret::new(secret));
    assert_eq!(remote.hand_over(&by(&ann), request.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    // The turn, its session and the prompt.
    assert_eq!(remote.hand_over(&by(&admin), request.clone()).await.unwrap().count, 3);
    assert_eq!(remote.hand_over(&by(&admin), request).await.unwrap().count, 0, "it is done already");
    let over_http = |secret: &str| server.http.post(server.url("/v1/hand-over")).bearer_auth(secret).json(&json!({ "to": "ann" }));
    assert_eq!(told(over_http(&ann)).await.0, 403);
    assert_eq!(told(over_http(&admin)).await, (200, json!({ "object": "hand_over", "count": 0 })));
    assert_eq!((read(&ann).await, read(&bob).await), (200, 404));
    let (_, list) = told(server.http.get(server.url("/v1/responses")).bearer_auth(&ann)).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    let more = json!({ "model": "parrot", "input": "and?", "previous_response_id": answer["id"] });
    assert_eq!(told(server.http.post(server.url("/v1/responses")).bearer_auth(&ann).json(&more)).await.0, 200);
    let prompt = server.url(&format!("/v1/prompts/{}", prompt["prompt_id"].as_str().unwrap()));
    assert_eq!(told(server.http.delete(&prompt).bearer_auth(&bob)).await.0, 403);
    let deleted = server.http.delete(&prompt).bearer_auth(&ann).send().await.unwrap().status().as_u16();
    assert!((200..300).contains(&deleted), "{deleted}");
    for (from, to, field) in [("", "a/b", "to"), ("a b", "ann", "from"), ("ann", "ann", "to")] {
        let request = HandOverRequest { from: from.into(), to: to.into() };
        assert_eq!(remote.hand_over(&by(&admin), request).await.unwrap_err().field(), Some(field));
    }
}

#[tokio::test]
async fn an_admin_neither_gives_nor_takes_over_the_role_of_an_operator() {
    let mut book = None;
    let server = serve(KEYS, |stack| book = Some(stack.identity.clone())).await;
    let issue = async |role: &str| {
        let who = Principal { id: "eve".into(), tenant: "acme".into(), roles: vec!["operator".into()] };
        let request = CreateApiKeyRequest { roles: vec![role.into()], ..CreateApiKeyRequest::default() };
        book.as_ref().unwrap().create_api_key(&Context::new(who), request).await.unwrap()
    };
    let (admin, operator) = (issue("admin").await, issue("operator").await);
    let post = |path: &str, by: &str, body: serde_json::Value| server.http.post(server.url(path)).bearer_auth(by).json(&body);
    let made = json!({ "roles": ["operator"] });
    assert_eq!(told(post("/v1/api-keys", &admin.secret, made.clone())).await.0, 403);
    assert_eq!(told(post("/v1/api-keys", &operator.secret, made)).await.0, 200);
    let rotate = format!("/v1/api-keys/{}/rotate", operator.key.unwrap().id);
    assert_eq!(told(post(&rotate, &admin.secret, json!({}))).await.0, 403);
    assert_eq!(told(post(&rotate, &operator.secret, json!({}))).await.0, 200);
}

/// Who speaks for others is believed whatever they say of them, so an admin of one tenant must not become one who does.
#[tokio::test]
async fn an_admin_does_not_give_the_role_of_those_who_speak_for_others() {
    let (server, admin) = start("server: { auth: { api_keys: true, delegates: [gateway] } }\n").await;
    for roles in [json!(["gateway"]), json!(["admin", "gateway"])] {
        let request = server.http.post(server.url("/v1/api-keys")).bearer_auth(&admin).json(&json!({ "roles": roles }));
        let (code, error) = told(request).await;
        assert_eq!((code, &error["error"]["param"]), (403, &json!("roles")), "{error}");
    }
    let request = server.http.post(server.url("/v1/api-keys")).bearer_auth(&admin).json(&json!({ "roles": ["reader"] }));
    assert_eq!(told(request).await.0, 200);
}

/// What operators do over gRPC they do over HTTP as well.
#[tokio::test]
async fn a_backup_and_an_erasure_are_asked_for_over_http() {
    let mut book = None;
    let server = serve(KEYS, |stack| book = Some(stack.identity.clone())).await;
    let who = Principal { id: "eve".into(), tenant: "acme".into(), roles: vec!["operator".into()] };
    let request = CreateApiKeyRequest { roles: vec!["operator".into()], ..CreateApiKeyRequest::default() };
    let operator = book.as_ref().unwrap().create_api_key(&Context::new(who.clone()), request).await.unwrap().secret;
    let request = CreateApiKeyRequest { principal: "ann".into(), ..CreateApiKeyRequest::default() };
    let ann = book.as_ref().unwrap().create_api_key(&Context::new(who), request).await.unwrap().secret;
    assert_eq!(told(server.http.get(server.url("/v1/backup")).bearer_auth(&ann)).await.0, 403);
    let archive = server.http.get(server.url("/v1/backup")).bearer_auth(&operator).send().await.unwrap();
    assert_eq!((archive.status().as_u16(), archive.headers()["content-type"].to_str().unwrap()), (200, "application/x-tar"));
    let archive = archive.bytes().await.unwrap();
    let names = ["manifest.json", "backup.json"].map(|name| archive.windows(name.len()).any(|window| window == name.as_bytes()));
    assert_eq!(names, [true, true]);
    let body = json!({ "tenant": "acme", "principal": "ann" });
    assert_eq!(told(server.http.post(server.url("/v1/erase")).bearer_auth(&ann).json(&body)).await.0, 403);
    let (code, erased) = told(server.http.post(server.url("/v1/erase")).bearer_auth(&operator).json(&body)).await;
    assert_eq!((code, &erased["deleted"]["api_keys"], &erased["deleted"]["prefixes"]), (200, &json!(1), &json!(1)), "{erased}");
    assert_eq!(told(server.http.get(server.url("/v1/models")).bearer_auth(&ann)).await.0, 401, "her key is gone");
    let (code, error) = told(server.http.post(server.url("/v1/erase")).bearer_auth(&operator).json(&json!({ "tenant": "" }))).await;
    assert_eq!((code, &error["error"]["param"]), (400, &json!("tenant")), "{error}");
}
