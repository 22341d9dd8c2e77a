//! Conversions of whole files.

use super::*;

const RUN: &str = r#"
version: '2'
image_name: My Starter
apis: [agents, inference, safety, tool_runtime, vector_io, eval]
providers:
  inference:
  - provider_id: ${env.OLLAMA_URL:+ollama}
    provider_type: remote::ollama
    config: { url: "${env.OLLAMA_URL:=http://localhost:11434}" }
  - provider_id: openai
    provider_type: remote::openai
    config: { api_key: "${env.OPENAI_API_KEY:=}", base_url: "${env.OPENAI_BASE_URL:=https://api.openai.com/v1}" }
  - provider_id: st
    provider_type: inline::sentence-transformers
  vector_io:
  - provider_id: faiss
    provider_type: inline::faiss
    config: { kvstore: { type: sqlite } }
  - provider_id: pg
    provider_type: remote::pgvector
  safety:
  - provider_id: llama-guard
    provider_type: inline::llama-guard
    config: { excluded_categories: [] }
  agents:
  - provider_id: meta-reference
    provider_type: inline::meta-reference
  eval:
  - provider_id: e
    provider_type: inline::meta-reference
  tool_runtime:
  - provider_id: tavily-search
    provider_type: remote::tavily-search
    config: { api_key: "${env.TAVILY_SEARCH_API_KEY:=}", max_results: 3 }
  - provider_id: rag-runtime
    provider_type: inline::rag-runtime
  - provider_id: mcp
    provider_type: remote::model-context-protocol
metadata_store: { type: sqlite, db_path: /x }
shields:
- { shield_id: "meta-llama/Llama-Guard-3-8B", provider_id: llama-guard, provider_shield_id: "ollama/llama-guard3:8b" }
tool_groups:
- { toolgroup_id: "mcp::files", provider_id: mcp, mcp_endpoint: { uri: "http://localhost:8000/sse" } }
vector_dbs: []
datasets: [{ dataset_id: d }]
server: { port: 8321, auth: { provider_config: { type: oauth2 } } }
"#;

#[test]
fn what_has_a_twin_comes_over_and_the_rest_is_listed() {
    let (text, notes) = convert(RUN, "run.yaml").unwrap();
    let manifest = Manifest::parse(&text, "m").unwrap();
    assert_eq!(manifest.name, "my-starter");
    assert_eq!(manifest.server.listen, "127.0.0.1:8321");
    let entries: Vec<(&str, &str, &str)> = manifest
        .providers
        .by_api()
        .into_iter()
        .flat_map(|(api, list)| list.iter().map(move |one| (api, one.id.as_str(), one.kind.as_str())))
        .collect();
    assert_eq!(
        entries,
        [
            ("inference", "ollama", "remote::openai"),
            ("inference", "openai", "remote::openai"),
            ("safety", "meta-llama-Llama-Guard-3-8B", "inline::llama-guard"),
            ("memory", "faiss", "inline::sqlite"),
            ("tools", "tavily-search", "remote::tavily-search"),
            ("tools", "rag-runtime", "inline::memory"),
            ("tools", "mcp-files", "remote::mcp"),
        ]
    );
    assert_eq!(manifest.providers.inference[0].config["url"], "http://localhost:11434/v1");
    assert_eq!(manifest.providers.safety[0].config["model"], "llama-guard3:8b");
    let left: Vec<&str> = notes.iter().filter(|note| !note.converted).map(|note| note.path.as_str()).collect();
    let expected = [
        "server.auth",
        "providers.inference[2]",
        "providers.vector_io[1]",
        "providers.eval[0]",
        "providers.tool_runtime[0].config.max_results",
        "datasets",
    ];
    assert_eq!(left, expected);
    assert!(notes.iter().any(|note| note.path == "providers.inference[0].provider_id" && note.message.contains("OLLAMA_URL")));
}

