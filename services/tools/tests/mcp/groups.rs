//! Tool groups that a tenant registers while the stack runs.

use std::sync::Arc;

use llama_stack_core::{Code, Context, Deps, Error, Registry, Result, Tools, context::Secret, manifest::Durability};
use llama_stack_proto::v1::{
    InvokeToolRequest, ListToolGroupsRequest, ListToolsRequest, RegisterToolGroupRequest, ToolGroup, UnregisterToolGroupRequest,
};
use llama_stack_store::{Sealer, Store};
use llama_stack_tools::{Groups, Router};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::until,
    server::{Generation, Seen, Server},
};

fn registry() -> Registry {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    registry
}

async fn store(folder: &TempDir) -> Store {
    Store::open(&format!("sqlite://{}/state.db", folder.path().display()), Durability::Process).await.unwrap()
}

/// A router with the calculator and the clock, over `store`.
async fn router(store: &Store, allowed: &[&str]) -> Router {
    let registry = registry();
    let builtin = registry.tools.build("inline::builtin", json!({}), Deps::new(".")).await.unwrap();
    let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
    let near = Deps { egress: serde_json::from_value(json!({ "allow": ["127.0.0.1"] })).unwrap(), ..Deps::new(".") };
    let groups = Groups::new(store.clone(), registry.tools.clone(), allowed, near).unwrap();
    Router::build(vec![("builtin".into(), builtin)]).await.unwrap().with_groups(groups)
}

async fn register(router: &Router, tenant: &str, id: &str, config: Value) -> Result<ToolGroup> {
    let request = RegisterToolGroupRequest { id: id.into(), provider_type: "remote::mcp".into(), config: config.to_string() };
    router.register_tool_group(&Context::test(tenant), request).await
}

async fn names(router: &Router, tenant: &str) -> Vec<String> {
    let listed = router.list_tools(&Context::test(tenant), ListToolsRequest::default()).await.unwrap();
    listed.tools.into_iter().map(|tool| format!("{}/{}", tool.group_id, tool.definition.unwrap().name)).collect()
}

