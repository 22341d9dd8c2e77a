//! Vector stores, their files and batches, and search, over HTTP.

use llama_stack_core::{Context, Deps, Registry};
use llama_stack_proto::v1::{InvokeToolRequest, ListToolsRequest};
use serde_json::{Value, json};

use crate::{
    client::{Server, start_over_shelf},
    shelf::Shelf,
};

const LAWS: &str = "the king may not veto laws\nthe parliament makes laws\nevery child goes to school";
const PETS: &str = "cats sleep all day\ndogs go for walks";

async fn start() -> (Server, Shelf) {
    let shelf = Shelf::with(&[("file_laws", LAWS), ("file_pets", PETS), ("file_bad", "broken")]);
    (start_over_shelf(shelf.clone()).await, shelf)
}

async fn store(server: &Server, more: Value) -> String {
    let made = server.json("POST", "/v1/vector_stores", more).await;
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_store_is_made_changed_listed_and_deleted() {
    let (server, _) = start().await;
    let made = server
        .json(
            "POST",
            "/v1/vector_stores",
            json!({
                "name": "laws", "description": "what holds", "metadata": { "a": "b" },
                "expires_after": { "anchor": "last_active_at", "days": 7 }, "file_ids": ["file_laws", "file_bad"],
            }),
        )
        .await;
    let id = made["id"].as_str().unwrap();
    assert!(id.starts_with("vs_"), "{made}");
    assert_eq!((&made["object"], &made["name"], &made["description"]), (&json!("vector_store"), &json!("laws"), &json!("what holds")));
    assert_eq!(made["file_counts"], json!({ "in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0, "total": 2 }));
    assert_eq!(
        (&made["status"], &made["expires_after"]["days"], &made["metadata"]),
        (&json!("completed"), &json!(7), &json!({ "a": "b" }))
    );
    assert!(made["created_at"].is_i64() && made["last_active_at"].is_i64() && made["usage_bytes"].as_u64() > Some(0));

    let path = format!("/v1/vector_stores/{id}");
    assert_eq!(server.json("GET", &path, Value::Null).await, made);
    // What is left out stays, what is null goes.
    let changed = server.json("POST", &path, json!({ "name": "rules" })).await;
    assert_eq!(
        (&changed["name"], &changed["metadata"], &changed["expires_after"]["days"]),
        (&json!("rules"), &json!({ "a": "b" }), &json!(7))
    );
    let changed = server.json("POST", &path, json!({ "metadata": { "c": "d" }, "expires_after": null })).await;
    assert_eq!((&changed["metadata"], &changed["expires_after"]), (&json!({ "c": "d" }), &Value::Null));
    assert_eq!(changed["description"], "what holds");

    let (second, third) = (store(&server, json!({})).await, store(&server, json!({ "name": "c" })).await);
    let ids =
        |list: &Value| list["data"].as_array().unwrap().iter().map(|store| store["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let list = server.json("GET", "/v1/vector_stores?limit=2", Value::Null).await;
    assert_eq!((ids(&list), &list["has_more"], &list["last_id"]), (vec![third.clone(), second.clone()], &json!(true), &json!(second)));
    let list = server.json("GET", &format!("/v1/vector_stores?after={second}"), Value::Null).await;
    assert_eq!((ids(&list), &list["has_more"]), (vec![id.to_owned()], &json!(false)));
    let list = server.json("GET", &format!("/v1/vector_stores?before={second}&order=asc"), Value::Null).await;
    assert_eq!(ids(&list), [id]);

    assert_eq!(server.json("DELETE", &path, Value::Null).await, json!({ "id": id, "object": "vector_store.deleted", "deleted": true }));
    assert_eq!(server.refused("GET", &path, Value::Null).await, (404, Value::Null, json!("vector_store_not_found")));
}

#[tokio::test]
async fn files_are_added_described_and_taken_out() {
    let (server, _) = start().await;
    let store = store(&server, json!({})).await;
    let files = format!("/v1/vector_stores/{store}/files");
    let sizes = json!({ "max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50 });
    let chunking = json!({ "type": "static", "static": sizes });
    let attributes = json!({ "kind": "law", "year": 1814, "old": true });
    let body = json!({ "file_id": "file_laws", "attributes": attributes, "chunking_strategy": chunking });
    let added = server.json("POST", &files, body).await;
    assert_eq!(
        (&added["id"], &added["object"], &added["vector_store_id"]),
        (&json!("file_laws"), &json!("vector_store.file"), &json!(store))
    );
    assert_eq!((&added["status"], &added["attributes"], &added["chunking_strategy"]), (&json!("completed"), &attributes, &chunking));
    server.json("POST", &files, json!({ "file_id": "file_pets" })).await;
    let bad = server.json("POST", &files, json!({ "file_id": "file_bad" })).await;
    assert_eq!(bad["last_error"], json!({ "code": "invalid_file", "message": "the file cannot be read" }));

    let ids = async |query: &str| {
        let list = server.json("GET", &format!("{files}?{query}"), Value::Null).await;
        list["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("order=asc").await, ["file_bad", "file_laws", "file_pets"]);
    assert_eq!(ids("filter=failed").await, ["file_bad"]);
    assert_eq!(ids("order=asc&after=file_bad&limit=1").await, ["file_laws"]);
    assert_eq!(server.refused("GET", &format!("{files}?filter=lost"), Value::Null).await.1, "filter");

    let one = format!("{files}/file_laws");
    let changed = server.json("POST", &one, json!({ "attributes": { "kind": "old law" } })).await;
    assert_eq!(changed["attributes"], json!({ "kind": "old law" }));
    assert_eq!(server.json("GET", &one, Value::Null).await, changed);
    let content = server.json("GET", &format!("{one}/content"), Value::Null).await;
    let texts: Vec<&str> = content["data"].as_array().unwrap().iter().map(|part| part["text"].as_str().unwrap()).collect();
    assert_eq!(texts.join("\n"), LAWS);
    let deleted = server.json("DELETE", &one, Value::Null).await;
    assert_eq!(deleted, json!({ "id": "file_laws", "object": "vector_store.file.deleted", "deleted": true }));
    for method in ["GET", "DELETE"] {
        assert_eq!(server.refused(method, &one, Value::Null).await, (404, Value::Null, json!("file_not_found")));
    }
}

#[tokio::test]
async fn a_batch_brings_many_files() {
    let (server, _) = start().await;
    let store = store(&server, json!({})).await;
    let batches = format!("/v1/vector_stores/{store}/file_batches");
    let files = json!([{ "file_id": "file_laws", "attributes": { "kind": "law" } }, { "file_id": "file_bad" }]);
    let batch = server.json("POST", &batches, json!({ "files": files })).await;
    let id = batch["id"].as_str().unwrap();
    assert!(id.starts_with("vsfb_"), "{batch}");
    assert_eq!(batch["object"], "vector_store.files_batch");
    assert_eq!(batch["file_counts"], json!({ "in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0, "total": 2 }));
    server.json("POST", &batches, json!({ "file_ids": ["file_pets"], "attributes": { "kind": "pet" } })).await;
    assert_eq!(server.json("GET", &format!("{batches}/{id}"), Value::Null).await, batch);
    assert_eq!(server.json("POST", &format!("{batches}/{id}/cancel"), Value::Null).await["id"], id);
    let list = server.json("GET", &format!("{batches}/{id}/files?order=asc"), Value::Null).await;
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|file| &file["id"]).collect();
    assert_eq!(ids, ["file_bad", "file_laws"]);
    for (body, field) in [
        (json!({}), "file_ids"),
        (json!({ "file_ids": [] }), "file_ids"),
        (json!({ "file_ids": ["file_lost"] }), "file_ids[0]"),
        (json!({ "files": [{ "file_id": "file_lost" }] }), "files[0].file_id"),
        (json!({ "files": [{ "file_id": "file_laws" }], "attributes": {} }), "files"),
        (json!({ "file_ids": ["file_laws"], "files": [] }), "file_ids"),
    ] {
        assert_eq!(server.refused("POST", &batches, body.clone()).await.1, field, "{body}");
    }
    assert_eq!(server.refused("GET", &format!("{batches}/vsfb_0"), Value::Null).await.2, "file_batch_not_found");
}

#[tokio::test]
async fn a_search_says_what_it_found_and_where() {
    let (server, shelf) = start().await;
    let store = store(&server, json!({})).await;
    let batch = json!({ "files": [{ "file_id": "file_laws", "attributes": { "kind": "law" } }, { "file_id": "file_pets" }] });
    server.json("POST", &format!("/v1/vector_stores/{store}/file_batches"), batch).await;
    let path = format!("/v1/vector_stores/{store}/search");
    let found = server.json("POST", &path, json!({ "query": "parliament laws", "max_num_results": 2 })).await;
    assert_eq!((&found["object"], &found["search_query"]), (&json!("vector_store.search_results.page"), &json!("parliament laws")));
    assert_eq!(found["data"][0]["content"], json!([{ "type": "text", "text": "the parliament makes laws" }]));
    assert_eq!((&found["data"][0]["file_id"], &found["data"][0]["filename"]), (&json!("file_laws"), &json!("file_laws.txt")));
    assert_eq!((&found["data"][0]["attributes"], found["data"].as_array().unwrap().len()), (&json!({ "kind": "law" }), 2));

    let several = server.json("POST", &path, json!({ "query": ["dogs go", "veto"] })).await;
    assert_eq!(several["search_query"], json!(["dogs go", "veto"]));
    let files: Vec<&Value> = several["data"].as_array().unwrap().iter().map(|found| &found["file_id"]).collect();
    assert!(files.contains(&&json!("file_laws")) && files.contains(&&json!("file_pets")), "{several}");

    let filters = json!({ "type": "and", "filters": [{ "type": "eq", "key": "kind", "value": "law" }] });
    let options = json!({ "ranker": "auto", "score_threshold": 0.1, "hybrid_search": { "embedding_weight": 1, "text_weight": 3 } });
    let body = json!({ "query": "dogs go", "filters": filters, "ranking_options": options });
    assert!(server.json("POST", &path, body).await["data"].as_array().unwrap().iter().all(|found| found["file_id"] == "file_laws"));
    let asked = shelf.last_asked();
    assert_eq!((asked.score_threshold, asked.ranker.unwrap().vector_weight), (Some(0.1), Some(0.25)));
    let rewritten = json!({ "query": "dogs", "rewrite_query": true });
    server.json("POST", &path, rewritten).await;
    assert_eq!(shelf.last_asked().rewrite_model, "parrot");

    for (body, field) in [
        (json!({ "query": "" }), "query"),
        (json!({ "query": [] }), "query"),
        (json!({ "query": "x", "max_num_results": 51 }), "max_num_results"),
        (json!({ "query": "x", "filters": { "type": "like" } }), "filters.type"),
        (json!({ "query": "x", "ranking_options": { "ranker": "best" } }), "ranking_options.ranker"),
        (json!({ "query": "x", "search_mode": "best" }), "search_mode"),
    ] {
        assert_eq!(server.refused("POST", &path, body.clone()).await.1, field, "{body}");
    }
    assert_eq!(server.refused("POST", "/v1/vector_stores/vs_0/search", json!({ "query": "x" })).await.0, 404);
}

#[tokio::test]
async fn what_is_wrong_with_a_store_is_named_and_nothing_is_made() {
    let (server, _) = start().await;
    for (body, field) in [
        (json!({ "file_ids": ["file_laws", "file_lost"] }), "file_ids[1]"),
        (json!({ "expires_after": { "anchor": "created_at", "days": 1 } }), "expires_after.anchor"),
        (json!({ "expires_after": { "anchor": "last_active_at", "days": 0 } }), "expires_after.days"),
        (json!({ "name": "x".repeat(513) }), "name"),
        (json!({ "metadata": { "k": "x".repeat(513) } }), "metadata.k"),
        (
            json!({ "chunking_strategy": { "type": "static", "static": { "max_chunk_size_tokens": 1, "chunk_overlap_tokens": 0 } } }),
            "chunking_strategy.static.max_chunk_size_tokens",
        ),
    ] {
        assert_eq!(server.refused("POST", "/v1/vector_stores", body.clone()).await.1, field, "{body}");
    }
    assert_eq!(server.json("GET", "/v1/vector_stores", Value::Null).await["data"], json!([]));
    let store = store(&server, json!({})).await;
    let files = format!("/v1/vector_stores/{store}/files");
    let nested = json!({ "file_id": "file_laws", "attributes": { "a": [1] } });
    assert_eq!(server.refused("POST", &files, nested).await.1, "attributes.a");
    assert_eq!(server.refused("POST", &files, json!({ "file_id": "file_lost" })).await, (404, json!("file_id"), json!("file_not_found")));
    assert_eq!(server.refused("GET", "/v1/vector_stores/vs_0/files", Value::Null).await.2, "vector_store_not_found");
}

#[tokio::test]
async fn chunks_go_in_and_come_out_as_llama_stack_has_them() {
    let (server, _) = start().await;
    let store = store(&server, json!({})).await;
    let chunks = json!([
        { "content": "cats purr", "metadata": { "document_id": "d1", "n": 1 }, "chunk_id": "c1" },
        { "content": [{ "type": "text", "text": "dogs " }, { "type": "text", "text": "bark" }], "embedding": [0.5, 0.5],
          "chunk_metadata": { "document_id": "d2", "chunk_id": "c2", "source": "dogs.txt", "content_token_count": 2 } },
    ]);
    let put = server.json("POST", "/v1/vector-io/insert", json!({ "vector_db_id": store, "chunks": chunks })).await;
    assert_eq!((&put["inserted"], &put["chunk_ids"]), (&json!(2), &json!(["c1", "c2"])));
    let found =
        server.json("POST", "/v1/vector-io/query", json!({ "vector_db_id": store, "query": "cats", "params": { "max_chunks": 1 } })).await;
    let told = json!({ "document_id": "d1", "chunk_id": "c1" });
    let chunk = json!({ "content": "cats purr", "chunk_id": "c1", "metadata": { "document_id": "d1", "n": 1 }, "chunk_metadata": told });
    assert_eq!(found["chunks"], json!([chunk]));
    let dogs = server.json("POST", "/v1/vector-io/query", json!({ "vector_db_id": store, "query": "dogs" })).await;
    let told = json!({ "document_id": "d2", "chunk_id": "c2", "source": "dogs.txt" });
    assert_eq!((&dogs["chunks"][0]["chunk_metadata"], &dogs["chunks"][0]["metadata"]["document_id"]), (&told, &json!("d2")));
    assert_eq!(found["scores"], json!([1.0]));
    let wrong = json!({ "vector_db_id": store, "chunks": [{ "content": "a" }, { "content": "b", "embedding": [0.5] }] });
    assert_eq!(server.refused("POST", "/v1/vector-io/insert", wrong).await.1, "chunks[1]");
    for (body, field) in [
        (json!({ "vector_db_id": store, "chunks": [] }), "chunks"),
        (json!({ "vector_db_id": store, "chunks": [{ "content": 5 }] }), "chunks[0].content"),
        (json!({ "vector_db_id": store, "chunks": [{ "content": "a" }], "ttl_seconds": 0 }), "ttl_seconds"),
        (json!({ "vector_db_id": store, "chunks": [{ "content": "a", "metadata": { "a": {} } }] }), "chunks[0].metadata.a"),
        (json!({ "vector_db_id": "lost", "chunks": [{ "content": "a" }] }), "vector_db_id"),
    ] {
        assert_eq!(server.refused("POST", "/v1/vector-io/insert", body.clone()).await.1, field, "{body}");
    }
    for (body, field) in [
        (json!({ "vector_db_id": store, "query": "" }), "query"),
        (json!({ "vector_db_id": store, "query": "a", "params": { "mode": "best" } }), "params.mode"),
        (json!({ "vector_db_id": store, "query": "a", "params": { "k": 0 } }), "params.top_k"),
    ] {
        assert_eq!(server.refused("POST", "/v1/vector-io/query", body.clone()).await.1, field, "{body}");
    }
}

#[tokio::test]
async fn documents_are_ordered_by_a_model() {
    let (server, _) = start().await;
    let body = json!({ "model": "parrot", "query": "q", "documents": ["a", { "text": "much longer" }, "mid"], "top_n": 2, "return_documents": true });
    let ranked = server.json("POST", "/v1/rerank", body).await;
    let order: Vec<(&Value, &Value)> =
        ranked["results"].as_array().unwrap().iter().map(|result| (&result["index"], &result["document"]["text"])).collect();
    assert_eq!(order, [(&json!(1), &json!("much longer")), (&json!(2), &json!("mid"))]);
    assert!(ranked["results"][0]["relevance_score"].as_f64() > ranked["results"][1]["relevance_score"].as_f64());
    for (body, field) in [
        (json!({ "model": "m", "query": "q", "documents": [] }), "documents"),
        (json!({ "model": "m", "query": " ", "documents": ["a"] }), "query"),
        (json!({ "model": "m", "query": "q", "documents": ["a"], "top_n": 0 }), "top_n"),
        (json!({ "model": "m", "query": "q", "documents": [5] }), "documents[0]"),
    ] {
        assert_eq!(server.refused("POST", "/v1/rerank", body.clone()).await.1, field, "{body}");
    }
}

/// The whole way: a tool of the request, a search, an answer that says what it rests on, and the same read back.
#[tokio::test]
async fn a_response_searches_files_and_cites_them() {
    let (server, _) = start().await;
    let store = store(&server, json!({ "file_ids": ["file_laws"] })).await;
    let tools = json!([{ "type": "file_search", "vector_store_ids": [store], "max_num_results": 3 }]);
    let body = json!({ "model": "parrot", "input": "search", "tools": tools, "include": ["file_search_call.results"] });
    let answer = server.json("POST", "/v1/responses", body).await;
    let output = &answer["output"];
    assert_eq!((&output[0]["type"], &output[0]["status"]), (&json!("file_search_call"), &json!("completed")));
    assert_eq!(output[0]["queries"], json!(["veto"]));
    assert_eq!(
        (&output[0]["results"][0]["file_id"], &output[0]["results"][0]["text"]),
        (&json!("file_laws"), &json!("the king may not veto laws"))
    );
    let said = &output[1]["content"][0];
    assert_eq!(said["text"], "He may not [1].");
    let annotation = &said["annotations"][0];
    assert_eq!(
        (&annotation["type"], &annotation["file_id"], &annotation["index"]),
        (&json!("file_citation"), &json!("file_laws"), &json!(11))
    );
    assert_eq!(annotation["filename"], "file_laws.txt");
    assert_eq!(answer["tools"][0]["vector_store_ids"], json!([store]));

    let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    assert_eq!(server.json("GET", &path, Value::Null).await["output"], *output);
    let body = json!({ "model": "parrot", "input": "search", "tools": tools, "tool_choice": { "type": "file_search" } });
    let silent = server.json("POST", "/v1/responses", body).await;
    assert_eq!((&silent["output"][0]["results"], &silent["tool_choice"]), (&Value::Null, &json!({ "type": "file_search" })));
    let path = format!("/v1/responses/{}?include[]=file_search_call.results", silent["id"].as_str().unwrap());
    assert_eq!(server.json("GET", &path, Value::Null).await["output"][0]["results"], output[0]["results"]);

    let lost = json!({ "model": "parrot", "input": "search", "tools": [{ "type": "file_search", "vector_store_ids": ["vs_0"] }] });
    assert_eq!(
        server.refused("POST", "/v1/responses", lost).await,
        (404, json!("tools[0].vector_store_ids[0]"), json!("vector_store_not_found"))
    );
}

#[tokio::test]
async fn a_bank_is_a_tool_for_mcp_clients() {
    let (server, _) = start().await;
    store(&server, json!({ "name": "our laws", "file_ids": ["file_laws"] })).await;
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let config = json!({ "url": server.url("/mcp") });
    let deps = Deps { provider_id: "far".into(), ..Deps::new(".") };
    let mcp = registry.tools.build("remote::mcp", config, deps).await.unwrap();
    let cx = Context::test("default");
    let tools = mcp.list_tools(&cx, ListToolsRequest::default()).await.unwrap().tools;
    let names: Vec<String> = tools.into_iter().filter_map(|tool| Some(tool.definition?.name)).collect();
    assert_eq!(names, ["search_our_laws"]);
    let search = async |arguments: Value| {
        let call = InvokeToolRequest { name: "search_our_laws".into(), arguments: arguments.to_string(), ..InvokeToolRequest::default() };
        mcp.invoke_tool(&cx, call).await.unwrap()
    };
    let found = search(json!({ "query": "school", "max_results": 1 })).await;
    assert_eq!(found.parts[0].as_text().unwrap(), "file_laws.txt\nevery child goes to school");
    for wrong in [json!({}), json!({ "query": "x", "max_results": 0 })] {
        assert!(search(wrong).await.is_error);
    }
}

#[tokio::test]
async fn a_file_in_an_input_is_read() {
    let (server, _) = start().await;
    let input = |part: Value| json!({ "model": "parrot", "input": [{ "role": "user", "content": [part] }] });
    for data in ["data:text/plain;base64,aGVsbG8=", "aGVsbG8="] {
        server.json("POST", "/v1/responses", input(json!({ "type": "input_file", "filename": "a.txt", "file_data": data }))).await;
        assert_eq!(server.script.last_asked().messages.last().unwrap().joined_text(), "File a.txt:\n\nhello");
    }
    for (part, field) in [
        (json!({ "file_data": "???" }), "input[0].content[0].file_data"),
        (json!({ "file_data": "" }), "input[0].content[0]"),
        (json!({ "file_id": "file_lost" }), "input[0].content[0].file_id"),
        (json!({ "file_url": "http://10.1.2.3/a.pdf" }), "input[0].content[0].file_url"),
        (json!({ "file_url": "a.pdf" }), "input[0].content[0].file_url"),
        (json!({ "file_id": "file_laws", "file_data": "aGVsbG8=" }), "input[0].content[0]"),
    ] {
        let mut part = part;
        part["type"] = "input_file".into();
        assert_eq!(server.refused("POST", "/v1/responses", input(part.clone())).await.1, field, "{part}");
    }
}
