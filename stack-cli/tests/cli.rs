//! What someone at a terminal meets: the verbs, their errors, their exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{fs, net::TcpListener, path::Path};

use llama_stack_documents::{Limits, Parse as _, WORKER_VERB, Workers};
use serde_json::Value;
use support::{Server, call, call_with_input};

const REMOTE: &str = "version: 1\nname: t\nproviders:\n  inference:\n    - id: up\n      type: remote::openai\n      config:\n        url: \"http://127.0.0.1:9/v1\"\n        models: [m]\n";

fn manifest(home: &Path, text: &str) -> String {
    let path = home.join("m.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn version_names_the_build() {
    let home = tempfile::tempdir().unwrap();
    let version: Value = serde_json::from_str(&call(home.path(), &["version", "--json"]).out).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["features"].is_array());
    assert!(call(home.path(), &["version"]).out.starts_with("llama-stack "));
}

#[test]
fn built_in_distributions_are_listed_and_shown() {
    let home = tempfile::tempdir().unwrap();
    let listed: Vec<Value> = serde_json::from_str(&call(home.path(), &["distribution", "list", "--json"]).out).unwrap();
    let names: Vec<&str> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["starter", "tiny", "remote", "cluster"]);
    for name in names {
        assert!(call(home.path(), &["distribution", "show", name]).out.contains(&format!("name: {name}\n")));
        let read: Value = serde_json::from_str(&call(home.path(), &["distribution", "show", name, "--json"]).out).unwrap();
        assert_eq!((&read["name"], &read["version"]), (&name.into(), &1.into()));
    }
    let schema: Value = serde_json::from_str(&call(home.path(), &["distribution", "schema"]).out).unwrap();
    assert_eq!(schema["properties"]["name"]["type"], "string");
    let unknown = call(home.path(), &["distribution", "show", "nope"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("starter, tiny, remote, cluster"), "{}", unknown.err);
}

#[test]
fn a_wrong_manifest_is_refused_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let check = |text: &str| call(home.path(), &["distribution", "check", &manifest(home.path(), text)]);

    let good = check(REMOTE);
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{}", good.out);

    let unknown_key = check(&REMOTE.replace("        url:", "        uri:"));
    assert_eq!(unknown_key.code, 2);
    assert!(unknown_key.err.contains("m.yaml:8: providers.inference[0].config.uri"), "{}", unknown_key.err);

    let no_type = check(&REMOTE.replace("remote::openai", "remote::nothing"));
    assert_eq!(no_type.code, 2);
    assert!(no_type.err.contains("m.yaml:6: providers.inference[0].type") && no_type.err.contains("remote::grpc"), "{}", no_type.err);

    let twice = check(&format!("{REMOTE}    - {{ id: up, type: remote::openai, config: {{ url: \"http://127.0.0.1:9\" }} }}\n"));
    assert_eq!(twice.code, 2);
    assert!(twice.err.contains("m.yaml:10: providers.inference[1].id"), "{}", twice.err);
}

#[test]
fn a_missing_variable_is_named() {
    let home = tempfile::tempdir().unwrap();
    let said = call(home.path(), &["run", "remote"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("remote.yaml (built in):") && said.err.contains("OPENAI_BASE_URL is not set"), "{}", said.err);
}

#[test]
fn a_port_in_use_is_told_with_the_way_out() {
    let home = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let said = call(home.path(), &["run", &manifest(home.path(), REMOTE), "--port", &port]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("in use") && said.err.contains("--port"), "{}", said.err);
}

#[test]
fn a_server_stops_when_it_is_told_to_and_starts_again() {
    let home = tempfile::tempdir().unwrap();
    let file = manifest(home.path(), REMOTE);
    for _ in 0..2 {
        let server = Server::start(home.path(), &file);
        assert!(server.stop().success());
    }
    assert!(home.path().join("t/server.log").exists());
}

#[test]
fn chat_without_a_server_says_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    let models: [&[&str]; 2] = [&[], &["--model", "m"]];
    for model in models {
        let said = call_with_input(home.path(), &[&["chat", "--server", "http://127.0.0.1:9"][..], model].concat(), "hi\n");
        assert_eq!(said.code, 4);
        assert!(said.err.contains("llama-stack run starter"), "{}", said.err);
    }
}

