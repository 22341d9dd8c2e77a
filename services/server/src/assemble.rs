//! From the manifest's entries to providers and a store, with errors that say where in the file they arose.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use llama_stack_core::{
    Code, Context, Deps, Error, Inference, Manifest, Result, Safety, Table, Tools,
    manifest::{DeclaredAgent, Lines, Provider},
};
use llama_stack_proto::v1::{GetModelRequest, GetShieldRequest};
use llama_stack_store::{Sealer, Store};

use crate::tools::every_tool;

/// Builds the providers of one service, in the order of the manifest.
pub(crate) async fn providers<S: ?Sized + 'static>(
    api: &str,
    listed: &[Provider],
    table: &Table<S>,
    deps: &Deps,
    lines: &Lines,
) -> Result<Vec<(String, Arc<S>)>> {
    let mut built = Vec::with_capacity(listed.len());
    for (index, provider) in listed.iter().enumerate() {
        let deps = Deps { provider_id: provider.id.clone(), ..deps.clone() };
        let made = table.build(&provider.kind, provider.config.clone(), deps).await;
        let made = made.map_err(|error| placed(error, &format!("providers.{api}[{index}]"), lines))?;
        tracing::debug!(api, provider = provider.id, kind = provider.kind, "provider built");
        built.push((provider.id.clone(), made));
    }
    Ok(built)
}

/// Where the store of the manifest is: by default in the distribution's folder, which is made.
pub(crate) async fn store_url(manifest: &Manifest, home: &Path) -> Result<String> {
    Ok(match &manifest.store.url {
        Some(url) => url.clone(),
        None => {
            let folder = home.join(&manifest.name);
            tokio::fs::create_dir_all(&folder)
                .await
                .map_err(|error| Error::failed_precondition(format!("{}: the state folder cannot be made: {error}", folder.display())))?;
            format!("sqlite://{}", folder.join("state.db").display())
        }
    })
}

/// Opens the store of the manifest, or the default one.
pub(crate) async fn store(manifest: &Manifest, home: &Path) -> Result<Store> {
    let url = store_url(manifest, home).await?;
    let opened = Store::open(&url, manifest.store.durability).await;
    let sealer = Sealer::new(&manifest.secrets.keys(&manifest.lines)?).map_err(|error| at(error, "secrets", &manifest.lines))?;
    let store = opened.map_err(|error| at(error, "store.url", &manifest.lines))?.sealed_by(sealer);
    match store.reseal().await.map_err(|error| at(error, "secrets", &manifest.lines))? {
        0 => {}
        groups => tracing::warn!(groups, "tool groups hold secrets that are not sealed: set LLAMA_STACK_SECRET_KEY"),
    }
    Ok(store)
}

/// A provider's error, with the path of its field in the manifest. Factories name fields as they stand in the entry
/// (`type`, `config.url`), or as they stand below `config`.
pub(crate) fn placed(error: Error, entry: &str, lines: &Lines) -> Error {
    let path = match error.field() {
        None => entry.to_owned(),
        Some(field) if field == "type" || field == "id" || field == "config" || field.starts_with("config.") => format!("{entry}.{field}"),
        Some(field) => format!("{entry}.config.{field}"),
    };
    at(error, &path, lines)
}

/// A router's error, which names a provider by its index among all (`providers[1]`), with that provider's path in the
/// manifest.
pub(crate) fn routed(error: Error, api: &str, lines: &Lines) -> Error {
    let index = error.field().and_then(|field| field.strip_prefix("providers")).unwrap_or_default();
    let path = format!("providers.{api}{index}");
    at(error, &path, lines)
}

/// Every shield that the manifest names, for all turns or for those of an agent, must be one of this stack's.
///
/// # Errors
/// `NotFound`, with the line and the shields that there are. Where a provider does not answer yet it is not known what is
/// missing, and nothing is said: a turn that cannot be judged does not pass.
pub(crate) async fn shields_are_there(safety: &dyn Safety, manifest: &Manifest) -> Result<()> {
    for (path, id) in manifest.safety.named().chain(manifest.agents.shields()) {
        match safety.get_shield(&Context::system(), GetShieldRequest { id: id.to_owned() }).await {
            Err(error) if error.code() == Code::NotFound => return Err(at(error, &path, &manifest.lines)),
            Err(error) => tracing::warn!(shield = id, error = ?error, "a shield that the manifest names cannot be reached yet"),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Says which models and tools declared agents lack. Either may come later: from a provider that does not answer yet, or
/// from a group that a tenant registers.
pub(crate) async fn tell_missing(inference: Arc<dyn Inference>, tools: Arc<dyn Tools>, declared: BTreeMap<String, DeclaredAgent>) {
    let cx = Context::probing();
    let listed = every_tool(&*tools, &cx, String::new()).await.unwrap_or_default();
    let there: HashSet<&str> = listed.iter().filter_map(|tool| Some(tool.definition.as_ref()?.name.as_str())).collect();
    for (agent, declared) in &declared {
        for tool in declared.tools.iter().filter(|tool| !there.contains(tool.as_str())) {
            tracing::warn!(agent, tool, "a declared agent names a tool that is not there (yet)");
        }
        let model = cx.within(inference.get_model(&cx, GetModelRequest { id: declared.model.clone() })).await;
        if let Err(error) = model {
            tracing::warn!(agent, error = error.message(), "a declared agent's model is not there (yet)");
        }
    }
}

/// An error whose field is a path of the manifest.
pub(crate) fn at_its_field(error: Error, lines: &Lines) -> Error {
    match error.field().map(str::to_owned) {
        Some(path) => at(error, &path, lines),
        None => error,
    }
}

/// Keeps the code and the cause; adds the place.
fn at(error: Error, path: &str, lines: &Lines) -> Error {
    let message = lines.error(path, error.message()).message().to_owned();
    let mut placed = Error::new(error.code(), message).with_field(path);
    if let Some(reason) = error.reason() {
        placed = placed.with_reason(reason);
    }
    placed.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version: 1\nname: t\nproviders:\n  inference:\n    - id: a\n      type: x\n      config:\n        url: 5\n";

    #[test]
    fn a_providers_error_names_its_line() {
        let manifest = Manifest::parse(TEXT, "m.yaml").unwrap();
        let message = |error| placed(error, "providers.inference[0]", &manifest.lines).message().to_owned();
        assert_eq!(message(Error::invalid("config.url", "is no URL")), "m.yaml:8: providers.inference[0].config.url: is no URL");
        assert_eq!(message(Error::invalid("url", "is no URL")), "m.yaml:8: providers.inference[0].config.url: is no URL");
        assert_eq!(message(Error::invalid("type", "unknown")), "m.yaml:6: providers.inference[0].type: unknown");
        assert_eq!(message(Error::invalid("config.key", "missing field")), "m.yaml:7: providers.inference[0].config.key: missing field");
        let error = placed(Error::unavailable("nobody there"), "providers.inference[0]", &manifest.lines);
        assert_eq!((error.code(), error.message()), (Code::Unavailable, "m.yaml:5: providers.inference[0]: nobody there"));
    }

    #[tokio::test]
    async fn a_shield_of_every_turn_that_is_not_there_is_named_with_its_line() {
        let text = "version: 1\nname: t\nsafety:\n  defaults:\n    input: [guard]\n";
        let manifest = Manifest::parse(text, "m.yaml").unwrap();
        let error = shields_are_there(&llama_stack_safety::Router::new(Vec::new()), &manifest).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.message().starts_with("m.yaml:5: safety.defaults.input[0]: no shield \"guard\""), "{error}");
    }
}
