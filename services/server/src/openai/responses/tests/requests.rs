use llama_stack_core::Code;
use llama_stack_proto::v1::{CompactionStep, CreateTurnRequest, HistoryTruncation, OnDisconnect, approval, tool_choice::Mode};
use serde_json::json;

use super::{
    super::{compaction, input, items, request::CreateResponse, response::Response, tools},
    *,
};

fn asked(extra: Value) -> Result<CreateTurnRequest, llama_stack_core::Error> {
    let mut body = json!({ "model": "m", "input": "hi" });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    serde_json::from_value::<CreateResponse>(body).unwrap().into_turn()
}

fn config(extra: Value) -> AgentConfig {
    asked(extra).unwrap().config.unwrap()
}

/// The Response to a request, as it is when it begins.
fn response(extra: Value) -> Value {
    let request = asked(extra).unwrap();
    let turn = Turn { config: request.config, background: request.background, metadata: request.metadata, ..turn() };
    json!(Response::new(&turn, &[]))
}

#[test]
fn an_input_of_items_pairs_calls_and_outputs() {
    let given = json!([
        { "role": "developer", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "input_text", "text": "Both?" }] },
        { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" },
        { "type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c1", "output": "one" },
        { "type": "function_call_output", "call_id": "c2", "output": "two" },
    ]);
    let messages = input::read(serde_json::from_value(given).unwrap()).unwrap().messages;
    let roles: Vec<Role> = messages.iter().map(Message::role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool]);
    let names: Vec<&str> = messages[3].tool_results().map(|result| result.name.as_str()).collect();
    assert_eq!(names, ["f", "g"]);
    assert_eq!(items::input(&Turn { input: messages, ..turn() }).len(), 6);
}

/// A model may write on after a call; clients add the outputs behind all that it wrote.
#[test]
fn what_was_said_after_a_call_does_not_part_it_from_its_output() {
    let given = json!([
        { "role": "user", "content": "What does a bolt cost?" },
        { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "price_of", "arguments": "{}", "status": "completed" },
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
          "content": [{ "type": "output_text", "text": "I look it up.", "annotations": [] }] },
        { "type": "function_call_output", "call_id": "c1", "output": "3.75" },
        { "role": "assistant", "content": "3.75" },
        { "role": "assistant", "content": "It is in stock." },
    ]);
    let messages = input::read(serde_json::from_value(given).unwrap()).unwrap().messages;
    let roles: Vec<Role> = messages.iter().map(Message::role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Assistant, Role::Assistant]);
    assert_eq!((messages[1].joined_text().as_str(), messages[1].tool_calls().count()), ("I look it up.", 1));
}

/// What clients send who keep the history themselves: the output of a response as the next input.
#[test]
fn the_output_of_a_response_may_be_an_input() {
    let summary = CompactionStep { summary: "cats".into(), kept: vec![Message::user("kept")], ..CompactionStep::default() };
    let given = json!([
        { "type": "compaction", "id": "cmp_1", "encrypted_content": compaction::write(&summary) },
        { "type": "mcp_list_tools", "id": "mcpl_1", "server_label": "files", "tools": [] },
        { "type": "reasoning", "id": "rs_1", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
        { "type": "mcp_call", "id": "mcp_1", "server_label": "files", "name": "read", "arguments": "{}", "output": "text" },
        { "type": "mcp_call", "id": "mcp_2", "server_label": "files", "name": "read", "arguments": "{}",
          "error": { "type": "mcp_tool_execution_error", "content": [{ "type": "text", "text": "denied" }] } },
        { "type": "web_search_call", "id": "ws_1", "status": "completed", "action": { "type": "search", "query": "cats" } },
        { "type": "reasoning", "id": "rs_2", "summary": [], "content": [{ "type": "reasoning_text", "text": "so" }] },
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
          "content": [{ "type": "output_text", "text": "well", "annotations": [] }, { "type": "refusal", "refusal": "no" }] },
        { "type": "mcp_approval_request", "id": "mcpr_1", "server_label": "files", "name": "write", "arguments": "{}" },
        { "type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": false, "reason": "not today" },
    ]);
    let given = input::read(serde_json::from_value(given).unwrap()).unwrap();
    let roles: Vec<Role> = given.messages.iter().map(Message::role).collect();
    let (user, model, tool) = (Role::User, Role::Assistant, Role::Tool);
    assert_eq!(roles, [user, user, model, tool, model, tool, model]);
    assert!(given.messages[0].joined_text().ends_with("cats"));
    assert_eq!(given.messages[1].joined_text(), "kept");
    let results: Vec<(String, bool)> =
        given.messages.iter().flat_map(Message::tool_results).map(|result| (result.joined_text(), result.is_error)).collect();
    assert_eq!(results, [("text".to_owned(), false), ("denied".to_owned(), true)]);
    assert_eq!(given.messages[6].parts.len(), 3, "thinking and what it led to are one message");
    let [decision] = given.decisions.as_slice() else { panic!("{:?}", given.decisions) };
    assert_eq!((decision.approve, decision.reason.as_str()), (false, "not today"));
}