#[test]
fn a_provider_that_is_down_is_not_taken_for_its_stack() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &manifest(home.path(), REMOTE));
    let said = call_with_input(home.path(), &["chat", "--server", &server.url, "--model", "m"], "hi\n");
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("provider \"up\"") && !said.err.contains("no stack answers"), "{}", said.err);
}

#[test]
fn completions_are_scripts() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = call(home.path(), &["completions", shell]).out;
        assert!(script.contains("llama-stack") && script.contains("batch") && script.contains("/v1/embeddings"), "{shell}");
    }
}

#[test]
fn model_files_are_pulled_listed_verified_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source.txt");
    fs::write(&source, "not a model, but a file").unwrap();
    // A file:// source is used where it is; parts of one are put together in the store.
    let text = format!(
        "version: 1\nname: t\nproviders:\n  inference:\n    - id: local\n      type: inline::candle\n      config:\n        models:\n          \
         - id: m\n            files:\n              - name: words.txt\n                from: [ [ \"file://{0}\", \"file://{0}\" ] ]\n",
        source.display()
    );
    let file = manifest(home.path(), &text);
    let pulled = call(home.path(), &["model", "pull", &file, "--json"]);
    assert_eq!(pulled.code, 0, "{}", pulled.err);

    let listed: Vec<Value> = serde_json::from_str(&call(home.path(), &["model", "list", "--json"]).out).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["size"], 46);
    let name = listed[0]["name"].as_str().unwrap();
    let good = call(home.path(), &["model", "verify"]);
    assert_eq!((good.code, good.err.contains("fetch")), (0, false), "{}", good.err);

    fs::write(listed[0]["path"].as_str().unwrap(), "damaged").unwrap();
    assert_eq!(call(home.path(), &["model", "verify"]).code, 1);
    assert_eq!(call(home.path(), &["model", "remove", name]).code, 0);
    assert_eq!(call(home.path(), &["model", "list", "--json"]).out.trim(), "[]");
    assert_eq!(call(home.path(), &["model", "remove", name]).code, 3);
}

/// The verb that no help shows: another process of this program asks for it.
#[tokio::test]
async fn a_file_is_read_by_a_process_of_this_program() {
    let workers = Workers::new(env!("CARGO_BIN_EXE_llama-stack"), &[WORKER_VERB], Limits::default());
    for _ in 0..3 {
        let parsed = workers.parse("a.md", "", "# Cats\n\nCats purr.".into()).await.unwrap();
        assert_eq!(parsed.blocks[1].heading, "Cats");
    }
    let home = tempfile::tempdir().unwrap();
    assert!(!call(home.path(), &["--help"]).out.contains(WORKER_VERB));
}

#[test]
fn the_first_key_is_made_in_the_store_without_a_server() {
    let home = tempfile::tempdir().unwrap();
    let path = manifest(home.path(), REMOTE);
    let key = |arguments: &[&str]| call(home.path(), &[&["--json", "key"], arguments, &["--offline", &path, "--tenant", "acme"]].concat());
    let made = key(&["create", "--principal", "eve", "--role", "admin", "--days", "30", "--tokens-per-day", "9"]);
    let made: Value = serde_json::from_str(&made.out).unwrap_or_else(|_| panic!("{}", made.err));
    assert!(made["secret"].as_str().unwrap().starts_with("lsk_"), "{made}");
    assert_eq!(
        (made["tenant"].as_str(), made["principal"].as_str(), made["roles"][0].as_str()),
        (Some("acme"), Some("eve"), Some("admin"))
    );
    let id = made["id"].as_str().unwrap();
    let rotated: Value = serde_json::from_str(&key(&["rotate", id]).out).unwrap();
    assert_ne!(rotated["secret"], made["secret"]);
    assert_eq!(made["quota"]["tokens_per_day"], 9, "{made}");
    assert_eq!(rotated["quota"], made["quota"]);
    let refused = key(&["create", "--concurrent-turns", "0"]);
    assert!(refused.code != 0 && refused.err.contains("quota.concurrent_turns must be at least 1"), "{}", refused.err);
    assert_eq!(key(&["revoke", id]).code, 0);
    let listed = key(&["list"]).out;
    let rows: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!((rows.len(), rows[0]["state"].as_str()), (1, Some("revoked")));
    assert!(!listed.contains("lsk_"), "{listed}");
    assert_eq!(key(&["revoke", "key_none"]).code, 3);
    // Another tenant's keys are another's.
    let others = call(home.path(), &["--json", "key", "list", "--offline", &path, "--tenant", "umbrella"]);
    assert_eq!(others.out.trim(), "[]");
}

