//! Signed tokens, their issuers' keys, and tokens that an authorisation server is asked about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use llama_stack_core::{Authenticated, Code, Error, Manifest, Principal, manifest::Durability};
use llama_stack_identity::Authenticator;
use llama_stack_store::Store;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// An issuer's pair of keys.
struct Pair {
    id: &'static str,
    key: EncodingKey,
}

impl Pair {
    fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self { id, key: EncodingKey::from_ec_der(pair.as_ref()) }
    }

    fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = self.id.into();
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key).unwrap()
    }
}

fn claims() -> Value {
    json!({ "iss": "https://issuer", "aud": "stack", "sub": "ann", "org": "acme", "roles": ["admin"], "exp": get_current_timestamp() + 60 })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

async fn authenticator(auth: &str) -> Authenticator {
    // As the server does at its start.
    let text = format!("version: 1\nname: t\nserver:\n  auth: {auth}\n");
    let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
    Authenticator::from_manifest(&Manifest::parse(&text, "m.yaml").unwrap(), &store).unwrap().unwrap()
}

async fn of_keys(keys: &[&Pair]) -> Authenticator {
    let set = json!({ "keys": keys.iter().map(|pair| pair.public()).collect::<Vec<_>>() });
    authenticator(&format!("{{ jwt: [{{ issuer: \"https://issuer\", audience: [stack], claims: {{ tenant: org }}, keys: {set} }}] }}"))
        .await
}

async fn show(authenticator: &Authenticator, token: &str) -> Result<Authenticated, Error> {
    authenticator.authenticate(Some(&format!("Bearer {token}")), None).await.map(|who| who.expect("nobody"))
}

async fn refusal(authenticator: &Authenticator, token: &str) -> String {
    let error = show(authenticator, token).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    assert!(!error.message().contains(token), "{error}");
    error.message().to_owned()
}

#[tokio::test]
async fn a_token_of_the_issuer_says_who_calls() {
    let pair = Pair::new("one");
    let who = show(&of_keys(&[&pair]).await, &pair.sign(&claims())).await.unwrap();
    assert_eq!(who.principal, Principal { id: "ann".into(), tenant: "acme".into(), roles: vec!["admin".into()] });
    assert_eq!(who.credential, "jwt");
}

#[tokio::test]
async fn a_token_that_is_not_right_is_refused_with_what_is_wrong() {
    let (pair, other) = (Pair::new("one"), Pair::new("one"));
    let authenticator = of_keys(&[&pair]).await;
    let now = get_current_timestamp();
    assert!(refusal(&authenticator, &other.sign(&claims())).await.contains("signature is wrong"));
    assert!(refusal(&authenticator, &pair.sign(&with("aud", "another"))).await.contains("another audience"));
    assert!(refusal(&authenticator, &pair.sign(&with("exp", now - 61))).await.contains("expired"));
    assert!(refusal(&authenticator, &pair.sign(&with("nbf", now + 120))).await.contains("not valid yet"));
    assert!(refusal(&authenticator, &pair.sign(&with("iss", "https://other"))).await.contains("not of an issuer"));
    assert!(refusal(&authenticator, &pair.sign(&with("org", Value::Null))).await.contains("\"org\""));
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    assert!(refusal(&authenticator, &pair.sign(&endless)).await.contains("lacks exp"));
    // A clock that is a little off is no lie.
    assert!(show(&authenticator, &pair.sign(&with("exp", now - 30))).await.is_ok());
}

/// An issuer that is written a little differently is a common slip, and is to be told as one.
#[tokio::test]
async fn a_token_of_another_issuer_is_not_told_as_a_wrong_key_where_keys_count_too() {
    let pair = Pair::new("one");
    let set = json!({ "keys": [pair.public()] });
    let auth = format!("{{ api_keys: true, jwt: [{{ issuer: \"https://issuer\", audience: [stack], keys: {set} }}] }}");
    let authenticator = authenticator(&auth).await;
    assert!(show(&authenticator, &pair.sign(&claims())).await.is_ok());
    assert!(refusal(&authenticator, &pair.sign(&with("iss", "https://issuer/"))).await.contains("not of an issuer"));
    assert!(refusal(&authenticator, "no-key-and-no-token").await.contains("API key"));
}

/// Whose signature it is must not be a matter of trying.
#[tokio::test]
async fn a_token_that_names_no_key_counts_where_there_is_one_alone() {
    let (one, other) = (Pair::new("one"), Pair::new("other"));
    let unnamed = encode(&Header::new(Algorithm::ES256), &claims(), &one.key).unwrap();
    assert!(show(&of_keys(&[&one]).await, &unnamed).await.is_ok());
    assert!(refusal(&of_keys(&[&other]).await, &unnamed).await.contains("signature is wrong"));
    assert!(refusal(&of_keys(&[&one, &other]).await, &unnamed).await.contains("does not publish"));
}

/// A public key is known to all; as the secret of an HMAC it would let anybody in.
#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let pair = Pair::new("one");
    let authenticator = of_keys(&[&pair]).await;
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    for secret in [pair.public().to_string(), pair.public()["x"].as_str().unwrap().to_owned()] {
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap();
        assert!(refusal(&authenticator, &token).await.contains("HS256"));
    }
    let unsigned = pair.sign(&claims());
    let payload = unsigned.split('.').nth(1).unwrap();
    refusal(&authenticator, &format!("eyJhbGciOiJub25lIn0.{payload}.")).await;
    for crooked in ["a.b.c", "..", "x", &"a.".repeat(3)] {
        refusal(&authenticator, crooked).await;
    }
}

