//! Verbs that need no server: what they print, what they refuse, how they end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{fs, net::TcpListener, path::Path};

use serde_json::Value;
use support::{Said, Server, call, call_with_input, command};

const REMOTE: &str = "version: 1\nname: t\nproviders:\n  inference:\n    - id: up\n      type: remote::openai\n      config:\n        url: \"http://127.0.0.1:9/v1\"\n        models: [m]\n";

fn manifest(home: &Path, name: &str, text: &str) -> String {
    let path = home.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err))
}

/// What doctor found about one thing.
fn finding<'a>(report: &'a Value, what: &str) -> &'a Value {
    let found = report["findings"].as_array().unwrap().iter().find(|one| one["what"] == what);
    found.unwrap_or_else(|| panic!("nothing about {what} in {report:#}"))
}

#[test]
fn version_tells_what_the_build_was_made_with() {
    let home = tempfile::tempdir().unwrap();
    let version = json(&call(home.path(), &["version", "--json"]));
    let build = &version["build"];
    assert!(build["rustc"].as_str().unwrap().starts_with("rustc "), "{version}");
    assert!(build["triple"].as_str().unwrap().contains(std::env::consts::ARCH), "{version}");
    assert_eq!((&build["contract"], &build["manifest"]), (&"llama_stack.v1".into(), &1.into()));
}

#[test]
fn doctor_finds_a_good_machine_good_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let file = manifest(home.path(), "m.yaml", &REMOTE.replace("name: t\n", "name: t\nserver: { listen: \"127.0.0.1:0\" }\n"));
    let said = call(home.path(), &["doctor", &file, "--json"]);
    let report = json(&said);
    assert_eq!(said.code, 0, "{report:#}");
    for what in ["manifest", "port", "home", "database", "clock"] {
        assert_eq!(finding(&report, what)["status"], "ok", "{report:#}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "something besides the manifest was left");
}

#[test]
fn doctor_names_what_is_wrong_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = holder.local_addr().unwrap().to_string();
    let text = format!(
        "version: 1\nname: t\nserver: {{ listen: \"{listen}\" }}\nproviders:\n  inference:\n    - {{ id: gone, type: remote::grpc, config: {{ url: \"http://127.0.0.1:9\" }} }}\n    - id: here\n      type: inline::local\n      config:\n        models:\n          - {{ id: m, path: nowhere.gguf }}\n"
    );
    fs::create_dir(home.path().join("t")).unwrap();
    fs::write(home.path().join("t/state.db"), "no database, but a text that is long enough".repeat(200)).unwrap();
    let file = manifest(home.path(), "m.yaml", &text);
    let said = call(home.path(), &["doctor", &file, "--json"]);
    let report = json(&said);
    assert_eq!(said.code, 1, "{report:#}");
    let port = finding(&report, "port");
    assert_eq!(port["status"], "fail");
    if cfg!(target_os = "linux") {
        assert!(port["message"].as_str().unwrap().contains(&format!("process {}", std::process::id())), "{port}");
    }
    assert_eq!(finding(&report, "model m")["status"], "fail");
    assert_eq!(finding(&report, "database")["status"], "fail");
    let gone = finding(&report, "inference gone");
    assert_eq!(gone["status"], "warn", "{gone}");
    for one in report["findings"].as_array().unwrap().iter().filter(|one| one["status"] != "ok") {
        assert!(!one["advice"].as_str().unwrap().is_empty(), "{one}");
    }
    let text = call(home.path(), &["doctor", &file]);
    assert!(text.out.contains("fail  port") && text.out.contains("  -> "), "{}", text.out);
    assert!(!text.out.contains('\u{1b}'), "colours, though nobody sees them");
}