#[test]
fn tls_and_what_a_guard_leaves_alone_come_over_and_settings_without_a_place_are_told() {
    let text = r#"
providers:
  inference:
  - { provider_id: v, provider_type: remote::vllm, config: { url: "https://v/v1", max_tokens: 4096, tls_verify: "${env.VLLM_CA:=/etc/ca.pem}" } }
  - { provider_id: w, provider_type: remote::vllm, config: { url: "https://w/v1", tls_verify: false } }
  safety:
  - { provider_id: llama-guard, provider_type: inline::llama-guard, config: { excluded_categories: [S1] } }
shields: [{ shield_id: guard, provider_id: llama-guard, provider_shield_id: m }]
models: [{ model_id: mine, provider_id: v, provider_model_id: theirs }, { model_id: same, provider_id: v }]
server: { host: 10.0.0.7, port: 1, tls_certfile: c.pem, tls_keyfile: k.pem, tls_cafile: ca.pem, quota: { period: day } }
"#;
    let (text, notes) = convert(text, "run.yaml").unwrap();
    let manifest = Manifest::parse(&text, "m").unwrap();
    let tls = manifest.server.tls.as_ref().unwrap();
    assert_eq!((tls.cert.to_str(), tls.key.to_str()), (Some("c.pem"), Some("k.pem")));
    assert_eq!(tls.client_ca.as_ref().and_then(|file| file.to_str()), Some("ca.pem"));
    assert_eq!(manifest.providers.inference[0].config["ca_certificate"], "/etc/ca.pem");
    assert_eq!(manifest.providers.safety[0].config["excluded_categories"], json!(["S1"]));
    let paths =
        |converted: bool| -> Vec<&str> { notes.iter().filter(|note| note.converted == converted).map(|note| note.path.as_str()).collect() };
    assert_eq!(paths(true), ["server.host", "server.tls_cafile"]);
    let left =
        ["server.quota", "providers.inference[0].config.max_tokens", "providers.inference[1].config.tls_verify", "models[0].model_id"];
    assert_eq!(paths(false), left);
}

fn listens(server: &str) -> (String, Vec<String>) {
    let (text, notes) = convert(&format!("providers: {{}}\nserver: {server}\n"), "run.yaml").unwrap();
    // As the manifest is where no variable is set but `SET`.
    let manifest = Manifest::parse_with(&text, "m", &|name| (name == "SET").then(|| "10.0.0.9".into())).unwrap();
    let paths = notes.into_iter().filter(|note| note.path.starts_with("server")).map(|note| note.path);
    (manifest.server.listen, paths.collect())
}

