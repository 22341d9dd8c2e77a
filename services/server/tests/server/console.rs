//! The playground's pages as a browser fetches them, and the views of the journal that they are made of.

use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};

use crate::client::{Server, start};

/// SHA-256 over names, lengths and contents, in the order of the names: as `build.mjs` makes it.
fn hashed(folder: &Path, mut names: Vec<String>) -> String {
    names.sort_unstable();
    let mut hash = Context::new(&SHA256);
    for name in names {
        let contents = std::fs::read(folder.join(&name)).unwrap();
        hash.update(format!("{name}\n{}\n", contents.len()).as_bytes());
        hash.update(&contents);
    }
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files below a folder, by their paths from `root`.
fn below(root: &Path, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() { found.extend(below(root, &path)) } else { found.push(path) }
    }
    found
}

/// What is served was built from the sources that are beside it, and nobody has changed it since.
#[test]
fn the_playground_is_built_from_its_sources() {
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
    let mut sources = below(&console, "src");
    sources.extend(["build.mjs", "package.json", "package-lock.json", "tsconfig.json"].map(str::to_owned));
    let dist = below(&console, "dist").into_iter().map(|path| path.trim_start_matches("dist/").to_owned()).collect();
    let now = format!("sources {}\ndist {}\n", hashed(&console, sources), hashed(&console.join("dist"), dist));
    let built = std::fs::read_to_string(console.join("built-from")).unwrap();
    assert_eq!(built, now, "services/server/console/dist is stale: npm ci && npm run build there");
}

async fn fetch(server: &Server, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = headers.iter().fold(server.http.get(server.url(path)), |request, (name, value)| request.header(*name, *value));
    request.send().await.unwrap()
}

#[tokio::test]
async fn the_page_names_files_that_are_there_and_may_be_kept_for_ever() {
    let server = start().await;
    for path in ["/", "/docs"] {
        let page = fetch(&server, path, &[("accept", "text/html,*/*;q=0.8")]).await;
        assert_eq!((page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()), (200, "text/html; charset=utf-8"));
        assert_eq!(page.headers()["cache-control"], "no-cache");
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = page.text().await.unwrap();
        let named: Vec<&str> = text.split('"').filter(|part| part.starts_with("/console/")).collect();
        assert_eq!(named.len(), 2, "{text}");
        for name in named {
            let file = fetch(&server, name, &[]).await;
            assert_eq!(file.status(), 200, "{name}");
            assert!(file.headers()["cache-control"].to_str().unwrap().contains("immutable"), "{name}");
            assert_eq!(file.headers()["x-content-type-options"], "nosniff");
            let kind = file.headers()["content-type"].to_str().unwrap();
            assert!(kind.starts_with("text/javascript") || kind.starts_with("text/css"), "{name}: {kind}");
        }
    }
}

#[tokio::test]
async fn a_page_that_a_browser_has_is_not_sent_again() {
    let server = start().await;
    let tag = fetch(&server, "/", &[]).await.headers()["etag"].to_str().unwrap().to_owned();
    let again = fetch(&server, "/", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status().as_u16(), again.text().await.unwrap().as_str()), (304, ""));
    assert_eq!(fetch(&server, "/", &[("if-none-match", "\"other\"")]).await.status(), 200);
}

#[tokio::test]
async fn programs_and_unknown_paths_are_answered_in_json() {
    let server = start().await;
    for (path, accept) in
        [("/", "application/json"), ("/console/none.js", "*/*"), ("/console/index.html", "*/*"), ("/no/such", "text/html")]
    {
        let answer = fetch(&server, path, &[("accept", accept)]).await;
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "unknown_route", "{path}");
    }
    let answer = server.http.post(server.url("/")).send().await.unwrap();
    assert_eq!(answer.status(), 405);
}

#[tokio::test]
async fn the_contract_is_served_with_its_comments() {
    let server = start().await;
    let answer = fetch(&server, "/console/proto", &[]).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, "text/plain; charset=utf-8"));
    let text = answer.text().await.unwrap();
    for part in ["// Begins a turn", "rpc CreateTurn(CreateTurnRequest)", "rpc StreamChat(", "rpc RunShield("] {
        assert!(text.contains(part), "{part}");
    }
}

#[tokio::test]
async fn turns_of_a_conversation_say_which_they_continue() {
    let server = start().await;
    let first = server.json("POST", "/v1/responses", json!({ "model": "parrot", "input": "one" })).await;
    let more = json!({ "model": "parrot", "input": "two", "previous_response_id": first["id"] });
    let second = server.json("POST", "/v1/responses", more.clone()).await;
    let third = server.json("POST", "/v1/responses", more).await;
    let sessions = server.json("GET", "/v1/conversations", Value::Null).await;
    assert_eq!((sessions["data"].as_array().unwrap().len(), &sessions["next_page"]), (1, &Value::Null), "{sessions}");
    let id = sessions["data"][0]["id"].as_str().unwrap();
    let turns = server.json("GET", &format!("/v1/conversations/{id}/turns"), Value::Null).await;
    let seen: Vec<(&Value, &Value, &Value)> =
        turns["data"].as_array().unwrap().iter().map(|turn| (&turn["id"], &turn["previous_response_id"], &turn["input"])).collect();
    let (one, two) = (json!("one"), json!("two"));
    assert_eq!(seen, [(&first["id"], &Value::Null, &one), (&second["id"], &first["id"], &two), (&third["id"], &first["id"], &two)]);
    assert!(turns["data"].as_array().unwrap().iter().all(|turn| turn["status"] == "completed" && turn["steps"] == 1), "{turns}");

    let page = server.json("GET", &format!("/v1/conversations/{id}/turns?limit=2"), Value::Null).await;
    let next = page["next_page"].as_str().unwrap();
    let rest = server.json("GET", &format!("/v1/conversations/{id}/turns?limit=2&page={next}"), Value::Null).await;
    assert_eq!(rest["data"].as_array().unwrap().iter().map(|turn| &turn["id"]).collect::<Vec<_>>(), [&third["id"]]);
    for (path, status, code) in [
        ("/v1/conversations/conv_none/turns", 404, json!("conversation_not_found")),
        ("/v1/responses/resp_none/steps", 404, json!("response_not_found")),
    ] {
        let refused = server.refused("GET", path, Value::Null).await;
        assert_eq!((refused.0, refused.2), (status, code), "{path}");
    }
    for path in ["/v1/conversations?limit=0", "/v1/agents?limit=101"] {
        let refused = server.refused("GET", path, Value::Null).await;
        assert_eq!((refused.0, refused.1), (400, json!("limit")), "{path}");
    }
}

#[tokio::test]
async fn steps_say_what_ran_with_what_and_for_how_long() {
    let server = start().await;
    let response = server.json("POST", "/v1/responses", json!({ "model": "parrot", "input": "one" })).await;
    let id = response["id"].as_str().unwrap();
    let trace = server.json("GET", &format!("/v1/responses/{id}/steps"), Value::Null).await;
    let step = &trace["data"][0];
    assert_eq!((&trace["status"], &step["type"], &step["model"]), (&json!("completed"), &json!("inference"), &json!("parrot")), "{trace}");
    let times = [&trace["created_ms"], &step["started_ms"], &step["ended_ms"], &trace["ended_ms"]].map(|time| time.as_i64().unwrap());
    assert!(times.is_sorted() && times[0] > 0, "{trace}");
    assert_eq!(step["text"], response["output"][0]["content"][0]["text"]);
    assert!(trace["conversation_id"].as_str().unwrap().starts_with("conv_"));
}