#[test]
fn what_an_answer_rests_on_comes_back_with_it() {
    let annotations = json!([
        { "type": "url_citation", "start_index": 4, "end_index": 21, "url": "https://a.example", "title": "A" },
        { "type": "file_citation", "index": 3, "file_id": "file_1", "filename": "a.md" },
    ]);
    let content = json!([{ "type": "output_text", "text": "née https://a.example", "annotations": annotations }]);
    let given = json!([{ "role": "assistant", "content": content }]);
    let messages = input::read(serde_json::from_value(given).unwrap()).unwrap().messages;
    assert_eq!((messages[0].parts[0].citations[0].start, messages[0].parts[0].citations[0].end), (5, 22));
    let items = items::input(&Turn { input: messages, ..turn() });
    assert_eq!(json!(items[0])["content"][0]["annotations"], annotations);
}

#[test]
fn an_mcp_server_is_taken_whole_and_shown_without_its_secrets() {
    let tool = json!({
        "type": "mcp", "server_label": "files", "server_url": "https://files.example/mcp", "server_description": "Files.",
        "authorization": "token-1", "headers": { "x-key": "token-2" }, "allowed_tools": { "tool_names": ["read", "write"] },
        "require_approval": { "always": { "tool_names": ["write"] }, "never": { "tool_names": ["read"] } },
    });
    let server = config(json!({ "tools": [tool] })).mcp_servers.remove(0);
    assert_eq!((server.authorization.as_str(), server.headers["x-key"].as_str()), ("token-1", "token-2"));
    assert_eq!(server.allowed_tools, ["read", "write"]);
    let approval = server.require_approval.unwrap();
    assert_eq!(
        (approval.mode(), approval.always, approval.never),
        (approval::Mode::ByTool, vec!["write".to_owned()], vec!["read".to_owned()])
    );
    let shown = response(json!({ "tools": [tool] }));
    assert!(!shown.to_string().contains("token-"), "{shown}");
    assert_eq!(shown["tools"][0]["require_approval"], tool["require_approval"]);
    let approval = |approval: Value| {
        let tool = json!({ "type": "mcp", "server_label": "a", "connector_id": "c", "require_approval": approval });
        config(json!({ "tools": [tool] })).mcp_servers[0].require_approval.as_ref().unwrap().mode()
    };
    assert_eq!([approval(json!(null)), approval(json!("never"))], [approval::Mode::Always, approval::Mode::Never]);
}

#[test]
fn a_choice_of_tools_is_taken_and_shown_again() {
    let tools = json!([
        { "type": "function", "name": "look" },
        { "type": "web_search", "search_context_size": "low" },
        { "type": "mcp", "server_label": "files", "server_url": "https://files.example", "allowed_tools": ["read", "write"] },
    ]);
    let allowed = json!([{ "type": "function", "name": "look" }, { "type": "mcp", "server_label": "files", "name": "read" }]);
    for (choice, mode, name, allowed) in [
        (json!("none"), Mode::None, "", vec![]),
        (json!({ "type": "function", "name": "look" }), Mode::Named, "look", vec![]),
        (json!({ "type": "web_search" }), Mode::Named, "web_search", vec![]),
        (json!({ "type": "mcp", "server_label": "files", "name": "read" }), Mode::Named, "read", vec![]),
        (json!({ "type": "allowed_tools", "mode": "required", "tools": allowed }), Mode::Required, "", vec!["look", "read"]),
    ] {
        let body = json!({ "tools": tools, "tool_choice": choice });
        let taken = config(body.clone()).tool_choice.unwrap();
        assert_eq!((taken.mode(), taken.name.as_str(), taken.allowed), (mode, name, allowed.into_iter().map(String::from).collect()));
        assert_eq!(response(body)["tool_choice"], choice);
    }
    let server = config(json!({ "tools": tools, "tool_choice": { "type": "mcp", "server_label": "files" } })).tool_choice.unwrap();
    assert_eq!((server.mode(), server.allowed), (Mode::Required, vec!["read".to_owned(), "write".to_owned()]));
    assert_eq!(response(json!({ "tools": tools }))["tools"][2], tools[1], "a search tool as it was asked for");
}

