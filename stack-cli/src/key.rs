//! `llama-stack key`: API keys, of a running stack or straight in its store.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};
use llama_stack_core::{
    Context, Identity, Principal, Result,
    context::{DEFAULT_TENANT, named},
    grpc::Remote,
    ids,
};
use llama_stack_proto::v1::{
    ApiKey, CreateApiKeyRequest, HandOverRequest, IssuedApiKey, ListApiKeysRequest, Quota, RevokeApiKeyRequest, RotateApiKeyRequest,
    identity_client::IdentityClient,
};
use llama_stack_server::Options;
use serde::Serialize;
use serde_json::Value;
use tonic::transport::Channel;

use crate::{args::ServerArgs, caller::caller, distribution::Source, home::home, named::pair, output::Output, reach, table::table};

#[derive(Subcommand)]
pub(crate) enum KeyVerb {
    /// Make a key and print its secret, which is told this once
    Create {
        /// For people
        #[arg(long, default_value = "")]
        name: String,
        /// Whom the key speaks for; without it whoever makes it
        #[arg(long, default_value = "")]
        principal: String,
        /// A role, for example admin; may be given several times
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// For policies, NAME=VALUE; may be given several times
        #[arg(long = "attribute", value_name = "NAME=VALUE")]
        attributes: Vec<String>,
        /// Until when it is good; without it for ever
        #[arg(long, value_name = "DAYS")]
        days: Option<u64>,
        #[command(flatten)]
        quota: QuotaArgs,
        #[command(flatten)]
        place: Place,
    },
    /// List the tenant's keys, newest first
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Give a key another secret
    Rotate {
        id: String,
        /// How long the old secret is good beside the new one
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        grace: u64,
        #[command(flatten)]
        place: Place,
    },
    /// End a key at once
    Revoke {
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Make what is one principal's another's: agents, sessions, turns, prompts, files, banks and batches
    HandOver {
        /// Whose it is; without it what was made before the stack asked who calls
        #[arg(long, default_value = "")]
        from: String,
        /// Whose it will be
        #[arg(long)]
        to: String,
        #[command(flatten)]
        place: Place,
    },
}

/// How much may be asked with a key; without any of it what the manifest says of every key.
#[derive(Args)]
pub(crate) struct QuotaArgs {
    /// Requests a minute
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<u32>,
    /// Tokens that models read and write, a minute
    #[arg(long, value_name = "COUNT")]
    tokens_per_minute: Option<u32>,
    /// Requests under way
    #[arg(long, value_name = "COUNT")]
    concurrent_requests: Option<u32>,
    /// Turns that run
    #[arg(long, value_name = "COUNT")]
    concurrent_turns: Option<u32>,
    /// Tokens in a day of UTC
    #[arg(long, value_name = "COUNT")]
    tokens_per_day: Option<u64>,
    /// What they cost in a day, by the prices of the manifest
    #[arg(long, value_name = "AMOUNT")]
    cost_per_day: Option<f64>,
}

impl QuotaArgs {
    fn quota(self) -> Option<Quota> {
        let Self { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day } = self;
        let quota = Quota { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day };
        Some(quota).filter(|quota| *quota != Quota::default())
    }
}

/// Where the keys are.
#[derive(Args)]
pub(crate) struct Place {
    #[command(flatten)]
    server: ServerArgs,
    /// Work in the store of this distribution or manifest, without a server: for the first key
    #[arg(long, value_name = "DISTRIBUTION")]
    offline: Option<String>,
    /// Whose keys, with --offline
    #[arg(long, default_value = DEFAULT_TENANT, requires = "offline")]
    tenant: String,
    /// Where models, state and logs live, with --offline
    #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

/// The service, as whom, and what to say where it does not answer.
struct Keys {
    service: Arc<dyn Identity>,
    cx: Context,
    server: String,
}

impl Keys {
    async fn of(place: Place) -> Result<Self> {
        let server = place.server.server;
        let Some(distribution) = place.offline else {
            let service = Remote::<IdentityClient<Channel>>::new(reach::connect(&server)?);
            return Ok(Self { service: Arc::new(service), cx: caller(), server });
        };
        let manifest = Source::find(&distribution)?.manifest()?;
        let options = Options { home: home(place.home)?, on_progress: Arc::new(|_| {}) };
        let service = llama_stack_server::offline_keys(&manifest, &options).await?;
        // Whoever reads and writes the store is who runs the stack.
        let tenant = named("tenant", &place.tenant)?;
        let operator = Principal { id: "operator".into(), tenant, roles: vec!["admin".into(), "operator".into()] };
        Ok(Self { service, cx: Context::new(operator), server })
    }

