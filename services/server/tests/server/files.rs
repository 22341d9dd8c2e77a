//! `/v1/files` as a client sees it.

use axum::{Router, http::StatusCode, routing::get};
use llama_stack_proto::v1::{Image, Message, ToolResult, image::Source, part::Content};
use serde_json::{Value, json};

use crate::client::{Server, start, start_with};

const BOUNDARY: &str = "XbOuNdArYX";

/// A form with these parts: name, file name, content.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, filename, content) in parts {
        let file = filename.map_or(String::new(), |filename| format!("; filename=\"{filename}\"\r\nContent-Type: text/plain"));
        body.extend_from_slice(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn upload_as(server: &Server, principal: &str, parts: &[(&str, Option<&str>, &[u8])]) -> (u16, Value) {
    let request = server.http.post(server.url("/v1/files")).body(form(parts));
    let request = request.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    let response = request.header("x-llama-stack-principal", principal).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn upload(server: &Server, parts: &[(&str, Option<&str>, &[u8])]) -> (u16, Value) {
    upload_as(server, "anonymous", parts).await
}

#[tokio::test]
async fn a_file_is_uploaded_listed_read_and_deleted() {
    let server = start().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    // The purpose comes after the content here, before it there.
    let (status, file) = upload(&server, &[("file", Some("data.txt"), &content), ("purpose", None, b"assistants")]).await;
    assert_eq!(status, 200, "{file}");
    let id = file["id"].as_str().unwrap();
    assert!(id.starts_with("file-"));
    let told = json!({
        "id": id, "object": "file", "bytes": 3_000_000, "created_at": file["created_at"], "expires_at": null,
        "filename": "data.txt", "purpose": "assistants", "status": "processed", "status_details": null,
    });
    assert_eq!(file, told);
    let parts: [(&str, Option<&str>, &[u8]); 4] = [
        ("purpose", None, b"batch"),
        ("expires_after[anchor]", None, b"created_at"),
        ("expires_after[seconds]", None, b"3600"),
        ("file", Some("b.jsonl"), b"{}"),
    ];
    let (_, second) = upload(&server, &parts).await;
    assert_eq!(second["expires_at"].as_i64().unwrap() - second["created_at"].as_i64().unwrap(), 3600);

    let list = server.json("GET", "/v1/files?limit=1", Value::Null).await;
    assert_eq!((&list["data"], &list["has_more"], &list["last_id"]), (&json!([second]), &json!(true), &second["id"]));
    let list = server.json("GET", &format!("/v1/files?after={}", second["id"].as_str().unwrap()), Value::Null).await;
    assert_eq!((&list["data"], &list["has_more"]), (&json!([file]), &json!(false)));
    assert_eq!(server.json("GET", "/v1/files?purpose=batch&order=asc", Value::Null).await["data"], json!([second]));

    let one = format!("/v1/files/{id}");
    assert_eq!(server.json("GET", &one, Value::Null).await, file);
    let response = server.get(&format!("{one}/content")).await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename*=UTF-8''data.txt");
    assert_eq!(response.bytes().await.unwrap(), content);
    assert_eq!(server.json("DELETE", &one, Value::Null).await, json!({ "id": id, "object": "file", "deleted": true }));
    for (method, path) in [("GET", one.clone()), ("GET", format!("{one}/content")), ("DELETE", one)] {
        assert_eq!(server.refused(method, &path, Value::Null).await, (404, json!("id"), json!("file_not_found")));
    }
}

#[tokio::test]
async fn a_file_is_its_owners() {
    let server = start().await;
    let (_, file) = upload_as(&server, "ann", &[("purpose", None, b"user_data"), ("file", Some("a.txt"), b"secret")]).await;
    let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
    let ask = async |principal: &str, tenant: &str, roles: &str| {
        let request = server.http.get(server.url(&path)).header("x-llama-stack-principal", principal);
        request.header("x-llama-stack-tenant", tenant).header("x-llama-stack-roles", roles).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("ann", "default", "dev").await, 200);
    assert_eq!(ask("bob", "default", "dev").await, 404);
    assert_eq!(ask("bob", "default", "admin").await, 200);
    assert_eq!(ask("ann", "other", "admin").await, 404);
}

#[tokio::test]
async fn a_wrong_form_is_refused_with_its_field() {
    let server = start_with("files: { max_bytes: 100000 }\n").await;
    let file = ("file", Some("a.txt"), b"text".as_slice());
    let purpose = ("purpose", None, b"assistants".as_slice());
    let big = vec![b'x'; 20 << 20];
    for (parts, status, param, code) in [
        (vec![purpose], 400, "file", "missing_field"),
        (vec![file], 400, "purpose", "invalid_purpose"),
        (vec![("purpose", None, b"fun".as_slice()), file], 400, "purpose", "invalid_purpose"),
        (vec![purpose, ("file", Some("a.txt"), b"")], 400, "file", "empty_file"),
        (vec![purpose, ("file", Some("../.."), b"x")], 400, "file", "invalid_filename"),
        (vec![purpose, ("file", Some("big.txt"), &big)], 413, "file", "file_too_large"),
        (vec![purpose, ("colour", None, b"red")], 400, "colour", "unknown_field"),
    ] {
        let (told, body) = upload(&server, &parts).await;
        assert_eq!((told, &body["error"]["param"], &body["error"]["code"]), (status, &json!(param), &json!(code)), "{body}");
    }
    for seconds in ["60", "-1", "never"] {
        let parts = [purpose, ("expires_after[anchor]", None, b"created_at"), ("expires_after[seconds]", None, seconds.as_bytes()), file];
        assert_eq!(upload(&server, &parts).await.1["error"]["param"], "expires_after.seconds", "{seconds}");
    }
    let (_, named) = upload(&server, &[purpose, ("file", Some("..\\..\\etc/../passwd"), b"x")]).await;
    assert_eq!(named["filename"], "passwd");
    let response = server.post("/v1/files", &json!({ "purpose": "assistants" })).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "invalid_form");
    // Cut off within the file.
    let mut cut = form(&[purpose, ("file", Some("a.txt"), &vec![b'y'; 50_000])]);
    cut.truncate(30_000);
    let request = server.http.post(server.url("/v1/files")).header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    assert_eq!(request.body(cut).send().await.unwrap().json::<Value>().await.unwrap()["error"]["code"], "invalid_form");
    // Nothing of all that was kept but the one that was right.
    assert_eq!(server.json("GET", "/v1/files", Value::Null).await["data"], json!([named]));
    assert_eq!(server.refused("GET", "/v1/files?limit=0", Value::Null).await.1, "limit");
    assert_eq!(server.refused("GET", "/v1/files?after=!", Value::Null).await.1, "after");
}

#[tokio::test]
async fn an_image_and_what_a_function_brings_may_be_uploads() {
    let server = start().await;
    let kept = async |name: &str, content: &[u8]| {
        let (_, file) = upload(&server, &[("purpose", None, b"user_data"), ("file", Some(name), content)]).await;
        file["id"].clone()
    };
    let (cat, notes) = (kept("cat.gif", b"GIF89a cat").await, kept("notes.txt", b"all is well").await);
    let image = |id: &Value| {
        let content = json!([{ "type": "input_image", "file_id": id }]);
        json!({ "model": "parrot", "input": [{ "role": "user", "content": content }] })
    };
    server.json("POST", "/v1/responses", image(&cat)).await;
    let seen = server.script.last_asked().messages.last().unwrap().parts[0].content.clone();
    let Some(Content::Image(Image { source: Some(Source::Url(url)), .. })) = &seen else { panic!("{seen:?}") };
    assert_eq!(url, "data:image/gif;base64,R0lGODlhIGNhdA==");
    let field = json!("input[0].content[0].file_id");
    assert_eq!(server.refused("POST", "/v1/responses", image(&notes)).await, (400, field.clone(), json!("not_an_image")));
    assert_eq!(server.refused("POST", "/v1/responses", image(&json!("file-none"))).await, (404, field, json!("file_not_found")));

    let call = json!({ "type": "function_call", "call_id": "c", "name": "read", "arguments": "{}" });
    let output = json!([{ "type": "input_file", "file_id": notes }]);
    let brought = json!({ "type": "function_call_output", "call_id": "c", "output": output });
    server.json("POST", "/v1/responses", json!({ "model": "parrot", "input": [call, brought] })).await;
    let messages = server.script.last_asked().messages;
    let results: Vec<String> = messages.iter().flat_map(Message::tool_results).map(ToolResult::joined_text).collect();
    assert_eq!(results, ["File notes.txt:\n\nall is well"]);
}

#[tokio::test]
async fn a_file_in_a_chat_is_read_as_in_a_response() {
    let server = start().await;
    let (_, kept) = upload(&server, &[("purpose", None, b"user_data"), ("file", Some("notes.txt"), b"all is well")]).await;
    let chat = |role: &str, file: Value| {
        let content = json!([{ "type": "text", "text": "What does it say? " }, { "type": "file", "file": file }]);
        json!({ "model": "parrot", "messages": [{ "role": role, "content": content }] })
    };
    for (file, read) in [
        (json!({ "file_id": kept["id"] }), "File notes.txt:\n\nall is well"),
        (json!({ "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8=" }), "File a.txt:\n\nhello"),
    ] {
        server.json("POST", "/v1/chat/completions", chat("user", file)).await;
        let parts = server.script.last_asked().messages.pop().unwrap().parts;
        assert_eq!((parts[0].as_text(), parts[1].as_text()), (Some("What does it say? "), Some(read)));
    }
    for (role, file, status, field) in [
        ("user", json!({ "file_id": "file-none" }), 404, "messages[0].content[1].file.file_id"),
        ("user", json!({ "file_data": "???" }), 400, "messages[0].content[1].file.file_data"),
        ("user", json!({ "file_id": kept["id"], "file_data": "aGVsbG8=" }), 400, "messages[0].content[1].file"),
        ("user", json!({ "file_url": "http://10.1.2.3/a.pdf" }), 400, "messages[0].content[1].file"),
        ("user", Value::Null, 400, "messages[0].content[1].file"),
        ("assistant", json!({ "file_id": kept["id"] }), 400, "messages[0].content[1].type"),
    ] {
        let refused = server.refused("POST", "/v1/chat/completions", chat(role, file)).await;
        assert_eq!((refused.0, refused.1), (status, json!(field)), "{role}");
    }
}

/// The address of a site with a file.
async fn site() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gone = get(|| async { (StatusCode::GONE, "no more") });
    let site = Router::new().route("/notes.txt", get(|| async { "all is well" })).route("/gone.txt", gone);
    tokio::spawn(async move { axum::serve(listener, site).await.unwrap() });
    address
}

