//! The twin that each provider type of Llama Stack has here, if it has one.

use serde_json::{Map, Value, json};

use super::{Notes, env::default_of};

/// Types that are an OpenAI-compatible server, the preset that they are here, and where they are.
/// Sources: the providers' own documentation, and Llama Stack's defaults.
const SERVERS: [(&str, &str, &str); 14] = [
    ("remote::ollama", "ollama", "http://localhost:11434/v1"),
    ("remote::vllm", "vllm", "http://localhost:8000/v1"),
    ("remote::tgi", "tgi", "http://localhost:8080/v1"),
    ("remote::openai", "openai", "https://api.openai.com/v1"),
    ("remote::together", "together", "https://api.together.xyz/v1"),
    ("remote::groq", "groq", "https://api.groq.com/openai/v1"),
    ("remote::fireworks", "fireworks", "https://api.fireworks.ai/inference/v1"),
    ("remote::nvidia", "nim", "https://integrate.api.nvidia.com/v1"),
    ("remote::cerebras", "", "https://api.cerebras.ai/v1"),
    ("remote::sambanova", "", "https://api.sambanova.ai/v1"),
    ("remote::gemini", "", "https://generativelanguage.googleapis.com/v1beta/openai"),
    ("remote::llama-openai-compat", "", "https://api.llama.com/compat/v1"),
    ("remote::anthropic", "", "https://api.anthropic.com/v1"),
    ("remote::passthrough", "", ""),
];

/// The four lists of a manifest.
pub(super) fn convert(run: &Value, notes: &mut Notes) -> Value {
    let mut made: Map<String, Value> = Map::new();
    for (api, entries) in run["providers"].as_object().into_iter().flatten() {
        for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
            let path = format!("providers.{api}[{index}]");
            let id = id(entry);
            let kind = entry["provider_type"].as_str().unwrap_or_default();
            let config = &entry["config"];
            let found = match api.as_str() {
                "inference" => inference(&id, kind, config, &path, notes),
                "safety" => safety(&id, kind, config, run, &path, notes),
                "vector_io" | "memory" => memory(&id, kind, config, &path, notes),
                "tool_runtime" => tool(&id, kind, config, run, &path, notes),
                _ => {
                    other(api, kind, &path, notes);
                    Vec::new()
                }
            };
            let list = match api.as_str() {
                "vector_io" => "memory",
                "tool_runtime" => "tools",
                same => same,
            };
            for entry in found {
                let list = made.entry(list).or_insert_with(|| json!([]));
                let taken = list.as_array().is_some_and(|list| list.iter().any(|one| one["id"] == entry["id"]));
                if let (false, Some(list)) = (taken, list.as_array_mut()) {
                    list.push(entry);
                }
            }
        }
    }
    // In the order in which services may call each other.
    let lists = ["inference", "safety", "memory", "tools"].into_iter().filter_map(|api| Some((api.to_owned(), made.remove(api)?)));
    Value::Object(lists.collect())
}

/// Tells of settings that say something and have no place here.
fn unread(config: &Value, read: &[&str], path: &str, notes: &mut Notes) {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    for (key, _) in config.as_object().into_iter().flatten().filter(|(key, value)| !read.contains(&key.as_str()) && says(value)) {
        notes.left_out(format!("{path}.config.{key}"), "is no setting here; docs/providers.md says what there is");
    }
}

fn id(entry: &Value) -> String {
    let id = tidy(entry["provider_id"].as_str().unwrap_or_default());
    if id.is_empty() { "unnamed".into() } else { id }
}

/// Letters, digits and `_ - .`, as ids are here.
pub(super) fn tidy(had: &str) -> String {
    had.chars().map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' }).collect()
}