#[test]
fn what_a_start_refuses_of_the_edge_doctor_and_check_find_before() {
    let home = tempfile::tempdir().unwrap();
    let edges = [
        ("server: { listen: \"0.0.0.0:0\" }", "callers", "server.auth"),
        ("server: { listen: \"8321\" }", "port", "host:port"),
        ("server: { listen: \"127.0.0.1:0\", tls: { cert: no.pem, key: no.pem } }", "tls", "no.pem"),
        ("policy: { text: \"permit (principal\" }", "policies", "policy.text"),
    ];
    for (edge, what, said) in edges {
        let file = manifest(home.path(), "m.yaml", &REMOTE.replace("name: t\n", &format!("name: t\n{edge}\n")));
        let report = json(&call(home.path(), &["doctor", &file, "--json"]));
        assert_eq!(finding(&report, what)["status"], "fail", "{edge}: {report:#}");
        let check = call(home.path(), &["distribution", "check", &file]);
        assert!(check.code != 0 && check.err.contains(said), "{edge}: {}", check.err);
    }
}

#[test]
fn what_a_start_refuses_of_providers_doctor_and_check_find_before() {
    let home = tempfile::tempdir().unwrap();
    let free = REMOTE.replace("name: t\n", "name: t\nserver: { listen: \"127.0.0.1:0\" }\n");
    let rows = [
        ("secrets: { key_file: no.key }\n", "secrets", "no.key"),
        ("safety: { defaults: { input: [guard] } }\n", "providers", "safety.defaults.input[0]"),
        ("  safety: [{ id: pii, type: \"inline::pii\", config: { nonsense: 1 } }]\n", "providers", "nonsense"),
        ("  tools: [{ id: a, type: \"inline::builtin\" }, { id: b, type: \"inline::builtin\" }]\n", "providers", "providers.tools[1]"),
    ];
    for (lines, what, said) in rows {
        let file = manifest(home.path(), "m.yaml", &format!("{free}{lines}"));
        let report = json(&call(home.path(), &["doctor", &file, "--json"]));
        let found = finding(&report, what);
        assert!(found["status"] == "fail" && found["message"].as_str().unwrap().contains(said), "{lines}: {report:#}");
        let check = call(home.path(), &["distribution", "check", &file]);
        assert!(check.code != 0 && check.err.contains(said), "{lines}: {}", check.err);
    }
    // A guard's model is not asked for a look.
    let guard =
        "  safety: [{ id: guard, type: \"inline::llama-guard\", config: { model: m } }]\nsafety: { defaults: { input: [guard] } }\n";
    let report = json(&call(home.path(), &["doctor", &manifest(home.path(), "m.yaml", &format!("{free}{guard}")), "--json"]));
    assert_eq!(finding(&report, "providers")["status"], "ok", "{report:#}");
}

#[test]
fn doctor_reads_every_byte_when_it_is_asked_to() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source.txt");
    fs::write(&source, "not a model, but a file").unwrap();
    let hash = "0c3dd0b2f1a8c1c4bd4b9d6a1ad1ed4f0b1f8b4d6f3b1e5b1b6f0e3c4a5d6e7f";
    let from = format!("file://{}", source.display());
    let text = |hash: &str| {
        format!(
            "version: 1\nname: t\nserver: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n  inference:\n    - id: local\n      type: inline::candle\n      config:\n        models:\n          - id: m\n            files:\n              - {{ name: words.txt, size: 46, {hash} from: [ [ \"{from}\", \"{from}\" ] ] }}\n"
        )
    };
    let file = manifest(home.path(), "m.yaml", &text(""));
    let before = json(&call(home.path(), &["doctor", &file, "--json"]));
    assert_eq!(finding(&before, "model m")["status"], "warn", "{before:#}");
    assert_eq!(call(home.path(), &["model", "pull", &file]).code, 0);
    assert_eq!(finding(&json(&call(home.path(), &["doctor", &file, "--json"])), "model m")["status"], "ok");
    // Another file than the manifest names.
    let other = manifest(home.path(), "other.yaml", &text(&format!("sha256: {hash},")));
    assert_eq!(finding(&json(&call(home.path(), &["doctor", &other, "--json"])), "model m")["status"], "fail");

    let listed = json(&call(home.path(), &["model", "list", "--json"]));
    let (path, real) = (listed[0]["path"].as_str().unwrap(), listed[0]["sha256"].as_str().unwrap());
    let pinned = manifest(home.path(), "pinned.yaml", &text(&format!("sha256: {real},")));
    // As long as it was, so that only its bytes tell.
    fs::write(path, "x".repeat(46)).unwrap();
    assert_eq!(finding(&json(&call(home.path(), &["doctor", &pinned, "--json"])), "model m")["status"], "ok");
    assert_eq!(finding(&json(&call(home.path(), &["doctor", &pinned, "--deep", "--json"])), "model m")["status"], "fail");
}

