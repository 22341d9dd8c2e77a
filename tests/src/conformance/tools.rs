//! What every `Tools` promises, whatever runs behind it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use llama_stack_core::{Code, Context, Error, Result, Tools};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolsRequest, Tool, part::Content};
use serde_json::Value;
use tokio::time::timeout;

/// Far longer than any answer here takes: it only tells "late" from "never".
const NEVER: Duration = Duration::from_secs(60);

/// A call that is right, and the text that answers it.
#[derive(Clone, Copy)]
pub struct Call {
    /// Its schema requires an argument.
    pub tool: &'static str,
    pub arguments: &'static str,
    pub answer: &'static str,
}

/// Runs every promise. The answers of `calls` differ.
pub async fn all(tools: Arc<dyn Tools>, calls: &[Call]) {
    lists_each_tool_once_with_its_schema(tools.clone(), calls).await;
    pages_cover_the_list_once(tools.clone()).await;
    groups_hold_the_listed_tools(tools.clone()).await;
    a_right_call_is_answered(tools.clone(), calls).await;
    an_unknown_tool_is_told_with_those_there_are(tools.clone(), calls).await;
    wrong_arguments_are_told_to_the_model(tools.clone(), calls).await;
    results_say_where_they_come_from(tools.clone(), calls).await;
    past_deadline_is_told(tools.clone(), calls).await;
    concurrent_calls_do_not_mix(tools, calls).await;
}

async fn invoke(tools: &Arc<dyn Tools>, tool: &str, arguments: &str) -> Result<InvokeToolResponse> {
    let request = InvokeToolRequest { name: tool.into(), arguments: arguments.into(), call_id: "call_1".into() };
    tools.invoke_tool(&Context::test("tenant-a"), request).await
}

fn text(response: &InvokeToolResponse) -> String {
    response.parts.iter().filter_map(|part| part.as_text()).collect()
}

async fn list(tools: &Arc<dyn Tools>, request: ListToolsRequest) -> Result<Vec<Tool>> {
    let (cx, mut request, mut all) = (Context::test("tenant-a"), request, Vec::new());
    loop {
        let page = tools.list_tools(&cx, request.clone()).await?;
        assert!(request.page_size == 0 || page.tools.len() <= request.page_size as usize);
        all.extend(page.tools);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

fn name(tool: &Tool) -> &str {
    &tool.definition.as_ref().expect("a tool without a definition").name
}

/// Names are the contract's and unique, schemas are JSON Schemas of an object, and take the calls that are right.
pub async fn lists_each_tool_once_with_its_schema(tools: Arc<dyn Tools>, calls: &[Call]) {
    let listed = list(&tools, ListToolsRequest::default()).await.unwrap();
    let names: HashSet<&str> = listed.iter().map(name).collect();
    assert_eq!(names.len(), listed.len(), "a name is there twice: {listed:?}");
    for tool in &listed {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!((1..=64).contains(&name(tool).len()) && name(tool).chars().all(allowed), "{tool:?}");
        let parameters = &tool.definition.as_ref().unwrap().parameters;
        if parameters.is_empty() {
            continue;
        }
        let schema: Value = serde_json::from_str(parameters).expect("a schema that is no JSON");
        assert!(schema.is_object(), "{tool:?}");
        let validator = jsonschema::validator_for(&schema).expect("a schema that is no JSON Schema");
        for call in calls.iter().filter(|call| call.tool == name(tool)) {
            assert!(validator.is_valid(&serde_json::from_str(call.arguments).unwrap()), "{tool:?} refuses {}", call.arguments);
        }
    }
    for call in calls {
        assert!(names.contains(call.tool), "{} is not listed", call.tool);
    }
}

/// In the list's order; a token that the list never gave is refused, and a group that there is not holds nothing.
pub async fn pages_cover_the_list_once(tools: Arc<dyn Tools>) {
    let whole = list(&tools, ListToolsRequest::default()).await.unwrap();
    let paged = list(&tools, ListToolsRequest { page_size: 1, ..ListToolsRequest::default() }).await.unwrap();
    assert_eq!(paged, whole);
    let crooked = ListToolsRequest { page_token: "no such page".into(), ..ListToolsRequest::default() };
    let error = list(&tools, crooked).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("page_token")));
    let nowhere = ListToolsRequest { group_id: "no-such-group".into(), ..ListToolsRequest::default() };
    assert!(list(&tools, nowhere).await.unwrap().is_empty());
}

