//! Who may what: every RPC and every route, asked by everybody, over a socket.
//!
//! The cases are made from the contract's descriptors, the OpenAPI document and the table of actions, so a new RPC or route is in
//! them without anybody's doing.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use llama_stack_core::{Context, Principal};
use llama_stack_proto::{
    DESCRIPTORS,
    v1::{AgentConfig, CreateAgentRequest, CreateApiKeyRequest, CreateSessionRequest, IssuedApiKey, RevokeApiKeyRequest},
};
use llama_stack_server::access::{Class, actions};
use prost::Message as _;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};
use serde_json::{Value, json};

use crate::client::{Server, serve};

/// In everything that belongs to the owner, and nowhere else.
const CANARY: &str = "canary-of-ann";
const UNAUTHENTICATED: u32 = 16;
const DENIED: u32 = 7;
const NOT_FOUND: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    NoKey,
    WrongKey,
    RevokedKey,
    OtherTenant,
    Colleague,
    Owner,
    OwnerByToken,
    Admin,
}

const EVERYBODY: [Who; 8] =
    [Who::NoKey, Who::WrongKey, Who::RevokedKey, Who::OtherTenant, Who::Colleague, Who::Owner, Who::OwnerByToken, Who::Admin];

impl Who {
    fn is_nobody(self) -> bool {
        matches!(self, Self::NoKey | Self::WrongKey | Self::RevokedKey)
    }

    fn may_know_of_it(self) -> bool {
        matches!(self, Self::Owner | Self::OwnerByToken | Self::Admin)
    }
}

/// A stack that tells callers apart, and everybody's credential.
struct House {
    server: Server,
    credentials: BTreeMap<usize, String>,
}

/// For the tokens of the test's issuer: a shared secret, which such an issuer may have too.
const SECRET: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

async fn house() -> House {
    let keys = format!("{{ keys: [{{ kty: oct, kid: one, k: {SECRET} }}] }}");
    let more = format!(
        "  memory:\n    - {{ id: banks, type: inline::sqlite }}\n  tools:\n    - {{ id: builtin, type: inline::builtin }}\n\
         store: {{ durability: process }}\n\
         server:\n  auth:\n    api_keys: true\n    attempts: {{ burst: 100000 }}\n    jwt: [{{ issuer: me, audience: [stack], algorithms: [HS256], claims: {{ tenant: org }}, keys: {keys} }}]\n"
    );
    let mut book = None;
    let server = serve(&more, |stack| book = Some(stack.identity.clone())).await;
    let book = book.unwrap();
    let mut credentials = BTreeMap::new();
    for who in EVERYBODY {
        let (tenant, principal, roles): (_, _, &[&str]) = match who {
            Who::OtherTenant => ("umbrella", "ann", &[]),
            Who::Colleague | Who::RevokedKey => ("acme", "bob", &[]),
            Who::Admin => ("acme", "eve", &["admin"]),
            _ => ("acme", "ann", &[]),
        };
        let cx = Context::new(Principal { id: principal.into(), tenant: tenant.into(), roles: Vec::new() });
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let issued = book.create_api_key(&cx, CreateApiKeyRequest { roles, ..Default::default() }).await.unwrap();
        let secret = match who {
            Who::NoKey => String::new(),
            Who::WrongKey => format!("{}x", &issued.secret[..issued.secret.len() - 1]),
            Who::RevokedKey => {
                book.revoke_api_key(&cx, RevokeApiKeyRequest { id: issued.key.unwrap().id }).await.unwrap();
                issued.secret
            }
            Who::OwnerByToken => {
                let claims = json!({ "iss": "me", "aud": "stack", "sub": "ann", "org": "acme", "exp": 4_000_000_000_u64 });
                let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
                jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(b"12345678901234567890123456789012").unwrap()).unwrap()
            }
            _ => issued.secret,
        };
        credentials.insert(who as usize, secret);
    }
    House { server, credentials }
}

impl House {
    fn request(&self, who: Who, method: &str, path: &str) -> reqwest::RequestBuilder {
        let request = self.server.http.request(method.parse().unwrap(), self.server.url(path));
        match self.credentials[&(who as usize)].as_str() {
            "" => request,
            secret => request.bearer_auth(secret),
        }
    }

