//! `llama-stack provider`: the providers of a running stack, and those that are yet to be one's.

mod check;
mod new;

use llama_stack_core::{Error, Memory, Result, Safety, Stack, grpc::Remote};
use llama_stack_proto::v1::{
    ListBanksRequest, ListProvidersRequest, ListShieldsRequest, Provider, ProviderStatus, inference_client::InferenceClient,
    memory_client::MemoryClient, safety_client::SafetyClient, stack_client::StackClient, tools_client::ToolsClient,
};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::{Api, ProviderVerb},
    model,
    output::{Output, Tone},
    reach, registry,
    table::table,
    tool,
};

pub(crate) async fn run(verb: ProviderVerb, output: &Output) -> Result<()> {
    match verb {
        ProviderVerb::List { api, server } => list(api, &server.server, output).await,
        ProviderVerb::Show { provider, server } => show(&provider, &server.server, output).await,
        ProviderVerb::Types => types(output),
        ProviderVerb::Check(args) => check::run(args, output).await,
        ProviderVerb::New(args) => new::run(args, output),
    }
}

#[derive(Serialize)]
struct Row {
    api: String,
    id: String,
    r#type: String,
    /// It answers.
    ok: bool,
    /// Why not.
    message: String,
}

impl From<Provider> for Row {
    fn from(provider: Provider) -> Self {
        let ok = provider.status() != ProviderStatus::Failing;
        Self { api: provider.api, id: provider.id, r#type: provider.r#type, ok, message: provider.status_message }
    }
}

async fn rows(api: Option<Api>, server: &str) -> Result<Vec<Row>> {
    let request = ListProvidersRequest { api: api.map(|api| api.name().to_owned()).unwrap_or_default() };
    let stack = Remote::<StackClient<Channel>>::new(reach::connect(server)?);
    let listed = stack.list_providers(&crate::caller::caller(), request).await.map_err(|error| reach::explained(error, server))?;
    Ok(listed.providers.into_iter().map(Row::from).collect())
}

async fn list(api: Option<Api>, server: &str, output: &Output) -> Result<()> {
    let rows = {
        let _working = output.working("asking each provider");
        rows(api, server).await?
    };
    output.result(&rows, |rows| {
        if rows.is_empty() {
            return "this stack has no such providers; name some in its manifest, see `llama-stack provider types`\n".into();
        }
        let status = |row: &Row| if row.ok { "answers".to_owned() } else { format!("failing: {}", row.message) };
        let line = |row: &Row| [row.api.clone(), row.id.clone(), row.r#type.clone(), status(row)];
        table(["API", "PROVIDER", "TYPE", "STATUS"], rows.iter().map(line))
    })
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    /// Models, shields, banks or tools, by what requests call them.
    brings: Vec<String>,
}

async fn show(name: &str, server: &str, output: &Output) -> Result<()> {
    let all = {
        let _working = output.working("asking each provider");
        rows(None, server).await?
    };
    let (api, id) = name.split_once('/').map_or((None, name), |(api, id)| (Some(api), id));
    let ids: Vec<String> = all.iter().map(|row| format!("{}/{}", row.api, row.id)).collect();
    let mut found: Vec<Row> = all.into_iter().filter(|row| row.id == id && api.is_none_or(|api| api == row.api)).collect();
    let row = match (found.pop(), found.is_empty()) {
        (Some(row), true) => row,
        (Some(row), false) => {
            return Err(Error::invalid("provider", format!("{id:?} is there for several APIs; write {}/{id} or another", row.api)));
        }
        (None, _) => return Err(Error::not_found(format!("this stack has no provider {name:?}; there is: {}", ids.join(", ")))),
    };
    let brings = if row.ok { brings(&row, server).await.map_err(|error| reach::explained(error, server))? } else { Vec::new() };
    output.result(&Shown { row, brings }, |Shown { row, brings }| {
        let (tone, status) = if row.ok { (Tone::Good, "answers") } else { (Tone::Bad, "failing") };
        let mut text = format!("{}/{}  {}  {}", row.api, row.id, row.r#type, output.paint(tone, status));
        if !row.message.is_empty() {
            text += &format!(": {}", row.message);
        }
        text.push('\n');
        text + &brings.iter().map(|one| format!("  {one}\n")).collect::<String>()
    })
}

async fn brings(row: &Row, server: &str) -> Result<Vec<String>> {
    let (cx, channel) = (crate::caller::caller(), reach::connect(server)?);
    let names: Vec<(String, String)> = match row.api.as_str() {
        "inference" => {
            let listed = model::all(&Remote::<InferenceClient<Channel>>::new(channel)).await?;
            listed.into_iter().map(|model| (model.provider_id, model.id)).collect()
        }
        "safety" => {
            let listed = Remote::<SafetyClient<Channel>>::new(channel).list_shields(&cx, ListShieldsRequest::default()).await?.shields;
            listed.into_iter().map(|shield| (shield.provider_id, shield.id)).collect()
        }
        "memory" => {
            let request = ListBanksRequest { page_size: 1000, ..ListBanksRequest::default() };
            let listed = Remote::<MemoryClient<Channel>>::new(channel).list_banks(&cx, request).await?.banks;
            listed.into_iter().map(|bank| (bank.provider_id, format!("{} {}", bank.id, bank.name).trim_end().to_owned())).collect()
        }
        _ => {
            let listed = tool::all(&Remote::<ToolsClient<Channel>>::new(channel)).await?;
            listed.into_iter().map(|tool| (tool.provider_id, tool.definition.unwrap_or_default().name)).collect()
        }
    };
    Ok(names.into_iter().filter_map(|(provider, name)| (provider == row.id).then_some(name)).collect())
}

#[derive(Serialize)]
struct Types {
    api: &'static str,
    types: Vec<&'static str>,
}

fn types(output: &Output) -> Result<()> {
    let registry = registry::registry();
    let all = [
        Types { api: "inference", types: registry.inference.types().collect() },
        Types { api: "safety", types: registry.safety.types().collect() },
        Types { api: "memory", types: registry.memory.types().collect() },
        Types { api: "tools", types: registry.tools.types().collect() },
    ];
    output.result(&all, |all| {
        let lines = all.iter().flat_map(|one| one.types.iter().map(|kind| [one.api.to_owned(), (*kind).to_owned()]));
        table(["API", "TYPE"], lines)
    })
}