#[test]
fn a_search_of_files_is_taken_and_shown_again() {
    let filters = json!({ "type": "or", "filters": [{ "type": "eq", "key": "year", "value": 1814 }] });
    let tool = json!({
        "type": "file_search", "vector_store_ids": ["vs_1", "vs_2"], "max_num_results": 5, "filters": filters,
        "ranking_options": { "ranker": "weighted", "score_threshold": 0.5, "hybrid_search": { "embedding_weight": 0.75, "text_weight": 0.25 } },
    });
    let body = json!({ "tools": [tool], "tool_choice": { "type": "file_search" }, "include": ["file_search_call.results"] });
    let taken = config(body.clone());
    let search = taken.file_search.unwrap();
    assert_eq!((search.bank_ids, search.max_results, search.score_threshold), (vec!["bank_1".into(), "bank_2".into()], 5, Some(0.5)));
    assert_eq!(taken.tool_choice.unwrap().name, "file_search");
    let shown = response(body);
    assert_eq!((&shown["tools"][0], &shown["tool_choice"]), (&tool, &json!({ "type": "file_search" })));
}

#[test]
fn what_an_answer_rested_on_comes_back_with_it() {
    let annotations = json!([{ "type": "file_citation", "index": 3, "file_id": "f", "filename": "a.md", "page": 2, "quote": "q" }]);
    let given = json!([
        { "type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"], "results": null },
        { "type": "file_search_call", "id": "fs_2", "status": "completed", "queries": ["q"],
          "results": [{ "file_id": "f", "filename": "a.md", "text": "words" }] },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "n\u{e9} [1]", "annotations": annotations }] },
    ]);
    let messages = input::read(serde_json::from_value(given).unwrap()).unwrap().messages;
    assert_eq!(messages.iter().map(Message::role).collect::<Vec<_>>(), [Role::Assistant, Role::Tool, Role::Assistant]);
    let result = messages[1].tool_results().next().unwrap();
    assert_eq!((result.joined_text().as_str(), result.parts[0].provenance.as_str()), ("a.md\nwords\n\n", "retrieved:input/f"));
    assert_eq!(messages[2].parts[0].citations[0].start, 4);
    let items = json!(items::input(&Turn { input: messages, ..turn() }));
    assert_eq!(items[2]["content"][0]["annotations"], annotations);
}

#[test]
fn what_means_nothing_to_a_turn_is_said_again() {
    let said = json!({
        "user": "u", "safety_identifier": "s", "service_tier": "auto", "prompt_cache_key": "k", "truncation": "auto",
        "text": { "format": { "type": "text" }, "verbosity": "low" }, "reasoning": { "effort": "low", "summary": "auto" },
        "context_management": [{ "type": "compaction", "compact_threshold": 1000 }], "metadata": { "a": "b" }, "max_tool_calls": 3,
    });
    let shown = response(said.clone());
    for (field, value) in said.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
    assert_eq!(shown["conversation"], Value::Null);
    let long = asked(json!({ "user": "x".repeat(513) })).unwrap_err();
    assert_eq!(long.field(), Some("user"));
}

#[test]
fn a_background_response_outlives_its_client_and_must_be_stored() {
    let request = asked(json!({ "background": true })).unwrap();
    assert_eq!((request.background, request.on_disconnect()), (true, OnDisconnect::Continue));
    assert_eq!(asked(json!({})).unwrap().on_disconnect(), OnDisconnect::Cancel);
    assert_eq!(asked(json!({ "background": true, "store": false })).unwrap_err().field(), Some("store"));
}

#[test]
fn extensions_reach_the_turn() {
    let config = config(json!({
        "guardrails": ["a", { "id": "b" }, { "type": "c" }], "limits": { "max_steps": 2, "max_seconds": 3, "max_tool_calls": 4, "max_cost": 0.5 },
        "truncation": "auto",
    }));
    assert_eq!((&config.input_shields, &config.output_shields), (&vec!["a".into(), "b".into(), "c".into()], &config.input_shields));
    let limits = config.limits.unwrap();
    assert_eq!((limits.max_steps, limits.max_seconds, limits.max_tool_calls, limits.max_cost), (2, 3, 4, 0.5));
    assert_eq!(config.truncation(), HistoryTruncation::Auto);
    let agent = asked(json!({ "agent_id": "agent_1", "model": null })).unwrap();
    assert_eq!((agent.agent_id.as_str(), agent.config), ("agent_1", None));
    let stricter = asked(json!({ "agent_id": "agent_1", "guardrails": [{ "id": "a", "stages": ["input"] }] })).unwrap().config.unwrap();
    assert_eq!(stricter, AgentConfig { input_shields: vec!["a".into()], ..AgentConfig::default() });
    for field in ["temperature", "top_p"] {
        assert_eq!(asked(json!({ "agent_id": "agent_1", field: 1 })).unwrap_err().field(), Some(field));
    }
}