    async fn json(&self, who: Who, path: &str, body: &Value) -> Value {
        let response = self.request(who, "POST", path).json(body).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// An RPC over gRPC-Web: its code, and all that was answered.
    async fn rpc(&self, who: Who, method: &str, message: &[u8]) -> (u32, Vec<u8>) {
        let (service, rpc) = method.split_once('.').unwrap();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let request = self.request(who, "POST", &format!("/llama_stack.v1.{service}/{rpc}"));
        let request = request.header("content-type", "application/grpc-web+proto").header("x-grpc-web", "1").body(frame);
        let response = request.send().await.unwrap();
        let told = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
        let body = response.bytes().await.unwrap().to_vec();
        let text = String::from_utf8_lossy(&body).into_owned();
        let trailer = text.rfind("grpc-status:").map(|at| text[at + 12..].trim_start().chars().take_while(char::is_ascii_digit).collect());
        let code = told.or(trailer).unwrap_or_else(|| panic!("{method}: no status in {text:?}"));
        (code.parse().unwrap(), body)
    }

    /// A new thing of Ann's, under its id in the contract.
    async fn thing(&self, kind: &str) -> String {
        let id = |body: Value| body["id"].as_str().unwrap().to_owned();
        let made = |(code, body): (u32, Vec<u8>)| {
            assert_eq!(code, 0, "{}", String::from_utf8_lossy(&body));
            let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
            body[5..5 + length].to_vec()
        };
        match kind {
            "agent" => {
                let config = AgentConfig { model: "parrot".into(), instructions: CANARY.into(), ..Default::default() };
                let request = CreateAgentRequest { config: Some(config) }.encode_to_vec();
                let agent = made(self.rpc(Who::Owner, "Agents.CreateAgent", &request).await);
                llama_stack_proto::v1::Agent::decode(&agent[..]).unwrap().id
            }
            "session" => {
                let request = CreateSessionRequest { name: CANARY.into(), ..Default::default() }.encode_to_vec();
                let session = made(self.rpc(Who::Owner, "Agents.CreateSession", &request).await);
                llama_stack_proto::v1::Session::decode(&session[..]).unwrap().id
            }
            "turn" => {
                let body = self.json(Who::Owner, "/v1/responses", &json!({ "model": "parrot", "input": CANARY })).await;
                id(body).replacen("resp_", "turn_", 1)
            }
            "prompt" => {
                let prompt = self.json(Who::Owner, "/v1/prompts", &json!({ "prompt": CANARY })).await;
                prompt["prompt_id"].as_str().unwrap().to_owned()
            }
            "bank" => {
                let body = json!({ "name": CANARY, "embedding_dimension": 2 });
                id(self.json(Who::Owner, "/v1/vector_stores", &body).await).replacen("vs_", "bank_", 1)
            }
            "file" => {
                let form = format!(
                    "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--b\r\n\
                     content-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n{CANARY}\r\n--b--\r\n"
                );
                let request = self.request(Who::Owner, "POST", "/v1/files").header("content-type", "multipart/form-data; boundary=b");
                id(request.body(form).send().await.unwrap().json().await.unwrap())
            }
            "api_key" => {
                let request = CreateApiKeyRequest { name: CANARY.into(), ..Default::default() }.encode_to_vec();
                let key = made(self.rpc(Who::Admin, "Identity.CreateApiKey", &request).await);
                IssuedApiKey::decode(&key[..]).unwrap().key.unwrap().id
            }
            other => panic!("no {other}"),
        }
    }
}

/// What a field names, in a request of this RPC.
fn kind(rpc: &str, field: &str) -> Option<&'static str> {
    match field {
        "session_id" => Some("session"),
        "turn_id" => Some("turn"),
        "bank_id" | "bank_ids" => Some("bank"),
        "id" => ["Agent", "Session", "Turn", "Prompt", "Bank", "File", "ApiKey"]
            .into_iter()
            .zip(["agent", "session", "turn", "prompt", "bank", "file", "api_key"])
            .find(|(word, _)| rpc.contains(word))
            .map(|(_, kind)| kind),
        _ => None,
    }
}