/// Each tool is in one group, the one that it names; a provider without groups says so.
pub async fn groups_hold_the_listed_tools(tools: Arc<dyn Tools>) {
    let groups = match tools.list_tool_groups(&Context::test("tenant-a"), ListToolGroupsRequest::default()).await {
        Ok(response) => response.groups,
        Err(error) => return assert_eq!(error.code(), Code::Unimplemented, "{error:?}"),
    };
    let whole = list(&tools, ListToolsRequest::default()).await.unwrap();
    assert_eq!(groups.iter().map(|group| group.tool_names.len()).sum::<usize>(), whole.len());
    for group in groups {
        let of_group = list(&tools, ListToolsRequest { group_id: group.id.clone(), ..ListToolsRequest::default() }).await.unwrap();
        assert_eq!(of_group.iter().map(name).collect::<Vec<_>>(), group.tool_names);
        assert!(of_group.iter().all(|tool| tool.group_id == group.id && tool.provider_id == group.provider_id));
    }
}

pub async fn a_right_call_is_answered(tools: Arc<dyn Tools>, calls: &[Call]) {
    for call in calls {
        let response = invoke(&tools, call.tool, call.arguments).await.unwrap();
        assert_eq!((response.is_error, text(&response).as_str()), (false, call.answer));
    }
}

/// An answer to the model, or `NotFound`; either names what was asked for and what there is.
pub async fn an_unknown_tool_is_told_with_those_there_are(tools: Arc<dyn Tools>, calls: &[Call]) {
    let told = match invoke(&tools, "no_such_tool", "{}").await {
        Ok(response) => {
            assert!(response.is_error, "{response:?}");
            text(&response)
        }
        Err(error) => {
            assert_eq!(error.code(), Code::NotFound, "{error:?}");
            error.message().to_owned()
        }
    };
    assert!(told.contains("no_such_tool") && calls.iter().all(|call| told.contains(call.tool)), "{told}");
}

/// What is no JSON, no object, or breaches the schema is an answer with `is_error` that says what is wrong; never an `Err`.
pub async fn wrong_arguments_are_told_to_the_model(tools: Arc<dyn Tools>, calls: &[Call]) {
    for call in calls {
        for arguments in ["{", "not JSON", "[]", "null", "7", "{}", ""] {
            let response = invoke(&tools, call.tool, arguments).await.unwrap();
            assert!(response.is_error && !text(&response).is_empty(), "{} takes {arguments:?}: {response:?}", call.tool);
        }
    }
}

/// Every part of a result, right or wrong, is a text or an image and is labelled with its tool.
pub async fn results_say_where_they_come_from(tools: Arc<dyn Tools>, calls: &[Call]) {
    for call in calls {
        for arguments in [call.arguments, "{"] {
            let response = invoke(&tools, call.tool, arguments).await.unwrap();
            assert!(!response.parts.is_empty());
            for part in response.parts {
                assert!(matches!(part.content, Some(Content::Text(_) | Content::Image(_))), "{part:?}");
                assert_eq!(part.provenance, format!("tool:{}", call.tool));
            }
        }
    }
}

/// A call that comes after its deadline is `DeadlineExceeded`, however quick the tool is.
pub async fn past_deadline_is_told(tools: Arc<dyn Tools>, calls: &[Call]) {
    let cx = Context::test("tenant-a").with_timeout(Duration::ZERO);
    let request = InvokeToolRequest { name: calls[0].tool.into(), arguments: calls[0].arguments.into(), call_id: String::new() };
    let error = tools.invoke_tool(&cx, request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
}

/// A deadline ends a call that takes too long, with `DeadlineExceeded` and not with silence.
pub async fn deadline_ends_a_slow_call(tools: Arc<dyn Tools>, slow: InvokeToolRequest) {
    // Several, because two timers of one deadline race on the way through a socket.
    for milliseconds in 100..110 {
        let cx = Context::test("tenant-a").with_timeout(Duration::from_millis(milliseconds));
        let ended: Result<_, Error> = timeout(NEVER, tools.invoke_tool(&cx, slow.clone())).await.expect("the deadline was not kept");
        let error = ended.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    }
}

/// Calls that run at the same time each get their own answer.
pub async fn concurrent_calls_do_not_mix(tools: Arc<dyn Tools>, calls: &[Call]) {
    let many: Vec<Call> = calls.iter().cycle().take(calls.len() * 16).copied().collect();
    let answers = join_all(many.iter().map(|call| invoke(&tools, call.tool, call.arguments))).await;
    for (call, answer) in many.iter().zip(answers) {
        assert_eq!(text(&answer.unwrap()), call.answer);
    }
}