async fn ask(router: &Router, tenant: &str) -> (bool, String) {
    let request = InvokeToolRequest { name: "weather".into(), arguments: r#"{"city":"Oslo"}"#.into(), ..InvokeToolRequest::default() };
    let response = router.invoke_tool(&Context::test(tenant), request).await.unwrap();
    (response.is_error, response.parts[0].as_text().unwrap().to_owned())
}

const OWN: [&str; 2] = ["builtin/calculator", "builtin/clock"];
const ALL: [&str; 2] = ["remote::mcp", "remote::grpc"];

fn code(error: &Error) -> (Code, Option<&str>) {
    (error.code(), error.field())
}

#[tokio::test]
async fn a_group_is_its_tenants_alone_and_outlives_a_restart() {
    let (folder, seen) = (TempDir::new().unwrap(), Seen::new(Generation::New));
    let server = Server::start(&seen).await;
    let first = store(&folder).await;
    let before = router(&first, &ALL).await;
    let group = register(&before, "a", "forecast", json!({ "url": server.url() })).await.unwrap();
    assert_eq!((group.id.as_str(), group.provider_id.as_str(), group.tool_names.len()), ("forecast", "forecast", 4));
    assert_eq!(names(&before, "a").await[..3], ["builtin/calculator", "builtin/clock", "forecast/weather"]);
    assert_eq!(ask(&before, "a").await, (false, "sunny in Oslo".into()));
    assert_eq!(names(&before, "b").await, OWN);
    let (is_error, text) = ask(&before, "b").await;
    assert!(is_error && text.contains("no tool"), "{text}");
    drop(before);
    first.close().await;

    let second = store(&folder).await;
    let after = router(&second, &ALL).await;
    assert_eq!(ask(&after, "a").await, (false, "sunny in Oslo".into()));
    assert!(ask(&after, "b").await.0);
    let groups = after.list_tool_groups(&Context::test("a"), ListToolGroupsRequest::default()).await.unwrap().groups;
    assert_eq!(groups.iter().map(|group| group.id.as_str()).collect::<Vec<_>>(), ["builtin", "forecast"]);

    let forget = |tenant: &str, id: &str| {
        let request = UnregisterToolGroupRequest { id: id.into() };
        let (cx, after) = (Context::test(tenant), &after);
        async move { after.unregister_tool_group(&cx, request).await }
    };
    assert_eq!(forget("b", "forecast").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(forget("a", "builtin").await.unwrap_err().code(), Code::FailedPrecondition);
    forget("a", "forecast").await.unwrap();
    assert_eq!(names(&after, "a").await, OWN);
    assert!(ask(&after, "a").await.0);
    drop(after);
    server.stop().await;
}

#[tokio::test]
async fn what_a_caller_may_not_register_is_refused() {
    let (folder, seen) = (TempDir::new().unwrap(), Seen::new(Generation::New));
    let server = Server::start(&seen).await;
    let store = store(&folder).await;
    let all = router(&store, &ALL).await;
    let refused = async |id: &str, config: Value| register(&all, "a", id, config).await.unwrap_err();
    let program = refused("p", json!({ "command": "sh" })).await;
    assert_eq!(code(&program), (Code::PermissionDenied, Some("config.command")));
    assert_eq!(code(&refused("p", json!({ "args": ["x"] })).await), (Code::PermissionDenied, Some("config.command")));
    assert_eq!(code(&refused("a b", json!({ "url": server.url() })).await), (Code::InvalidArgument, Some("id")));
    assert_eq!(code(&refused("p", json!([])).await), (Code::InvalidArgument, Some("config")));
    assert_eq!(code(&refused("builtin", json!({ "url": server.url() })).await), (Code::AlreadyExists, Some("id")));
    // Held, and nobody listens there.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let absent = held.local_addr().unwrap();
    assert_eq!(refused("p", json!({ "url": format!("http://{absent}/mcp") })).await.code(), Code::Unavailable);
    // A name that leads to what is closed is told as the address itself would be.
    let closed = Groups::new(store.clone(), registry().tools, vec!["remote::mcp".into()], Deps::new(".")).unwrap();
    let closed = Router::build(Vec::new()).await.unwrap().with_groups(closed);
    let error = register(&closed, "a", "p", json!({ "url": server.url().replace("127.0.0.1", "localhost") })).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::PermissionDenied, Some("egress_refused")), "{error}");
    assert!(error.message().contains("localhost:"), "{error}");
    drop(closed);

    let few = router(&store, &["remote::grpc"]).await;
    let error = register(&few, "a", "p", json!({ "url": server.url() })).await.unwrap_err();
    assert_eq!(code(&error), (Code::PermissionDenied, Some("provider_type")));
    assert!(error.message().contains("remote::grpc"), "{error}");
    let crooked = Groups::new(store.clone(), registry().tools, vec!["remote::nothing".into()], Deps::new(".")).err().unwrap();
    assert_eq!(code(&crooked), (Code::InvalidArgument, Some("tools.runtime_types[0]")));
    assert_eq!(store.list_tool_groups("a").await.unwrap(), []);
    drop((all, few));
    server.stop().await;
}

#[tokio::test]
async fn a_tool_of_a_name_that_is_taken_is_refused() {
    let (folder, seen) = (TempDir::new().unwrap(), Seen::new(Generation::New));
    let server = Server::start(&seen).await;
    let store = store(&folder).await;
    let router = router(&store, &ALL).await;
    register(&router, "a", "one", json!({ "url": server.url() })).await.unwrap();
    let again = register(&router, "a", "one", json!({ "url": server.url(), "prefix": "x-" })).await.unwrap_err();
    assert_eq!(code(&again), (Code::AlreadyExists, Some("id")));
    let twin = register(&router, "a", "two", json!({ "url": server.url() })).await.unwrap_err();
    assert_eq!((twin.code(), twin.reason()), (Code::AlreadyExists, Some("duplicate_tool")));
    assert!(twin.message().contains("weather"), "{twin}");
    register(&router, "a", "two", json!({ "url": server.url(), "prefix": "two-" })).await.unwrap();
    register(&router, "b", "two", json!({ "url": server.url() })).await.unwrap();
    *seen.tools.lock().unwrap() = vec!["calculator"];
    let stacks = register(&router, "c", "one", json!({ "url": server.url() })).await.unwrap_err();
    assert_eq!((stacks.code(), stacks.reason()), (Code::AlreadyExists, Some("duplicate_tool")));
    drop(router);
    server.stop().await;
}