fn inference(id: &str, kind: &str, config: &Value, path: &str, notes: &mut Notes) -> Vec<Value> {
    if let Some((_, preset, place)) = SERVERS.iter().find(|(name, ..)| *name == kind) {
        let text = |keys: &[&str]| keys.iter().find_map(|key| config[*key].as_str()).unwrap_or_default().to_owned();
        let url = text(&["base_url", "url", "openai_compat_api_base"]);
        let mut made = Map::new();
        let url = if default_of(&url).is_empty() && !url.contains("${env.") { (*place).to_owned() } else { with_path(&url, kind) };
        if url.is_empty() {
            notes.left_out(path, format!("{kind} has no url"));
            return Vec::new();
        }
        made.insert("url".into(), json!(url));
        if !preset.is_empty() {
            made.insert("preset".into(), json!(preset));
        }
        let key = text(&["api_key", "api_token"]);
        if !matches!(key.as_str(), "" | "fake") {
            made.insert("api_key".into(), json!(key));
        }
        let read = ["base_url", "url", "openai_compat_api_base", "api_key", "api_token", "tls_verify"];
        unread(config, &read, path, notes);
        let checked = match &config["tls_verify"] {
            Value::Null => Some(true),
            Value::Bool(checked) => Some(*checked),
            Value::String(word) => {
                let default = default_of(word);
                if default.is_empty() && word.contains("${env.") {
                    notes.left_out(
                        format!("{path}.config.tls_verify"),
                        format!("{word} is known at the start alone; where it is a file of an authority, name it as `ca_certificate`"),
                    );
                } else if !default.is_empty() && truth(&default).is_none() {
                    made.insert("ca_certificate".into(), json!(word));
                }
                truth(&default).or(Some(true))
            }
            _ => None,
        };
        if checked != Some(true) {
            notes.left_out(
                format!("{path}.config.tls_verify"),
                "certificates are always checked; name a private authority as `ca_certificate`",
            );
        }
        return vec![json!({ "id": id, "type": "remote::openai", "config": made })];
    }
    let message = match kind {
        "inline::sentence-transformers" => {
            "embedding models run in the process here as well, from files that the manifest names: take the entry `all-minilm-l6-v2` of \
             `llama-stack distribution show starter`"
        }
        "inline::meta-reference" => {
            "Meta's checkpoints do not run here; take the same model as GGUF or safetensors in an `inline::local` provider, see docs/models.md"
        }
        "remote::bedrock" | "remote::watsonx" | "remote::databricks" | "remote::runpod" | "remote::vertexai" | "remote::azure" => {
            "is no provider type here; where that service speaks the OpenAI API, name its address in a `remote::openai` provider"
        }
        _ => "is no provider type here; where that server speaks the OpenAI API, name its address in a `remote::openai` provider",
    };
    notes.left_out(path, format!("{kind}: {message}"));
    Vec::new()
}

