//! What a start would refuse of what providers list, as far as it shows without weights, folders and tables.

use std::{path::Path, sync::Arc};

use llama_stack_core::{
    Code, Context, Deps, Error, Manifest, Memory, Registry, Result, Safety, Table, Tools,
    manifest::{Lines, Provider},
};
use llama_stack_proto::v1::{ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield};

use crate::assemble;

/// Shields and tools that two providers have, shields that are named and are nobody's, and entries of providers in this process that
/// cannot be built. What a provider has that does not answer is not known, and not missed.
pub async fn check_listed(manifest: &Manifest, registry: &Registry, home: &Path) -> Vec<Error> {
    let (listed, lines, mut wrong) = (&manifest.providers, &manifest.lines, Vec::new());
    let memory: Arc<dyn Memory> = Arc::new(llama_stack_memory::Router::new(Vec::new()));
    let deps = Deps { egress: manifest.egress.clone(), folder: home.join(&manifest.name), memory: Some(memory), ..Deps::new(home) };

    let later = |provider: &Provider| -> Arc<dyn Safety> { Arc::new(Later::of(provider)) };
    match built("safety", &listed.safety, &registry.safety, &deps, lines, later).await {
        Ok(Some(providers)) => match llama_stack_safety::Router::build(providers).await {
            Ok(router) => wrong.extend(assemble::shields_are_there(&router, manifest).await.err()),
            Err(error) => wrong.push(assemble::routed(error, "safety", lines)),
        },
        Ok(None) => {}
        Err(error) => wrong.push(error),
    }

    let none = |_: &Provider| -> Arc<dyn Tools> { Arc::new(llama_stack_tools::Router::new(Vec::new())) };
    match built("tools", &listed.tools, &registry.tools, &deps, lines, none).await {
        Ok(Some(providers)) => {
            let refused = llama_stack_tools::Router::build(providers).await.err();
            wrong.extend(refused.map(|error| assemble::routed(error, "tools", lines)));
        }
        Ok(None) => {}
        Err(error) => wrong.push(error),
    }
    deps.shutdown.cancel();
    wrong
}

/// Each provider of a list, or what stands for it where it wants models. None where a server's entry is wrong: what it has cannot
/// be known.
///
/// # Errors
/// What is wrong in the entry of a provider in this process.
async fn built<S: ?Sized + 'static>(
    api: &str,
    listed: &[Provider],
    table: &Table<S>,
    deps: &Deps,
    lines: &Lines,
    stand_in: impl Fn(&Provider) -> Arc<S>,
) -> Result<Option<Vec<(String, Arc<S>)>>> {
    let mut all = Vec::with_capacity(listed.len());
    for (index, provider) in listed.iter().enumerate() {
        let deps = Deps { provider_id: provider.id.clone(), ..deps.clone() };
        let made = match table.build(&provider.kind, provider.config.clone(), deps).await {
            Ok(made) => made,
            Err(_) if !provider.kind.starts_with("inline::") => return Ok(None),
            Err(error) if error.code() == Code::InvalidArgument => {
                return Err(assemble::placed(error, &format!("providers.{api}[{index}]"), lines));
            }
            Err(_) => stand_in(provider),
        };
        all.push((provider.id.clone(), made));
    }
    Ok(Some(all))
}

/// A shield that judges by a model, which is not loaded for a look: its id is known before.
struct Later(String);

impl Later {
    fn of(provider: &Provider) -> Self {
        let named = provider.config.get("id").and_then(|id| id.as_str());
        Self(named.unwrap_or(&provider.id).to_owned())
    }
}

#[async_trait::async_trait]
impl Safety for Later {
    async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shield = Shield { id: self.0.clone(), ..Shield::default() };
        Ok(ListShieldsResponse { shields: vec![shield], ..ListShieldsResponse::default() })
    }

    async fn run_shield(&self, _cx: &Context, _request: RunShieldRequest) -> Result<RunShieldResponse> {
        Err(Error::unimplemented("judging before a start"))
    }
}