#[tokio::test]
async fn who_shows_nothing_is_asked_for_a_credential() {
    let authenticator = of_keys(&[&Pair::new("one")]).await;
    let error = authenticator.authenticate(None, None).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some("missing_credentials")));
    let error = authenticator.authenticate(Some("Basic YTpi"), None).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some("invalid_authorization")));
    let anonymous = self::authenticator("{ anonymous: true, api_keys: true }").await;
    assert_eq!(anonymous.authenticate(None, None).await.unwrap().unwrap(), Authenticated::default());
    assert_eq!(show(&anonymous, "lsk_wrong").await.unwrap_err().code(), Code::Unauthenticated);
}

/// An issuer's or authorisation server's answers, and how often it was asked.
#[derive(Clone, Default)]
struct Answers {
    body: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
    /// What the latest one who asked showed of itself.
    shown: Arc<Mutex<Option<String>>>,
}

impl Answers {
    fn say(&self, body: Value) {
        *self.body.lock().unwrap() = Some(body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer(&self) -> Result<axum::Json<Value>, StatusCode> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.body.lock().unwrap().clone().map(axum::Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn answer_to(&self, headers: &HeaderMap) -> Result<axum::Json<Value>, StatusCode> {
        *self.shown.lock().unwrap() = headers.get("authorization").map(|shown| shown.to_str().unwrap().to_owned());
        self.answer()
    }

    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (keys, tokens) = (self.clone(), self.clone());
        let router = Router::new()
            .route("/keys", get(move || async move { keys.answer() }))
            .route("/introspect", post(move |headers: HeaderMap| async move { tokens.answer_to(&headers) }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

#[tokio::test]
async fn new_keys_of_an_issuer_are_fetched_and_made_up_ones_are_no_flood() {
    let (old, new, issuer) = (Pair::new("old"), Pair::new("new"), Answers::default());
    let address = issuer.serve().await;
    let authenticator =
        authenticator(&format!("{{ jwt: [{{ issuer: \"https://issuer\", audience: [stack], jwks_url: \"http://{address}/keys\" }}] }}"))
            .await;
    issuer.say(json!({ "keys": [old.public(), { "kty": "unheard-of", "kid": "x" }] }));
    for _ in 0..3 {
        show(&authenticator, &old.sign(&claims())).await.unwrap();
    }
    assert_eq!(issuer.asked(), 1, "keys are kept");
    // The issuer rotates: both, then the new one only.
    issuer.say(json!({ "keys": [old.public(), new.public()] }));
    show(&authenticator, &new.sign(&claims())).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    let stranger = Pair::new("made-up");
    let began = Instant::now();
    for _ in 0..20 {
        assert!(refusal(&authenticator, &stranger.sign(&claims())).await.contains("does not publish"));
    }
    // It is looked again after five seconds.
    let again = began.elapsed().as_secs() as usize / 5;
    assert!((3..=3 + again).contains(&issuer.asked()), "one look for all of them, and not {}", issuer.asked() - 2);
    show(&authenticator, &new.sign(&claims())).await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_not_the_callers_fault() {
    let (pair, issuer) = (Pair::new("one"), Answers::default());
    let address = issuer.serve().await;
    let authenticator =
        authenticator(&format!("{{ jwt: [{{ issuer: \"https://issuer\", audience: [stack], jwks_url: \"http://{address}/keys\" }}] }}"))
            .await;
    let error = show(&authenticator, &pair.sign(&claims())).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("identity_unavailable")));
}

#[tokio::test]
async fn an_authorisation_server_says_what_an_opaque_token_is() {
    let server = Answers::default();
    let address = server.serve().await;
    let authenticator = authenticator(&format!(
        "{{ introspection: {{ url: \"http://{address}/introspect\", client_id: a, client_secret: b, claims: {{ roles: scope }} }} }}"
    ))
    .await;
    server.say(json!({ "active": true, "sub": "ann", "scope": "read admin", "exp": get_current_timestamp() + 60 }));
    for _ in 0..3 {
        let who = show(&authenticator, "opaque").await.unwrap();
        assert_eq!((who.principal.id.as_str(), who.principal.roles.len()), ("ann", 2));
    }
    assert_eq!(server.asked(), 1, "an answer is kept");
    server.say(json!({ "active": false, "sub": "ann" }));
    assert!(refusal(&authenticator, "another").await.contains("not active"));
    server.say(json!({ "active": true, "sub": "ann", "exp": get_current_timestamp() - 5 }));
    assert!(refusal(&authenticator, "a-third").await.contains("expired"));
    for (token, end) in [("a-fourth", json!(i64::MIN)), ("a-fifth", json!(get_current_timestamp() as f64 - 0.5))] {
        server.say(json!({ "active": true, "sub": "ann", "exp": end }));
        assert!(refusal(&authenticator, token).await.contains("expired"), "{end}");
    }
}

/// A colon in either would part them elsewhere, and a percent sign would be read as what it begins (RFC 6749, 2.3.1).
#[tokio::test]
async fn the_authorisation_server_is_shown_id_and_secret_as_a_form_writes_them() {
    let server = Answers::default();
    let address = server.serve().await;
    let authenticator = authenticator(&format!(
        "{{ introspection: {{ url: \"http://{address}/introspect\", client_id: \"https://us:8/\", client_secret: \"a%b:c +é\" }} }}"
    ))
    .await;
    server.say(json!({ "active": true, "sub": "ann" }));
    show(&authenticator, "opaque").await.unwrap();
    // printf %s 'https%3A%2F%2Fus%3A8%2F:a%25b%3Ac%20%2B%C3%A9' | base64
    let expected = "Basic aHR0cHMlM0ElMkYlMkZ1cyUzQTglMkY6YSUyNWIlM0FjJTIwJTJCJUMzJUE5";
    assert_eq!(server.shown.lock().unwrap().as_deref(), Some(expected));
}

#[tokio::test]
async fn an_active_token_for_another_service_does_not_count_where_an_audience_is_named() {
    let server = Answers::default();
    let address = server.serve().await;
    let authenticator = authenticator(&format!(
        "{{ introspection: {{ url: \"http://{address}/introspect\", client_id: a, client_secret: b, audience: [stack] }} }}"
    ))
    .await;
    for (token, audience) in [("one-1", json!("another")), ("two-2", json!(["another"])), ("three-3", Value::Null)] {
        server.say(json!({ "active": true, "sub": "ann", "aud": audience }));
        assert!(refusal(&authenticator, token).await.contains("another audience"));
    }
    for (token, audience) in [("four-4", json!("stack")), ("five-5", json!(["another", "stack"]))] {
        server.say(json!({ "active": true, "sub": "ann", "aud": audience }));
        assert!(show(&authenticator, token).await.is_ok());
    }
}

/// An issuer of which the manifest says no more than its URL.
#[tokio::test]
async fn an_issuer_says_where_its_keys_are_and_speaks_for_itself_alone() {
    let (pair, keys, configuration) = (Pair::new("one"), Answers::default(), Answers::default());
    let at = keys.serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}/realm", listener.local_addr().unwrap());
    let said = configuration.clone();
    let router = Router::new().route("/realm/.well-known/openid-configuration", get(move || async move { said.answer() }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    keys.say(json!({ "keys": [pair.public()] }));
    let token = pair.sign(&with("iss", issuer.as_str()));
    let start = || authenticator_of(&issuer);

    for wrong in [json!({ "issuer": "http://other", "jwks_uri": format!("http://{at}/keys") }), json!({ "issuer": issuer })] {
        configuration.say(wrong);
        let error = show(&start().await, &token).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("identity_unavailable")));
        assert_eq!(keys.asked(), 0);
    }
    configuration.say(json!({ "issuer": issuer, "jwks_uri": format!("http://{at}/keys") }));
    let authenticator = start().await;
    for _ in 0..3 {
        assert_eq!(show(&authenticator, &token).await.unwrap().principal.id, "ann");
    }
    assert_eq!(keys.asked(), 1, "keys are kept");
}

async fn authenticator_of(issuer: &str) -> Authenticator {
    authenticator(&format!("{{ jwt: [{{ issuer: \"{issuer}\", audience: [stack] }}] }}")).await
}