#[tokio::test]
async fn a_file_by_url_is_fetched_where_tools_may_and_stays_somebody_elses_word() {
    let (site, other) = (site().await, site().await);
    let server = start_with(&format!("egress:\n  allow: [\"{site}\"]\n")).await;
    let asked = |role: &str, url: String| {
        let content = json!([{ "type": "input_file", "file_url": url }]);
        json!({ "model": "parrot", "input": [{ "role": role, "content": content }] })
    };
    let answer = server.json("POST", "/v1/responses", asked("user", format!("http://{site}/notes.txt"))).await;
    let read = server.script.last_asked().messages.last().unwrap().parts[0].clone();
    assert_eq!((read.as_text(), read.provenance.as_str()), (Some("File notes.txt:\n\nall is well"), "tool:http_fetch"));
    let items = server.json("GET", &format!("/v1/responses/{}/input_items", answer["id"].as_str().unwrap()), Value::Null).await;
    assert_eq!(items["data"][0]["content"][0]["provenance"], "tool:http_fetch");

    let refused = async |role: &str, url: String| server.refused("POST", "/v1/responses", asked(role, url)).await;
    let field = json!("input[0].content[0].file_url");
    assert_eq!(refused("user", format!("http://{other}/notes.txt")).await, (403, field.clone(), json!("egress_refused")));
    assert_eq!(refused("user", format!("http://{site}/gone.txt")).await, (400, field, json!("file_not_fetched")));
    assert_eq!(refused("system", format!("http://{site}/notes.txt")).await.2, json!("untrusted_system_message"));
}