#[test]
fn a_manifest_is_written_that_check_accepts() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("new.yaml");
    let path = path.to_str().unwrap();
    let init = ["distribution", "init", path, "--yes", "--name", "mine", "--models", "remote", "--url", "http://127.0.0.1:9/v1"];
    let options = ["--key-variable", "SOME_KEY", "--shields", "pii,code", "--tools", "builtin,fetch", "--port", "8400"];
    let said = call(home.path(), &[init.as_slice(), &options].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("api_key: \"${env.SOME_KEY:=}\"") && text.contains("listen: \"127.0.0.1:8400\""), "{text}");
    let check = call(home.path(), &["distribution", "check", path]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
    assert!(check.out.starts_with("mine is good\n"), "{}", check.out);

    let again = call(home.path(), &init);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("--force"), "{}", again.err);
    assert_eq!(fs::read_to_string(path).unwrap(), text, "it was written over");
    assert_eq!(call(home.path(), &[init.as_slice(), &["--force"]].concat()).code, 0);

    let shown = call(home.path(), &["distribution", "init", "-", "--yes", "--models", "tiny"]);
    assert!(shown.out.contains("smollm2-135m-instruct"), "{}{}", shown.out, shown.err);
    let apart = call(home.path(), &["distribution", "init", "-", "--yes", "--url", "http://127.0.0.1:9/v1"]);
    assert!(apart.code == 2 && apart.err.contains("--models remote"), "{}", apart.err);
    let crooked = call(home.path(), &["distribution", "init", "-", "--yes", "--name", "My Stack"]);
    assert_eq!(crooked.code, 2);
    assert!(crooked.err.contains("a-z, 0-9"), "{}", crooked.err);
}

#[test]
fn a_difference_is_told_by_meaning() {
    let home = tempfile::tempdir().unwrap();
    let a = manifest(home.path(), "a.yaml", REMOTE);
    let b = manifest(home.path(), "b.yaml", &REMOTE.replace("127.0.0.1:9", "127.0.0.1:10").replace("name: t", "# a remark\nname: \"t\""));
    let said = call(home.path(), &["distribution", "diff", &a, &b]);
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().skip(1).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"~ providers.inference[up].config.url: "http://127.0.0.1:9/v1" -> "http://127.0.0.1:10/v1""#);
    assert_eq!(call(home.path(), &["distribution", "diff", &a, &b, "--exit-code"]).code, 1);
    assert_eq!(call(home.path(), &["distribution", "diff", &a, &a, "--exit-code"]).code, 0);
    let text = call(home.path(), &["distribution", "diff", &a, &b, "--text"]);
    assert!(text.out.contains("+# a remark") && text.out.contains("@@"), "{}", text.out);
    let changes = json(&call(home.path(), &["distribution", "diff", "starter", "tiny", "--json"]));
    assert_eq!(changes["same"], false);
    assert_eq!(call(home.path(), &["distribution", "diff", &a, "nope"]).code, 3);
}

