use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llama_stack_core::Error;
use llama_stack_proto::v1::{Part, ToolDefinition};

use super::*;

const SCHEMA: &str = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;

/// A provider of one tool, that counts its calls and can be switched off.
#[derive(Default)]
struct One {
    tool: &'static str,
    schema: &'static str,
    calls: AtomicUsize,
    down: AtomicBool,
    gone: AtomicBool,
}

impl One {
    fn new(tool: &'static str) -> Arc<Self> {
        Arc::new(Self { tool, schema: SCHEMA, ..Self::default() })
    }
}

#[async_trait::async_trait]
impl Tools for One {
    async fn list_tools(&self, _cx: &Context, _request: ListToolsRequest) -> Result<ListToolsResponse> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("down"));
        }
        let definition = Some(ToolDefinition::new(self.tool, "", self.schema));
        let tools = if self.gone.load(Ordering::SeqCst) { vec![] } else { vec![v1::Tool { definition, ..v1::Tool::default() }] };
        Ok(ListToolsResponse { tools, next_page_token: String::new() })
    }

    async fn invoke_tool(&self, _cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.gone.load(Ordering::SeqCst) {
            return Err(Error::not_found("gone"));
        }
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("down"));
        }
        Ok(InvokeToolResponse {
            parts: vec![Part::text(format!("{} {}", self.tool, request.arguments))],
            is_error: false,
            ..InvokeToolResponse::default()
        })
    }
}

fn router(providers: &[(&str, &Arc<One>)]) -> Router {
    Router::new(providers.iter().map(|(id, one)| ((*id).to_owned(), (*one).clone() as Arc<dyn Tools>)).collect())
}

async fn call(router: &Router, name: &str, arguments: &str) -> Result<(bool, String)> {
    let request = InvokeToolRequest { name: name.into(), arguments: arguments.into(), call_id: "c1".into() };
    let response = router.invoke_tool(&Context::test("a"), request).await?;
    Ok((response.is_error, response.parts[0].as_text().unwrap().to_owned()))
}

async fn names(router: &Router) -> Vec<(String, String)> {
    let listed = router.list_tools(&Context::test("a"), ListToolsRequest::default()).await.unwrap();
    listed.tools.iter().map(|tool| (name(tool).to_owned(), tool.provider_id.clone())).collect()
}

