//! `/v1/api-keys`, `/v1/whoami` and `/v1/hand-over`.

use std::collections::HashMap;

use axum::{
    extract::State,
    routing::{get, post},
};
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::{
    self, CreateApiKeyRequest, GetApiKeyRequest, GetCallerRequest, HandOverRequest, ListApiKeysRequest, RevokeApiKeyRequest,
    RotateApiKeyRequest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

pub(crate) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/api-keys"), route!("/v1/api-keys/{id}"));
    api.post(
        all,
        post(create).get(list),
        Operation::new("Makes an API key of the caller's tenant; its secret is in this answer only.")
            .takes::<CreateKey>()
            .returns::<Issued>(),
    );
    api.describe(all, "get", Operation::new("The API keys of the caller's tenant, newest first.").returns::<KeyList>());
    api.get(one, get(retrieve).delete(revoke), Operation::new("An API key, without its secret.").returns::<Key>());
    api.describe(one, "delete", Operation::new("Revokes an API key at once; it stays in the list.").returns::<Key>());
    api.post(
        route!("/v1/api-keys/{id}/rotate"),
        post(rotate),
        Operation::new("Gives an API key another secret.").takes::<RotateKey>().returns::<Issued>(),
    );
    api.post(
        route!("/v1/hand-over"),
        post(hand_over),
        Operation::new("Gives what is one principal's, or nobody's, to another.").takes::<HandOver>().returns::<HandedOver>(),
    );
    api.get(route!("/v1/whoami"), get(whoami), Operation::new("Who the caller is taken for.").returns::<Who>());
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CreateKey {
    /// For people.
    #[serde(default)]
    name: String,
    /// Whom the key speaks for. Default: the caller.
    #[serde(default)]
    principal: String,
    #[serde(default)]
    roles: Vec<String>,
    /// For policies.
    #[serde(default)]
    attributes: HashMap<String, String>,
    /// Default: never.
    #[serde(default)]
    expires_after_seconds: u64,
    /// Default: what the manifest says of every key.
    quota: Option<KeyQuota>,
}

/// How much may be asked with a key, beside what its principal and its tenant may. What is left out is not limited.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyQuota {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    /// Read and written, of all models.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u32>,
    /// Requests whose answers are not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent_requests: Option<u32>,
    /// Turns that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent_turns: Option<u32>,
    /// In a day of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_day: Option<u64>,
    /// The same, by the prices of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_per_day: Option<f64>,
}

impl From<KeyQuota> for v1::Quota {
    fn from(quota: KeyQuota) -> Self {
        let KeyQuota { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day } =
            quota;
        Self { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day }
    }
}

impl From<v1::Quota> for KeyQuota {
    fn from(quota: v1::Quota) -> Self {
        let v1::Quota { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day } =
            quota;
        Self { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct RotateKey {
    /// How long the old secret is good beside the new one. Default: not at all.
    #[serde(default)]
    grace_seconds: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Key {
    object: &'static str,
    id: String,
    name: String,
    tenant: String,
    principal: String,
    roles: Vec<String>,
    attributes: HashMap<String, String>,
    created_by: String,
    created_at: i64,
    expires_at: Option<i64>,
    rotated_at: Option<i64>,
    revoked_at: Option<i64>,
    quota: Option<KeyQuota>,
}

impl From<v1::ApiKey> for Key {
    fn from(key: v1::ApiKey) -> Self {
        let moment = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
        Self {
            object: "api_key",
            created_at: ids::unix_seconds(key.created.as_ref()),
            expires_at: moment(key.expires),
            rotated_at: moment(key.rotated),
            revoked_at: moment(key.revoked),
            quota: key.quota.map(KeyQuota::from),
            id: key.id,
            name: key.name,
            tenant: key.tenant,
            principal: key.principal,
            roles: key.roles,
            attributes: key.attributes,
            created_by: key.created_by,
        }
    }
}

/// A key with its secret.
#[derive(Debug, Serialize, JsonSchema)]
struct Issued {
    #[serde(flatten)]
    key: Key,
    /// What a client sends as `authorization: Bearer …`.
    secret: String,
}

impl From<v1::IssuedApiKey> for Issued {
    fn from(issued: v1::IssuedApiKey) -> Self {
        Self { key: issued.key.unwrap_or_default().into(), secret: issued.secret }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    #[serde(default)]
    limit: u32,
    /// `next_page_token` of the page before.
    #[serde(default)]
    page_token: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct KeyList {
    object: &'static str,
    data: Vec<Key>,
    has_more: bool,
    /// Empty on the last page.
    next_page_token: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Who {
    principal: String,
    tenant: String,
    roles: Vec<String>,
    attributes: HashMap<String, String>,
    /// An API key's id, or `jwt`, `introspection`, `certificate`; empty where none was asked for.
    credential: String,
}

async fn create(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<CreateKey>) -> Result<Json<Issued>, ApiError> {
    let CreateKey { name, principal, roles, attributes, expires_after_seconds, quota } = body;
    let quota = quota.map(v1::Quota::from);
    let request = CreateApiKeyRequest { name, principal, roles, attributes, expires_after_seconds, quota };
    Ok(Json(state.identity.create_api_key(&cx, request).await?.into()))
}

async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<ListQuery>) -> Result<Json<KeyList>, ApiError> {
    let request = ListApiKeysRequest { page_size: query.limit, page_token: query.page_token };
    let page = state.identity.list_api_keys(&cx, request).await?;
    let (has_more, data) = (!page.next_page_token.is_empty(), page.keys.into_iter().map(Key::from).collect());
    Ok(Json(KeyList { object: "list", data, has_more, next_page_token: page.next_page_token }))
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Key>, ApiError> {
    Ok(Json(state.identity.get_api_key(&cx, GetApiKeyRequest { id }).await?.into()))
}

async fn revoke(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Key>, ApiError> {
    Ok(Json(state.identity.revoke_api_key(&cx, RevokeApiKeyRequest { id }).await?.into()))
}

async fn rotate(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<RotateKey>,
) -> Result<Json<Issued>, ApiError> {
    let request = RotateApiKeyRequest { id, grace_seconds: body.grace_seconds };
    Ok(Json(state.identity.rotate_api_key(&cx, request).await?.into()))
}

async fn whoami(State(state): State<AppState>, Caller(cx): Caller) -> Result<Json<Who>, ApiError> {
    let v1::Caller { principal, tenant, roles, attributes, credential } = state.identity.get_caller(&cx, GetCallerRequest {}).await?;
    Ok(Json(Who { principal, tenant, roles, attributes, credential }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HandOver {
    /// Default: what was made before callers were told apart.
    #[serde(default)]
    from: String,
    to: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HandedOver {
    object: &'static str,
    /// How many things there were.
    count: u64,
}

async fn hand_over(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<HandOver>) -> Result<Json<HandedOver>, ApiError> {
    let request = HandOverRequest { from: body.from, to: body.to };
    Ok(Json(HandedOver { object: "hand_over", count: state.identity.hand_over(&cx, request).await?.count }))
}