#[test]
fn a_run_yaml_becomes_a_manifest_that_check_accepts() {
    let home = tempfile::tempdir().unwrap();
    let run = "version: '2'\nimage_name: old\nproviders:\n  inference:\n  - provider_id: vllm\n    provider_type: remote::vllm\n    config: { url: \"${env.VLLM_URL:=http://127.0.0.1:9/v1}\", api_token: \"${env.VLLM_API_TOKEN:=fake}\" }\n  - provider_id: b\n    provider_type: remote::bedrock\n  tool_runtime:\n  - { provider_id: rag-runtime, provider_type: \"inline::rag-runtime\" }\n  vector_io:\n  - { provider_id: faiss, provider_type: \"inline::faiss\" }\n";
    let file = manifest(home.path(), "run.yaml", run);
    let target = home.path().join("new.yaml");
    let target = target.to_str().unwrap();
    let said = call(home.path(), &["distribution", "import", &file, "--output", target]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("left out providers.inference[1]") && said.err.contains("remote::bedrock"), "{}", said.err);
    let check = call(home.path(), &["distribution", "check", target]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
    let piped = call_with_input(home.path(), &["distribution", "import", "-", "--json"], run);
    assert_eq!(json(&piped)["manifest"], fs::read_to_string(target).unwrap().replace("run.yaml\"", "-\"").as_str());
    let wrong = call(home.path(), &["distribution", "import", &manifest(home.path(), "x.yaml", "a: 1\n")]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("run.yaml"), "{}", wrong.err);
}

#[test]
fn the_contract_can_be_read() {
    let home = tempfile::tempdir().unwrap();
    let listed = call(home.path(), &["api", "list"]);
    assert!(listed.out.contains("llama_stack.v1.Tools\n  rpc ListTools(ListToolsRequest) returns (ListToolsResponse)\n"), "{}", listed.out);
    let shown = call(home.path(), &["api", "describe", "ListToolGroupsRequest"]);
    insta::assert_snapshot!(shown.out, @r"
    message ListToolGroupsRequest {
      uint32 page_size = 1;
      string page_token = 2;
    }
    ");
    let method = json(&call(home.path(), &["api", "describe", "Inference.StreamChat", "--json"]));
    assert!(method[0]["declaration"].as_str().unwrap().contains("returns (stream ChatEvent)"), "{method}");
    let slip = call(home.path(), &["api", "describe", "ListToolRequest"]);
    assert_eq!(slip.code, 3);
    assert!(slip.err.contains("ListToolsRequest"), "{}", slip.err);
}

/// One that may not be signalled keeps no other from being stopped.
#[test]
fn stop_tells_what_it_could_not_stop_after_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &manifest(home.path(), "m.yaml", REMOTE));
    // As a process of another container: its lock is seen, and what has its number here is not it.
    let note = home.path().join("t/running-1.json");
    fs::write(&note, r#"{"name":"t","url":"http://127.0.0.1:9","pid":1,"started":1}"#).unwrap();
    let held = fs::File::open(&note).unwrap();
    held.lock().unwrap();
    let waiter = std::thread::spawn(move || server.wait());
    let said = call(home.path(), &["stop", "t"]);
    assert!(waiter.join().unwrap().success());
    assert!(said.code != 0 && said.out.is_empty(), "{}", said.out);
    assert!(said.err.contains("t (process 1) cannot be stopped from here"), "{}", said.err);
    let archive = home.path().join("a.tar");
    let file = home.path().join("m.yaml");
    let offline = call(home.path(), &["backup", "--offline", file.to_str().unwrap(), "--to", archive.to_str().unwrap()]);
    assert!(offline.code != 0 && offline.err.contains("t runs at http://127.0.0.1:9"), "{}", offline.err);
}

#[test]
fn stop_ends_a_stack_and_logs_show_what_it_said() {
    let home = tempfile::tempdir().unwrap();
    let none = call(home.path(), &["stop"]);
    assert_eq!(none.code, 3);
    assert!(none.err.contains("--home"), "{}", none.err);
    assert_eq!(call(home.path(), &["logs"]).code, 3);

    let file = manifest(home.path(), "m.yaml", REMOTE);
    let server = Server::start(home.path(), &file);
    let other = call(home.path(), &["stop", "other"]);
    assert_eq!(other.code, 3);
    assert!(other.err.contains("running: t"), "{}", other.err);
    let doctor = json(&call(home.path(), &["doctor", &file, "--json"]));
    assert_eq!(finding(&doctor, "database")["status"], "ok", "of a stack that runs: {doctor:#}");
    // Processes on one state are told apart: one that ends, or is killed, takes no other's note along.
    assert!(Server::start(home.path(), &file).stop().success());
    drop(Server::start(home.path(), &file));
    let archive = home.path().join("a.tar");
    let offline = call(home.path(), &["backup", "--offline", &file, "--to", archive.to_str().unwrap()]);
    assert!(offline.code != 0 && offline.err.contains("t runs at"), "{}", offline.err);
    // The test reaps its child, as a shell would.
    let waiter = std::thread::spawn(move || server.wait());
    let said = call(home.path(), &["stop", "t"]);
    assert_eq!((said.code, said.out.as_str()), (0, "t has stopped\n"), "{}", said.err);
    assert!(waiter.join().unwrap().success());
    assert_eq!(call(home.path(), &["stop"]).code, 3, "its note is still there");

    let log = home.path().join("t/server.log");
    fs::write(&log, "2026-01-02T03:04:05.6Z  INFO a: up\n2026-01-02T03:04:06.6Z ERROR a: down\n  because\n").unwrap();
    assert_eq!(call(home.path(), &["logs", "t", "-n", "2"]).out, "2026-01-02T03:04:06.6Z ERROR a: down\n  because\n");
    assert_eq!(call(home.path(), &["logs", "--level", "error"]).out, "2026-01-02T03:04:06.6Z ERROR a: down\n  because\n");
    let first: Value = serde_json::from_str(call(home.path(), &["logs", "--json"]).out.lines().next().unwrap()).unwrap();
    assert_eq!((&first["level"], &first["text"]), (&"INFO".into(), &"a: up".into()));
}

#[test]
fn a_bank_is_made_filled_and_searched() {
    let home = tempfile::tempdir().unwrap();
    let file = manifest(home.path(), "m.yaml", &format!("{REMOTE}  memory:\n    - {{ id: banks, type: inline::sqlite }}\n"));
    let server = Server::start(home.path(), &file);
    let memory = |arguments: &[&str]| call(home.path(), &[&["memory"][..], arguments, &["--server", &server.url, "--json"]].concat());
    let made = json(&memory(&["create", "notes", "--kind", "keyword"]));
    let bank = made["id"].as_str().unwrap();
    // The second is read by a process of its own, and the last by none.
    let notes = manifest(home.path(), "notes.txt", "The valve AK-1603 opens at noon.");
    let page = manifest(home.path(), "page.md", "# Pumps\n\nThe pump starts at dawn.\n");
    let empty = manifest(home.path(), "empty.txt", "");
    let added = memory(&["add", bank, &notes, &page, &empty]);
    assert_eq!(added.code, 1, "{}{}", added.out, added.err);
    assert!(added.err.contains("1 of 3 files"), "{}", added.err);
    let told = json(&added);
    let errors: Vec<bool> = told.as_array().unwrap().iter().map(|one| one["error"].is_string()).collect();
    assert_eq!(errors, [false, false, true], "{told}");
    for (words, document) in [("AK-1603", &notes), ("when does the pump start", &page)] {
        let found = json(&memory(&["search", &bank.replace("bank_", "vs_"), words]));
        assert_eq!(found[0]["document"], document.as_str(), "{found}");
    }
    let pages = ["1", "2", "3"].map(|page| json(&memory(&["search", bank, "valve pump", "--top", "1", "--page", page])));
    let mut seen: Vec<&str> = pages.iter().flat_map(|page| page.as_array().unwrap()).map(|one| one["document"].as_str().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [&notes, &page], "{pages:?}");
    assert_eq!(memory(&["search", bank, "valve", "--mode", "vector"]).code, 2, "a keyword bank has no vectors");
    assert_eq!(memory(&["add", bank, "nowhere.txt"]).code, 3);
    let moved = memory(&["migrate", "--from", "bank", "--to", "banks"]);
    assert!(moved.code == 3 && moved.err.contains("no memory provider"), "{} {}", moved.code, moved.err);
    let banks = call(home.path(), &["memory", "banks", "--server", &server.url]).out;
    assert!(banks.starts_with("BANK ") && banks.contains(bank), "{banks}");
    assert!(server.stop().success());
}

#[test]
fn remote_verbs_without_a_server_say_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    let verbs: [&[&str]; 12] = [
        &["file", "list"],
        &["file", "download", "file-x"],
        &["batch", "list"],
        &["batch", "show", "batch_x", "--watch"],
        &["tool", "list"],
        &["tool", "call", "clock"],
        &["agent", "list"],
        &["agent", "run", "hello"],
        &["provider", "list"],
        &["provider", "show", "x"],
        &["model", "show", "x"],
        &["model", "prompt-format", "x"],
    ];
    for verb in verbs {
        let said = call(home.path(), &[verb, &["--server", "http://127.0.0.1:9"]].concat());
        assert_eq!(said.code, 4, "{verb:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("llama-stack run starter"), "{verb:?}: {}", said.err);
    }
    let check = call(home.path(), &["provider", "check", "http://127.0.0.1:9"]);
    assert_eq!(check.code, 4);
    assert!(check.err.contains("start the provider"), "{}", check.err);
}

/// One rule for all verbs: what was named, and is not there.
#[test]
fn what_was_named_and_is_not_there_ends_with_3() {
    let home = tempfile::tempdir().unwrap();
    let [nowhere, archive] = ["nowhere", "archive"].map(|name| home.path().join(name).to_str().unwrap().to_owned());
    let (nowhere, archive) = (nowhere.as_str(), archive.as_str());
    let verbs: [&[&str]; 24] = [
        &["run", nowhere],
        &["doctor", nowhere],
        &["distribution", "check", nowhere],
        &["distribution", "show", nowhere],
        &["distribution", "diff", "starter", nowhere],
        &["distribution", "import", nowhere],
        &["policy", "check", nowhere],
        &["key", "list", "--offline", nowhere],
        &["model", "pull", nowhere],
        &["model", "verify", "nowhere"],
        &["model", "remove", "nowhere"],
        &["agent", "create", nowhere],
        &["agent", "update", "agent_1", nowhere],
        &["session", "replay", nowhere],
        &["memory", "add", "bank_1", nowhere],
        &["shield", "calibrate", "guard", "--file", nowhere],
        &["file", "upload", nowhere],
        &["batch", "create", nowhere, "--endpoint", "/v1/embeddings"],
        &["backup", "--to", archive, "--key-file", nowhere],
        &["restore", nowhere],
        &["restore", nowhere, "--verify"],
        &["stop"],
        &["logs"],
        &["api", "describe", "Nowhere"],
    ];
    for verb in verbs {
        let said = call(home.path(), verb);
        assert_eq!(said.code, 3, "{verb:?}: {}{}", said.out, said.err);
        let error: Value = serde_json::from_str(&call(home.path(), &[verb, &["--json"]].concat()).err).unwrap();
        assert_eq!(error["error"]["code"], "NOT_FOUND", "{verb:?}: {error}");
    }
    // It is there, and is no file.
    let folder = home.path().to_str().unwrap();
    let wrong: [&[&str]; 16] = [
        &["run", folder],
        &["distribution", "check", folder],
        &["distribution", "show", folder],
        &["distribution", "diff", "starter", folder],
        &["policy", "check", folder],
        &["restore", folder],
        &["restore", folder, "--verify"],
        &["distribution", "import", folder],
        &["agent", "create", folder],
        &["session", "replay", folder],
        &["memory", "add", "bank_1", folder],
        &["shield", "calibrate", "guard", "--file", folder],
        &["file", "upload", folder],
        &["batch", "create", folder, "--endpoint", "/v1/embeddings"],
        &["backup", "--to", folder],
        &["session", "export", "session_1", "--file", folder],
    ];
    for verb in wrong {
        let said = call(home.path(), verb);
        assert_eq!(said.code, 2, "{verb:?}: {}{}", said.out, said.err);
    }
    for (named, code) in [(nowhere, 3), (folder, 2)] {
        let mut asks = command(home.path());
        asks.args(["tool", "list", "--server", "https://127.0.0.1:9"]).env("LLAMA_STACK_CA", named);
        let said = Said::from(asks.output().unwrap());
        assert!(said.code == code && said.err.contains("LLAMA_STACK_CA"), "{named}: {} {}", said.code, said.err);
    }
}