    fn told<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| reach::explained(error, &self.server))
    }
}

/// A key, for people and programs.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    tenant: String,
    principal: String,
    roles: Vec<String>,
    state: &'static str,
    /// Those of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    quota: BTreeMap<&'static str, Value>,
    /// Only when it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize)]
struct HandedOver {
    to: String,
    count: u64,
}

fn row(key: ApiKey, secret: Option<String>) -> Row {
    let expired = key.expires.as_ref().is_some_and(|end| end.seconds <= ids::now().seconds);
    let state = match (key.revoked.is_some(), expired) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "good",
    };
    let quota = limits(&key.quota.unwrap_or_default());
    Row { id: key.id, name: key.name, tenant: key.tenant, principal: key.principal, roles: key.roles, state, quota, secret }
}

fn limits(quota: &Quota) -> BTreeMap<&'static str, Value> {
    let all = [
        ("requests_per_minute", quota.requests_per_minute.map(Value::from)),
        ("tokens_per_minute", quota.tokens_per_minute.map(Value::from)),
        ("concurrent_requests", quota.concurrent_requests.map(Value::from)),
        ("concurrent_turns", quota.concurrent_turns.map(Value::from)),
        ("tokens_per_day", quota.tokens_per_day.map(Value::from)),
        ("cost_per_day", quota.cost_per_day.map(Value::from)),
    ];
    all.into_iter().filter_map(|(name, limit)| Some((name, limit?))).collect()
}

fn issued(issued: IssuedApiKey, output: &Output) -> Result<()> {
    let row = row(issued.key.unwrap_or_default(), Some(issued.secret));
    output.note(&format!("{} is for {} of tenant {}; its secret is not told again", row.id, row.principal, row.tenant));
    output.result(&row, |row| format!("{}\n", row.secret.as_deref().unwrap_or_default()))
}

pub(crate) async fn run(verb: KeyVerb, output: &Output) -> Result<()> {
    match verb {
        KeyVerb::Create { name, principal, roles, attributes, days, quota, place } => {
            let attributes = attributes.iter().map(|text| pair("attribute", text)).collect::<Result<_>>()?;
            let expires_after_seconds = days.unwrap_or_default().saturating_mul(24 * 60 * 60);
            let quota = quota.quota();
            let request = CreateApiKeyRequest { name, principal, roles, attributes, expires_after_seconds, quota };
            let keys = Keys::of(place).await?;
            issued(keys.told(keys.service.create_api_key(&keys.cx, request).await)?, output)
        }
        KeyVerb::List { place } => list(Keys::of(place).await?, output).await,
        KeyVerb::Rotate { id, grace, place } => {
            let keys = Keys::of(place).await?;
            let request = RotateApiKeyRequest { id, grace_seconds: grace };
            issued(keys.told(keys.service.rotate_api_key(&keys.cx, request).await)?, output)
        }
        KeyVerb::Revoke { id, place } => {
            let keys = Keys::of(place).await?;
            let key = keys.told(keys.service.revoke_api_key(&keys.cx, RevokeApiKeyRequest { id }).await)?;
            output.result(&row(key, None), |row| format!("{} is revoked\n", row.id))
        }
        KeyVerb::HandOver { from, to, place } => {
            let keys = Keys::of(place).await?;
            let count = keys.told(keys.service.hand_over(&keys.cx, HandOverRequest { from, to: to.clone() }).await)?.count;
            output.result(&HandedOver { to, count }, |done| format!("{} things are {}'s now\n", done.count, done.to))
        }
    }
}

async fn list(keys: Keys, output: &Output) -> Result<()> {
    let (mut rows, mut request) = (Vec::new(), ListApiKeysRequest::default());
    loop {
        let page = keys.told(keys.service.list_api_keys(&keys.cx, request.clone()).await)?;
        rows.extend(page.keys.into_iter().map(|key| row(key, None)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    output.result(&rows, |rows| {
        let cells = rows.iter().map(|row| {
            let [id, name, principal] = [&row.id, &row.name, &row.principal].map(Clone::clone);
            [id, row.state.to_owned(), principal, row.roles.join(","), name]
        });
        table(["ID", "STATE", "PRINCIPAL", "ROLES", "NAME"], cells)
    })
}