#[test]
fn guardrails_say_what_they_judge_and_when_the_answer_is_shown() {
    let said = json!({
        "guardrails": ["a", { "id": "b", "stages": ["input", "tool_arguments", "tool_results", "retrieved"] }],
        "moderation": { "mode": "windowed", "window_tokens": 16 },
    });
    let config = config(said.clone());
    assert_eq!((config.input_shields.join(" "), config.output_shields.join(" ")), ("a b".to_owned(), "a".to_owned()));
    let others = [&config.tool_argument_shields, &config.tool_result_shields, &config.retrieved_shields];
    assert!(others.iter().all(|list| **list == ["b"]), "{others:?}");
    let shown = response(said.clone());
    assert_eq!((&shown["guardrails"], &shown["moderation"]), (&said["guardrails"], &said["moderation"]));
    assert_eq!(response(json!({}))["moderation"], Value::Null, "nothing is said of what there is not");
    let wrong = |extra: Value| asked(extra).unwrap_err().field().unwrap_or_default().to_owned();
    assert_eq!(wrong(json!({ "guardrails": ["a", { "id": "b", "stages": ["everywhere"] }] })), "guardrails[1].stages");
    assert_eq!(wrong(json!({ "guardrails": [{ "id": "b", "stages": [] }] })), "guardrails[0].stages");
    assert_eq!(wrong(json!({ "moderation": { "mode": "never" } })), "moderation.mode");
    assert_eq!(wrong(json!({ "moderation": { "mode": "windowed", "window_tokens": 0 } })), "moderation.window_tokens");
    assert_eq!(wrong(json!({ "moderation": { "mode": "held", "window_tokens": 9 } })), "moderation.window_tokens");
}

/// Words of tools and documents that were summarised are still theirs.
#[test]
fn a_summary_that_a_client_brings_back_has_the_label_of_what_it_was_made_of() {
    let label = |provenance: &[&str]| {
        let provenance = provenance.iter().map(|label| (*label).to_owned()).collect();
        let summary = CompactionStep { summary: "cats".into(), provenance, ..CompactionStep::default() };
        let item = json!([{ "type": "compaction", "encrypted_content": compaction::write(&summary) }]);
        input::read(serde_json::from_value(item).unwrap()).unwrap().messages[0].parts[0].provenance.clone()
    };
    assert_eq!(label(&["assistant", "user"]), "user");
    assert_eq!(label(&["assistant", "retrieved:bank/doc", "user"]), "retrieved:bank/doc");
    assert_eq!(label(&["retrieved:bank/doc", "tool:look"]), "tool:several");
}