#[tokio::test]
async fn a_tool_that_comes_to_shadow_another_is_not_served() {
    let (folder, seen) = (TempDir::new().unwrap(), Seen::new(Generation::New));
    let server = Server::start(&seen).await;
    let store = store(&folder).await;
    let router = router(&store, &ALL).await;
    register(&router, "a", "forecast", json!({ "url": server.url(), "list_age_seconds": 0.01 })).await.unwrap();
    *seen.tools.lock().unwrap() = vec!["weather", "calculator"];
    // Once what was listed at the registration is old.
    until("the new list, without the name that is taken", || async {
        names(&router, "a").await == ["builtin/calculator", "builtin/clock", "forecast/weather"]
    })
    .await;
    let request =
        InvokeToolRequest { name: "calculator".into(), arguments: r#"{"expression":"6*7"}"#.into(), ..InvokeToolRequest::default() };
    let response = router.invoke_tool(&Context::test("a"), request).await.unwrap();
    assert_eq!(response.parts[0].as_text(), Some("42"));
    assert!(seen.calls.lock().unwrap().is_empty());
    drop(router);
    server.stop().await;
}

#[tokio::test]
async fn a_type_that_the_manifest_no_longer_allows_is_no_longer_served() {
    let (folder, seen) = (TempDir::new().unwrap(), Seen::new(Generation::New));
    let server = Server::start(&seen).await;
    let store = store(&folder).await;
    let before = router(&store, &ALL).await;
    register(&before, "a", "forecast", json!({ "url": server.url() })).await.unwrap();
    let after = router(&store, &[]).await;
    assert_eq!(names(&after, "a").await, OWN);
    drop((before, after));
    server.stop().await;
}

#[tokio::test]
async fn a_router_without_a_store_registers_nothing() {
    let router: Arc<dyn Tools> = Arc::new(Router::new(Vec::new()));
    let error = router.register_tool_group(&Context::test("a"), RegisterToolGroupRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

const TOKEN: &str = "canary-of-a-token";

fn keys(digits: &[&str]) -> Option<Sealer> {
    Sealer::new(&digits.iter().map(|digit| Secret::new(digit.repeat(64))).collect::<Vec<_>>()).unwrap()
}

/// Files of the folder that have the token in them.
fn holding(folder: &TempDir) -> Vec<String> {
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &std::path::PathBuf| std::fs::read(path).unwrap().windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
    files.filter(holds).map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn a_groups_token_is_in_no_file_and_serves_on_after_a_restart_and_a_change_of_keys() {
    let (folder, seen) = (TempDir::new().unwrap(), Seen::new(Generation::New));
    *seen.token.lock().unwrap() = Some(TOKEN);
    let server = Server::start(&seen).await;
    let config = || json!({ "url": server.url(), "authorization": TOKEN });
    // Without a key it is not kept at all.
    let plain = store(&folder).await;
    let refused = register(&router(&plain, &ALL).await, "a", "forecast", config()).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::FailedPrecondition, Some("no_secret_key")));
    plain.close().await;

    let sealed = store(&folder).await.sealed_by(keys(&["a"]));
    let first = router(&sealed, &ALL).await;
    register(&first, "a", "forecast", config()).await.unwrap();
    assert_eq!(ask(&first, "a").await, (false, "sunny in Oslo".into()));
    assert_eq!(holding(&folder), Vec::<String>::new());
    drop(first);
    sealed.close().await;

    for wrong in [None, keys(&["b"])] {
        let locked = store(&folder).await.sealed_by(wrong);
        assert_eq!(locked.reseal().await.unwrap_err().reason(), Some("wrong_secret_key"));
        locked.close().await;
    }
    for keys in [keys(&["b", "a"]), keys(&["b"])] {
        let rotated = store(&folder).await.sealed_by(keys);
        assert_eq!(rotated.reseal().await.unwrap(), 0);
        let after = router(&rotated, &ALL).await;
        assert_eq!(ask(&after, "a").await, (false, "sunny in Oslo".into()));
        drop(after);
        rotated.close().await;
    }
    assert_eq!(holding(&folder), Vec::<String>::new());
    server.stop().await;
}