#[test]
fn a_listener_that_others_reach_wants_to_know_who_calls() {
    let home = tempfile::tempdir().unwrap();
    let said = call(home.path(), &["run", &manifest(home.path(), REMOTE), "--listen", "0.0.0.0:0"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("can be reached from other machines") && said.err.contains("server.auth"), "{}", said.err);
}

#[test]
fn policies_of_access_are_checked_and_asked() {
    let home = tempfile::tempdir().unwrap();
    let explain = |roles: &[&str]| {
        let path = manifest(home.path(), REMOTE);
        let question =
            ["policy", "explain", &path, "--action", "Agents.GetSession", "--principal", "ann", "--kind", "session", "--owner", "bob"];
        call(home.path(), &[&question[..], roles].concat())
    };
    assert_eq!(explain(&[]).out, "denied: no policy permits it\n");
    assert_eq!(explain(&["--role", "admin"]).out, "allowed: by built-in/admin\n");
    assert!(explain(&[]).err.contains("no `server.auth`"), "nothing is asked there: {}", explain(&[]).err);
    let asked = |question: &str| {
        let path = manifest(home.path(), REMOTE);
        let words: Vec<&str> = ["policy", "explain", &path].into_iter().chain(question.split(' ')).collect();
        call(home.path(), &words)
    };
    // A new one will be the caller's, as in a stack.
    assert_eq!(asked("--action Agents.CreateTurn").out, "allowed: by built-in/owner\n");
    for (question, right) in [
        ("--action Agents.DeletAgent", "did you mean Agents.DeleteAgent?"),
        ("--action Sessions.getsession", "did you mean Agents.GetSession?"),
        ("--action Safety.Think", "Safety has ListShields, GetShield, RunShield"),
        ("--action everything", "an RPC of one of Inference, Safety,"),
        ("--action Agents.GetSession --kind sesion", "is not done to a \"sesion\", but to: session"),
        ("--action Agents.CreateTurn --kind bank", "but to: session or turn"),
        ("--action Inference.StreamChat --kind shield", "but to: model"),
        ("--action Stack.Backup --kind bank", "leave the kind out"),
        ("--action Agents.GetTurn --id turn_1", "of which kind it is: turn"),
        ("--action Memory.DeleteBank --kind bank --owner bob", "leave the owner out"),
        ("--action Agents.GetTurn --principal a/b", "principal must be 1 to 128 of"),
    ] {
        let said = asked(question);
        assert_eq!(said.code, 2, "{question}: {}", said.out);
        assert!(said.err.contains(right), "{question}: {}", said.err);
    }
    let wrong = format!("{REMOTE}server:\n  auth:\n    api_keys: true\n    policy:\n      text: 'permit (principal, action, resource);'\n");
    let said = call(home.path(), &["policy", "check", &manifest(home.path(), &wrong)]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("server.auth.policy.text") && said.err.contains("@id"), "{}", said.err);
    let of_tools = format!("{REMOTE}policy: {{ text: 'permit (principal, action, resource);' }}\n");
    let said = call(home.path(), &["policy", "check", &manifest(home.path(), &of_tools)]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("policy.text") && said.err.contains("@id"), "{}", said.err);
}

#[test]
fn a_stack_that_wants_a_key_says_where_it_goes() {
    let home = tempfile::tempdir().unwrap();
    let file = manifest(home.path(), &format!("{REMOTE}server:\n  auth:\n    api_keys: true\n"));
    let server = Server::start(home.path(), &file);
    let said = call(home.path(), &["session", "list", "--server", &server.url]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.err.contains("LLAMA_STACK_API_KEY") && said.err.contains("LLAMA_STACK_CLIENT_CERT"), "{}", said.err);
}