#[tokio::test]
async fn a_call_goes_to_the_provider_of_its_tool() {
    let (weather, stocks) = (One::new("weather"), One::new("stocks"));
    let router = router(&[("a", &weather), ("b", &stocks)]);
    assert_eq!(names(&router).await, [("weather".into(), "a".into()), ("stocks".into(), "b".into())]);
    assert_eq!(call(&router, "stocks", r#"{"city":"Oslo"}"#).await.unwrap(), (false, r#"stocks {"city":"Oslo"}"#.into()));
    assert_eq!((weather.calls.load(Ordering::SeqCst), stocks.calls.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test]
async fn wrong_calls_are_told_to_the_model_and_never_reach_the_tool() {
    let weather = One::new("weather");
    let router = router(&[("a", &weather)]);
    for (name, arguments, says) in [
        ("wether", r#"{"city":"Oslo"}"#, "there is: weather"),
        ("weather", "{city: Oslo}", "not valid JSON"),
        ("weather", "{}", "city"),
        ("weather", r#"{"city":3}"#, "/city"),
    ] {
        let (is_error, text) = call(&router, name, arguments).await.unwrap();
        assert!(is_error && text.contains(says), "{text}");
    }
    assert_eq!(weather.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_of_two_providers_is_refused_at_build_with_both() {
    let providers = vec![("a".to_owned(), One::new("weather") as Arc<dyn Tools>), ("b".to_owned(), One::new("weather") as Arc<dyn Tools>)];
    let error = Router::build(providers).await.err().unwrap();
    assert!(["\"weather\"", "\"a\"", "\"b\""].iter().all(|name| error.message().contains(name)), "{error}");
    assert_eq!((error.code(), error.field()), (Code::AlreadyExists, Some("providers[1]")));
}

#[tokio::test]
async fn a_crooked_schema_is_refused_at_build() {
    let crooked = Arc::new(One { tool: "weather", schema: "{", ..One::default() });
    let error = Router::build(vec![("a".to_owned(), crooked as Arc<dyn Tools>)]).await.err().unwrap();
    assert!(error.message().contains("JSON Schema"), "{error}");
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("providers[0]")));
}

#[tokio::test]
async fn a_dead_provider_takes_no_other_with_it() {
    let (weather, stocks) = (One::new("weather"), One::new("stocks"));
    weather.down.store(true, Ordering::SeqCst);
    let providers = vec![("a".to_owned(), weather.clone() as Arc<dyn Tools>), ("b".to_owned(), stocks as Arc<dyn Tools>)];
    let router = Router::build(providers).await.unwrap();
    assert_eq!(names(&router).await, [("stocks".into(), "b".into())]);
    let (is_error, text) = call(&router, "weather", r#"{"city":"Oslo"}"#).await.unwrap();
    assert!(is_error && text.contains("cannot be reached"), "{text}");
    weather.down.store(false, Ordering::SeqCst);
    assert!(!call(&router, "weather", r#"{"city":"Oslo"}"#).await.unwrap().0);
}

#[tokio::test]
async fn a_providers_error_stays_an_error() {
    let weather = One::new("weather");
    let router = router(&[("a", &weather)]);
    names(&router).await;
    weather.down.store(true, Ordering::SeqCst);
    names(&router).await;
    assert_eq!(call(&router, "weather", r#"{"city":"Oslo"}"#).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_tool_that_was_taken_away_is_unknown() {
    let weather = One::new("weather");
    let router = router(&[("a", &weather)]);
    names(&router).await;
    weather.gone.store(true, Ordering::SeqCst);
    let (is_error, text) = call(&router, "weather", r#"{"city":"Oslo"}"#).await.unwrap();
    assert!(is_error && text.contains("there is: none"), "{text}");
}

#[tokio::test]
async fn a_provider_is_a_group() {
    let (weather, stocks) = (One::new("weather"), One::new("stocks"));
    let router = router(&[("a", &weather), ("b", &stocks)]);
    let groups = router.list_tool_groups(&Context::test("a"), ListToolGroupsRequest::default()).await.unwrap().groups;
    let ids: Vec<&str> = groups.iter().map(|group| group.id.as_str()).collect();
    assert_eq!((ids, &groups[1].tool_names[0]), (vec!["a", "b"], &"stocks".to_owned()));
    let request = ListToolsRequest { group_id: "b".into(), ..ListToolsRequest::default() };
    assert_eq!(router.list_tools(&Context::test("a"), request).await.unwrap().tools.len(), 1);
}

/// Says more than anybody has room for: in a list without an end, or in an answer.
#[derive(Default)]
struct Vast {
    lists_on: bool,
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl Tools for Vast {
    async fn list_tools(&self, _cx: &Context, _request: ListToolsRequest) -> Result<ListToolsResponse> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let (description, next) = if self.lists_on { ("x".repeat(40 << 20), "more") } else { (String::new(), "") };
        let definition = Some(ToolDefinition::new(format!("vast_{number}"), description, ""));
        Ok(ListToolsResponse { tools: vec![v1::Tool { definition, ..v1::Tool::default() }], next_page_token: next.into() })
    }

    async fn invoke_tool(&self, _cx: &Context, _request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        Ok(InvokeToolResponse { parts: vec![Part::text("x".repeat(MAX_ANSWER_BYTES))], ..InvokeToolResponse::default() })
    }
}

#[tokio::test]
async fn a_list_without_an_end_is_left_out_before_it_fills_the_memory() {
    let (vast, weather) = (Arc::new(Vast { lists_on: true, ..Vast::default() }), One::new("weather"));
    let router = Router::new(vec![("a".into(), vast.clone() as Arc<dyn Tools>), ("b".into(), weather as Arc<dyn Tools>)]);
    assert_eq!(names(&router).await, [("weather".into(), "b".into())]);
    assert_eq!(vast.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_told_to_the_model() {
    let router = Router::new(vec![("a".into(), Arc::new(Vast::default()) as Arc<dyn Tools>)]);
    let (is_error, text) = call(&router, "vast_0", "{}").await.unwrap();
    assert!(is_error && text.contains("larger than 16 MiB"), "{} bytes", text.len());
}