/// Python's words for a bool, as Pydantic reads them.
fn truth(word: &str) -> Option<bool> {
    match word.to_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The base of the OpenAI API: Ollama's and TGI's addresses stand without it in a run.yaml.
fn with_path(url: &str, kind: &str) -> String {
    let url = url.trim_end_matches('/');
    let bare = matches!(kind, "remote::ollama" | "remote::tgi") && !default_of(url).ends_with("/v1");
    if bare { format!("{url}/v1") } else { url.to_owned() }
}

fn safety(id: &str, kind: &str, config: &Value, run: &Value, path: &str, notes: &mut Notes) -> Vec<Value> {
    match kind {
        "inline::llama-guard" => {
            let found = shield(run, id);
            let Some((shield, model)) = found else {
                notes.left_out(
                    path,
                    "names no model: add `{ id: guard, type: inline::llama-guard, config: { model: … } }`, see docs/safety.md",
                );
                return Vec::new();
            };
            let mut made = json!({ "model": model });
            if let Some(codes) = config["excluded_categories"].as_array().filter(|codes| !codes.is_empty()) {
                made["excluded_categories"] = json!(codes);
            }
            unread(config, &["excluded_categories"], path, notes);
            vec![json!({ "id": shield, "type": "inline::llama-guard", "config": made })]
        }
        "inline::code-scanner" => {
            unread(config, &[], path, notes);
            notes.changed(path, "code is judged by this program's own rules, see docs/safety-rules.md");
            vec![json!({ "id": id, "type": "inline::code-rules" })]
        }
        "inline::prompt-guard" => {
            notes.left_out(path, "Prompt Guard's files have to be named as a model first, see docs/safety-classifiers.md");
            Vec::new()
        }
        _ => {
            notes.left_out(path, format!("{kind} is no provider type here; see docs/safety.md for what judges texts"));
            Vec::new()
        }
    }
}

/// The shield of a provider, and the model that it asks.
fn shield(run: &Value, provider: &str) -> Option<(String, String)> {
    let lists = [&run["shields"], &run["registered_resources"]["shields"]];
    let mut shields = lists.into_iter().filter_map(Value::as_array).flatten();
    let found = shields.find(|shield| shield["provider_id"].as_str().is_none_or(|id| id == provider))?;
    let model = found["provider_shield_id"].as_str().or_else(|| found["shield_id"].as_str())?;
    // A model of a provider is `provider/model` there and `model` here.
    let model = model.rsplit_once('/').filter(|(before, _)| is_provider(run, before)).map_or(model, |(_, model)| model);
    Some((tidy(found["shield_id"].as_str()?), model.to_owned()))
}

fn is_provider(run: &Value, id: &str) -> bool {
    run["providers"]["inference"].as_array().into_iter().flatten().any(|entry| entry["provider_id"] == id)
}

/// Qdrant stays Qdrant; what else runs in the process is one file here.
fn memory(id: &str, kind: &str, config: &Value, path: &str, notes: &mut Notes) -> Vec<Value> {
    if kind == "inline::qdrant" {
        notes.changed(path, "its folder is not taken over, put its documents in again");
        return vec![json!({ "id": id, "type": "inline::qdrant-edge" })];
    }
    if let ("remote::qdrant", Some(url)) = (kind, config["url"].as_str()) {
        notes.changed(
            path,
            "banks are collections of their own in that server: put the documents in again. `url` names its gRPC port, usually 6334",
        );
        unread(config, &["url", "api_key"], path, notes);
        let mut made = json!({ "url": url });
        if let Some(key) = config["api_key"].as_str() {
            made["api_key"] = json!(key);
        }
        return vec![json!({ "id": id, "type": "remote::qdrant", "config": made })];
    }
    if kind.starts_with("inline::") {
        notes.changed(path, format!("{kind} is one file of SQLite here; its documents are not taken over, put them in again"));
        return vec![json!({ "id": id, "type": "inline::sqlite" })];
    }
    let message = format!("{kind}: see `llama-stack provider types` and docs/memory.md for what there is in its place");
    notes.left_out(path, message);
    Vec::new()
}

fn tool(id: &str, kind: &str, config: &Value, run: &Value, path: &str, notes: &mut Notes) -> Vec<Value> {
    let key = |field: &str| json!(config[field].as_str().unwrap_or_default());
    match kind {
        "remote::brave-search" | "remote::tavily-search" | "remote::wolfram-alpha" => {
            unread(config, &["api_key"], path, notes);
            vec![json!({ "id": id, "type": kind, "config": { "api_key": key("api_key") } })]
        }
        "inline::rag-runtime" => vec![json!({ "id": id, "type": "inline::memory" })],
        "remote::model-context-protocol" => mcp(run, id),
        _ => {
            notes.left_out(path, format!("{kind} is no provider type here; see docs/tools.md"));
            Vec::new()
        }
    }
}

/// One provider for each server that the tool groups name.
fn mcp(run: &Value, provider: &str) -> Vec<Value> {
    let lists = [&run["tool_groups"], &run["registered_resources"]["tool_groups"]];
    let groups = lists.into_iter().filter_map(Value::as_array).flatten().filter(|group| group["provider_id"] == provider);
    let made = groups.filter_map(|group| {
        let url = group["mcp_endpoint"]["uri"].as_str()?;
        let id = tidy(&group["toolgroup_id"].as_str()?.replace("::", "-"));
        Some(json!({ "id": id, "type": "remote::mcp", "config": { "url": url } }))
    });
    made.collect()
}

fn other(api: &str, kind: &str, path: &str, notes: &mut Notes) {
    match api {
        "agents" | "files" | "batches" | "prompts" | "conversations" => {
            notes.changed(path, format!("{api} are a part of every stack here, and no provider"));
        }
        "telemetry" => {}
        "eval" | "scoring" | "datasetio" | "post_training" => notes.left_out(path, format!("{kind}: this program has no {api}")),
        _ => notes.left_out(path, format!("{kind}: there is no API {api} here")),
    }
}