#[test]
fn where_it_listens_comes_over_with_its_references() {
    let rows = [
        (r#"{ host: "${env.HOST:=127.0.0.1}", port: "${env.X:=9000}" }"#, "127.0.0.1:9000", None),
        (r#"{ host: "${env.HOST:=0.0.0.0}" }"#, "127.0.0.1:8321", Some("server")),
        (r#"{ host: "${env.HOST:=}" }"#, "127.0.0.1:8321", Some("server")),
        (r#"{ host: "${env.HOST:=10.0.0.7}", port: 1 }"#, "10.0.0.7:1", Some("server.host")),
        (r#"{ host: "${env.SET}" }"#, "10.0.0.9:8321", Some("server.host")),
        (r#"{ host: "::1" }"#, "[::1]:8321", None),
        (r#"{ host: "[::1]", port: "1" }"#, "[::1]:1", None),
        (r#"{ host: "[::]" }"#, "127.0.0.1:8321", Some("server")),
        (r#"{ host: "fd00::1" }"#, "[fd00::1]:8321", Some("server.host")),
        (r#"{ host: localhost, port: "http" }"#, "localhost:8321", Some("server.port")),
        (r#"{ host: localhost, port: 70000 }"#, "localhost:8321", Some("server.port")),
    ];
    for (server, listen, note) in rows {
        let told: Vec<String> = note.map(str::to_owned).into_iter().collect();
        assert_eq!(listens(server), (listen.to_owned(), told), "{server}");
    }
}

#[test]
fn a_name_is_told_where_its_server_came_over_with_all_that_keeps_it() {
    let text = r#"
providers:
  inference:
  - { provider_id: v, provider_type: remote::vllm, config: { url: "https://v/v1" } }
  - { provider_id: b, provider_type: remote::bedrock }
models:
- { model_id: mine, provider_id: v, provider_model_id: theirs }
- { model_id: same, provider_id: v, model_type: embedding }
- { model_id: gone, provider_id: b, provider_model_id: elsewhere }
- { model_id: anyone, provider_model_id: x }
"#;
    let (_, notes) = convert(text, "run.yaml").unwrap();
    let told: Vec<&Note> = notes.iter().filter(|note| note.path.starts_with("models")).collect();
    assert!(told.len() == 1 && told[0].path == "models[0].model_id", "{told:?}");
    let list = r#"`models: [{ id: "mine", upstream: "theirs" }, { id: "same", kind: embedding }]` in the config of v"#;
    assert!(told[0].message.contains(list), "{told:?}");
    let alone = text.replace("  - { provider_id: b, provider_type: remote::bedrock }\n", "");
    let (_, notes) = convert(&alone, "run.yaml").unwrap();
    assert!(notes.iter().any(|note| note.path == "models[3].model_id"), "of the only provider: {notes:?}");
}

#[test]
fn words_for_yes_and_no_are_no_files() {
    for (word, file, told) in [
        ("\"True\"", None, false),
        ("\"${env.V:=YES}\"", None, false),
        ("\"\"", None, false),
        ("\"False\"", None, true),
        ("\"${env.V:=0}\"", None, true),
        ("\"${env.V}\"", None, true),
        ("/etc/ca.pem", Some("/etc/ca.pem"), false),
    ] {
        let text = format!(
            "providers: {{ inference: [{{ provider_id: v, provider_type: \"remote::vllm\", config: {{ url: \"https://v/v1\", tls_verify: {word} }} }}] }}\n"
        );
        let (text, notes) = convert(&text, "run.yaml").unwrap();
        let manifest = Manifest::parse(&text, "m").unwrap();
        assert_eq!(manifest.providers.inference[0].config.get("ca_certificate").and_then(Value::as_str), file, "{word}");
        assert_eq!(notes.iter().filter(|note| note.path.ends_with("tls_verify")).count(), usize::from(told), "{word}: {notes:?}");
    }
}

#[test]
fn what_shields_and_banks_were_told_and_cannot_be_here_is_listed() {
    let text = r#"
providers:
  safety:
  - { provider_id: g, provider_type: inline::llama-guard, config: { excluded_categories: [S1], temperature: 1 } }
  - { provider_id: c, provider_type: inline::code-scanner, config: { severity: high } }
  vector_io:
  - { provider_id: q, provider_type: remote::qdrant, config: { url: "http://q:6334", api_key: k, timeout: 5 } }
shields: [{ shield_id: guard, provider_id: g, provider_shield_id: m }]
"#;
    let (_, notes) = convert(text, "run.yaml").unwrap();
    let left: Vec<&str> = notes.iter().filter(|note| !note.converted).map(|note| note.path.as_str()).collect();
    assert_eq!(
        left,
        ["providers.safety[0].config.temperature", "providers.safety[1].config.severity", "providers.vector_io[0].config.timeout"]
    );
}

#[test]
fn postgres_comes_over_by_its_address() {
    let text = "providers: {}\nmetadata_store: { type: postgres, host: db, port: 5433, db: d, user: u, password: \"${env.PW}\" }\n";
    let (text, _) = convert(text, "run.yaml").unwrap();
    assert!(text.contains(r#"url: "postgres://u:${env.PW}@db:5433/d""#), "{text}");
}

#[test]
fn what_is_no_run_yaml_is_told() {
    assert!(convert("a: 1\n", "x.yaml").unwrap_err().message().contains("no `providers:`"));
    assert!(convert("a: [", "x.yaml").unwrap_err().message().contains("not valid YAML"));
}