/// An RPC: its name, and the thing that its request names, with that field's number.
struct Rpc {
    name: String,
    thing: Option<(&'static str, i32)>,
}

fn rpcs() -> Vec<Rpc> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let files = || set.file.iter().filter(|file| file.package() == "llama_stack.v1");
    let messages: BTreeMap<&str, _> = files().flat_map(|file| &file.message_type).map(|message| (message.name(), message)).collect();
    let mut rpcs = Vec::new();
    for service in files().flat_map(|file| &file.service) {
        for method in &service.method {
            let request = messages[method.input_type().rsplit('.').next().unwrap()];
            // What stands for the whole comes first: a bank before what is in it.
            let named = |fields: &[&str]| {
                let field = request.field.iter().find(|field| fields.contains(&field.name()) && field.r#type() == Type::String)?;
                Some((kind(method.name(), field.name())?, field.number()))
            };
            let thing = named(&["session_id", "turn_id", "bank_id", "bank_ids"]).or_else(|| named(&["id"]));
            rpcs.push(Rpc { name: format!("{}.{}", service.name(), method.name()), thing });
        }
    }
    rpcs
}

fn message(thing: Option<(i32, &str)>) -> Vec<u8> {
    let Some((number, id)) = thing else { return Vec::new() };
    let mut message = vec![u8::try_from(number << 3 | 2).unwrap(), u8::try_from(id.len()).unwrap()];
    message.extend(id.as_bytes());
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_answers_everybody_as_they_may() {
    let house = house().await;
    let classes: BTreeMap<String, Class> = actions().map(|action| (action.name(), action.class)).collect();
    let (mut cases, mut wrong) = (0, Vec::new());
    for Rpc { name, thing } in rpcs() {
        let class = classes[&name];
        for who in EVERYBODY {
            // Whoever may destroy it gets one of their own.
            let id = match thing {
                Some((kind, _)) => Some(house.thing(kind).await),
                None => None,
            };
            let message = message(thing.zip(id.as_deref()).map(|((_, number), id)| (number, id)));
            let (code, body) = house.rpc(who, &name, &message).await;
            let text = String::from_utf8_lossy(&body);
            let (there, own) = (thing.is_some(), matches!(class, Class::Own | Class::Private));
            let of_some = matches!(class, Class::Admin | Class::Operate);
            let right = match who {
                _ if who.is_nobody() => code == UNAUTHENTICATED,
                Who::OtherTenant if of_some => code == DENIED,
                Who::OtherTenant if there => code != 0 && code != UNAUTHENTICATED && (!own || code == NOT_FOUND),
                Who::Colleague if of_some => code == DENIED,
                Who::Colleague if class == Class::Private && there => code == NOT_FOUND,
                Who::Colleague if class == Class::Own => code == DENIED,
                Who::Owner | Who::OwnerByToken if of_some => code == DENIED,
                // What concerns all tenants is nothing for the admin of one.
                Who::Admin if class == Class::Operate => code == DENIED,
                _ if who.may_know_of_it() && there => ![UNAUTHENTICATED, DENIED].contains(&code) && (!own || code != NOT_FOUND),
                _ => ![UNAUTHENTICATED, DENIED].contains(&code),
            };
            // An error may repeat what was asked for; the canary was not.
            let private = who == Who::OtherTenant
                || who.is_nobody()
                || who == Who::Colleague && (class == Class::Private || name.starts_with("Memory"));
            let told = private && text.contains(CANARY);
            // UNKNOWN and INTERNAL are nobody's.
            if !right || told || code == 2 || code == 13 {
                wrong.push(format!("{name} by {who:?}: code {code}, told {told}: {text:?}"));
            }
            cases += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 560, "{cases}");
}

/// The kind of thing that a route's first parameter names, and how its id is written there.
fn of_route(path: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let kinds = [
        ("/v1/responses/{", ("turn", "turn_", "resp_")),
        ("/v1/conversations/{", ("session", "session_", "conv_")),
        ("/v1/agents/{", ("agent", "", "")),
        ("/v1/prompts/{", ("prompt", "", "")),
        ("/v1/vector_stores/{", ("bank", "bank_", "vs_")),
        ("/v1/files/{", ("file", "", "")),
        ("/v1/api-keys/{", ("api_key", "", "")),
    ];
    kinds.into_iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, kind)| kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_everybody_as_they_may() {
    let house = house().await;
    let document: Value = house.server.get("/openapi.json").await.json().await.unwrap();
    let public = ["/livez", "/readyz", "/v1/health", "/openapi.json"];
    let (mut cases, mut wrong) = (0, Vec::new());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let operators = path == "/v1/backup";
            let admins = operators || ["/metrics", "/v1/audit", "/v1/erase"].contains(&path.as_str()) || path.starts_with("/v1/api-keys");
            let private = path.starts_with("/v1/responses/{") || path.starts_with("/v1/conversations/{");
            for who in EVERYBODY {
                let mut asked = path.clone();
                let thing = of_route(path);
                if let Some((kind, from, to)) = thing {
                    let id = house.thing(kind).await;
                    let id = if from.is_empty() { id } else { id.replacen(from, to, 1) };
                    let (open, close) = (asked.find('{').unwrap(), asked.find('}').unwrap());
                    asked.replace_range(open..=close, &id);
                }
                while let (Some(open), Some(close)) = (asked.find('{'), asked.find('}')) {
                    asked.replace_range(open..=close, "none");
                }
                let request = house.request(who, &method, &asked);
                let request = if method == "POST" { request.json(&json!({})) } else { request };
                let response = request.send().await.unwrap();
                let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
                let open = public.contains(&path.as_str());
                let right = match who {
                    _ if open => status == 200,
                    _ if who.is_nobody() => status == 401 && body.contains("authentication_error"),
                    Who::Admin if operators => status == 403,
                    Who::Admin => status != 401 && status != 403,
                    // A body that is wrong may be told first.
                    _ if admins && method != "POST" => status == 403,
                    _ if admins => status == 403 || status == 400,
                    Who::OtherTenant if thing.is_some() => status == 404 || status == 400 && method == "POST",
                    Who::Colleague if private => status == 404 || status == 400 && method == "POST",
                    _ => status != 401,
                };
                let hidden = who == Who::OtherTenant || who == Who::Colleague && (private || path.starts_with("/v1/vector_stores"));
                if !right || hidden && body.contains(CANARY) || status == 500 {
                    wrong.push(format!("{method} {asked} by {who:?}: {status} {body}"));
                }
                cases += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 440, "{cases}");
}