#[test]
fn what_is_wrong_or_not_here_is_refused_by_name() {
    let wrong = |extra: Value| {
        let error = asked(extra).unwrap_err();
        (error.code(), error.field().unwrap_or_default().to_owned())
    };
    let absent = |extra: Value| {
        let (code, field) = wrong(extra);
        assert_eq!(code, Code::Unimplemented, "{field}");
        field
    };
    let message = |part: Value| json!({ "input": [{ "role": "user", "content": [part] }] });
    assert_eq!(absent(json!({ "tools": [{ "type": "code_interpreter" }] })), "tools[0].type");
    let search = |more: Value| {
        let mut tool = json!({ "type": "file_search", "vector_store_ids": ["vs_1"] });
        tool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wrong(json!({ "tools": [tool] })).1
    };
    assert_eq!(search(json!({ "vector_store_ids": [] })), "tools[0].vector_store_ids");
    assert_eq!(search(json!({ "vector_store_ids": "vs_1" })), "tools[0].vector_store_ids");
    assert_eq!(search(json!({ "max_num_results": 51 })), "tools[0].max_num_results");
    assert_eq!(search(json!({ "filters": { "type": "like" } })), "tools[0].filters.type");
    assert_eq!(search(json!({ "ranking_options": { "ranker": 5 } })), "tools[0].ranking_options");
    assert_eq!(search(json!({ "ranking_options": { "score_threshold": 2 } })), "tools[0].ranking_options.score_threshold");
    assert_eq!(wrong(json!({ "tool_choice": { "type": "file_search" } })).1, "tool_choice.type");
    assert_eq!(absent(json!({ "tools": [{ "type": "web_search", "filters": { "allowed_domains": ["a.example"] } }] })), "tools[0].filters");
    assert_eq!(absent(json!({ "input": [{ "type": "computer_call_output" }] })), "input[0].type");
    assert_eq!(absent(message(json!({ "type": "input_file", "file_id": "f" }))), "input[0].content[0].type");
    let mcp = |more: Value| {
        let mut tool = json!({ "type": "mcp", "server_label": "a", "server_url": "https://a.example" });
        tool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "tools": [tool], "tool_choice": { "type": "mcp", "server_label": "a" } })
    };
    assert_eq!(absent(mcp(json!({}))), "tool_choice.name");
    assert_eq!(absent(mcp(json!({ "allowed_tools": { "read_only": true } }))), "tools[0].allowed_tools.read_only");
    assert_eq!(wrong(mcp(json!({ "require_approval": "often" }))).1, "tools[0].require_approval");
    assert_eq!(wrong(mcp(json!({ "connector_id": "c" }))).1, "tools[0].connector_id");
    assert_eq!(wrong(json!({ "tools": [{ "type": "mcp", "server_label": "a" }] })).1, "tools[0].server_url");
    assert_eq!(wrong(json!({ "input": [] })).1, "input");
    assert_eq!(wrong(json!({ "input": null })).1, "input");
    assert_eq!(wrong(json!({ "model": null })).1, "model");
    assert_eq!(wrong(json!({ "max_tool_calls": 0 })).1, "max_tool_calls");
    let number = serde_json::from_value::<CreateResponse>(json!({ "model": "m", "input": 5 })).unwrap_err().to_string();
    assert!(number.contains("expected a string or an array"), "{number}");
    assert_eq!(wrong(json!({ "input": [{ "type": "compaction", "encrypted_content": "???" }] })).1, "input[0].encrypted_content");
    assert_eq!(wrong(json!({ "tool_choice": 3 })).1, "tool_choice");
    assert_eq!(wrong(json!({ "include": ["everything"] })).1, "include[0]");
    assert_eq!(wrong(json!({ "truncation": "some" })).1, "truncation");
    assert_eq!(wrong(json!({ "context_management": [{ "type": "compaction" }] })).1, "context_management[0].compact_threshold");
    assert_eq!(wrong(json!({ "guardrails": [3] })).1, "guardrails[0]");
    assert_eq!(wrong(json!({ "limits": { "max_cost": -1.0 } })).1, "limits.max_cost");
}

#[test]
fn functions_in_a_namespace_have_its_name_in_theirs_and_give_it_back() {
    let look = json!({ "type": "function", "name": "look", "parameters": { "type": "object" } });
    let config = config(json!({ "tools": [look, { "type": "namespace", "name": "pets", "description": "Animals.", "tools": [look] }] }));
    assert_eq!(config.client_tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["look", "pets__look"]);
    let choice = |choice: Value| tools::choice(&choice, &tools::Tools::default()).unwrap().name;
    assert_eq!(choice(json!({ "type": "function", "name": "look", "namespace": "pets" })), "pets__look");
    assert_eq!(choice(json!({ "type": "function", "name": "look" })), "look");
    let calls: Vec<Part> = vec![ToolCall::new("a", "look", "{}").into(), ToolCall::new("b", "pets__look", "{}").into()];
    let said = vec![Message::new(Role::Assistant, calls)];
    let shown = json!(items::input(&Turn { config: Some(config), input: said.clone(), ..turn() }));
    assert_eq!((&shown[0]["name"], &shown[0]["namespace"]), (&json!("look"), &Value::Null));
    assert_eq!((&shown[1]["name"], &shown[1]["namespace"]), (&json!("look"), &json!("pets")));
    assert_eq!(input::read(serde_json::from_value(shown).unwrap()).unwrap().messages, said);
    let wrong = |namespace: Value| asked(json!({ "tools": [namespace] })).unwrap_err().field().unwrap_or_default().to_owned();
    assert_eq!(wrong(json!({ "type": "namespace", "name": "a b", "tools": [] })), "tools[0].name");
    assert_eq!(wrong(json!({ "type": "namespace", "name": "a" })), "tools[0].tools");
    assert_eq!(wrong(json!({ "type": "namespace", "name": "a", "tools": [{ "type": "custom", "name": "b" }] })), "tools[0].tools[0].type");
}
