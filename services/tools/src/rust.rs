//! Tools written in Rust: typed arguments, a schema by schemars.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use llama_stack_core::{Context, Error, Result, Tools};
use llama_stack_proto::v1::{
    self, InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, OnInterrupt, ToolDefinition,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{said, timeout, told};

/// A tool in this process.
///
/// ```
/// # use llama_stack_core::Context;
/// # use llama_stack_tools::{RustTools, Tool, ToolFailure};
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Roll {
///     /// How many sides the die has.
///     sides: u32,
/// }
///
/// struct Die;
///
/// #[async_trait::async_trait]
/// impl Tool for Die {
///     type Args = Roll;
///     const NAME: &'static str = "roll";
///     const DESCRIPTION: &'static str = "Rolls a die.";
///
///     async fn call(&self, _cx: &Context, roll: Roll) -> Result<String, ToolFailure> {
///         if roll.sides == 0 {
///             return Err("a die has at least one side".into());
///         }
///         Ok("1".into())
///     }
/// }
///
/// let tools = RustTools::new().with(Die);
/// ```
#[async_trait::async_trait]
pub trait Tool: Send + Sync + 'static {
    /// An object; its doc comments are what the model reads of each field.
    type Args: DeserializeOwned + JsonSchema + Send;
    /// 1 to 64 of `[a-zA-Z0-9_-]`.
    const NAME: &'static str;
    /// For the model: what it does, and when to use it.
    const DESCRIPTION: &'static str;

    /// The answer, as the model shall read it.
    async fn call(&self, cx: &Context, args: Self::Args) -> Result<String, ToolFailure>;

    /// As [`Tool::call`], in several texts that are one part each. Default: one.
    async fn call_parts(&self, cx: &Context, args: Self::Args) -> Result<Vec<String>, ToolFailure> {
        Ok(vec![self.call(cx, args).await?])
    }

    /// What to do with a call that a crash cut off. Default: tell the model that it may have run.
    fn on_interrupt(&self) -> OnInterrupt {
        OnInterrupt::Fail
    }

    /// Whether a call changes anything or sends out, for policies.
    fn changes_state(&self) -> bool {
        false
    }

    /// Whether what it answers may have been written by anybody, for policies.
    fn reads_untrusted(&self) -> bool {
        false
    }
}

/// How a call failed.
#[derive(Debug)]
pub enum ToolFailure {
    /// The model is told, and may try something else.
    Told(String),
    /// The platform failed: the step ends or is retried.
    Platform(Error),
}

impl From<&str> for ToolFailure {
    fn from(text: &str) -> Self {
        Self::Told(text.into())
    }
}

impl From<String> for ToolFailure {
    fn from(text: String) -> Self {
        Self::Told(text)
    }
}

impl From<Error> for ToolFailure {
    fn from(error: Error) -> Self {
        Self::Platform(error)
    }
}

/// Tools in this process, as a provider.
pub struct RustTools {
    tools: BTreeMap<&'static str, Arc<dyn Erased>>,
    limit: Duration,
}

impl Default for RustTools {
    fn default() -> Self {
        Self { tools: BTreeMap::new(), limit: Duration::from_secs(60) }
    }
}

impl RustTools {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool; one of the same name is replaced.
    #[must_use]
    pub fn with<T: Tool>(mut self, tool: T) -> Self {
        self.tools.insert(T::NAME, Arc::new(tool));
        self
    }

    /// How long a call may take. Default 60 seconds.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.tools.keys().copied().collect()
    }

    pub(crate) fn keep(&mut self, names: &[String]) {
        self.tools.retain(|name, _| names.iter().any(|kept| kept == name));
    }
}

#[async_trait::async_trait]
impl Tools for RustTools {
    async fn list_tools(&self, _cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        let tools = self.tools.values().map(|tool| tool.describe()).collect();
        crate::page(tools, &request)
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let Some(tool) = self.tools.get(request.name.as_str()) else {
            return Err(Error::not_found(format!("no tool {:?}; there is: {}", request.name, self.names().join(", "))));
        };
        let call = async {
            let panicked = || Error::internal(format!("the tool {} broke down", request.name)).with_source("it panicked");
            AssertUnwindSafe(tool.invoke(cx, &request.arguments)).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
        };
        timeout::limited(cx, &request.name, self.limit, call).await
    }
}

/// A [`Tool`] without its argument type.
#[async_trait::async_trait]
trait Erased: Send + Sync {
    fn describe(&self) -> v1::Tool;

    async fn invoke(&self, cx: &Context, arguments: &str) -> Result<InvokeToolResponse>;
}

#[async_trait::async_trait]
impl<T: Tool> Erased for T {
    fn describe(&self) -> v1::Tool {
        v1::Tool {
            definition: Some(definition::<T>()),
            on_interrupt: self.on_interrupt().into(),
            changes_state: self.changes_state(),
            reads_untrusted: self.reads_untrusted(),
            ..v1::Tool::default()
        }
    }

    async fn invoke(&self, cx: &Context, arguments: &str) -> Result<InvokeToolResponse> {
        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
        let args = match serde_json::from_str(arguments) {
            Ok(args) => args,
            Err(error) => return Ok(told(T::NAME, format!("the arguments of {} cannot be read: {error}", T::NAME))),
        };
        match self.call_parts(cx, args).await {
            Ok(texts) => Ok(InvokeToolResponse {
                parts: texts.into_iter().map(|text| said(T::NAME, text)).collect(),
                is_error: false,
                ..InvokeToolResponse::default()
            }),
            Err(ToolFailure::Told(text)) => Ok(told(T::NAME, text)),
            Err(ToolFailure::Platform(error)) => Err(error),
        }
    }
}

fn definition<T: Tool>() -> ToolDefinition {
    let mut schema = schemars::schema_for!(T::Args);
    // For the model these are noise: the tool's name says what the object is.
    schema.remove("$schema");
    schema.remove("title");
    ToolDefinition::new(T::NAME, T::DESCRIPTION, schema.as_value().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;

    #[derive(serde::Deserialize, JsonSchema)]
    struct Wait {
        /// How long, in milliseconds.
        milliseconds: u64,
    }

    struct Waits;

    #[async_trait::async_trait]
    impl Tool for Waits {
        type Args = Wait;
        const NAME: &'static str = "wait";
        const DESCRIPTION: &'static str = "Waits.";

        async fn call(&self, _cx: &Context, wait: Wait) -> Result<String, ToolFailure> {
            match wait.milliseconds {
                1 => return Err("one is too short".into()),
                2 => return Err(Error::unavailable("no clock").into()),
                3 => panic!("three"),
                _ => tokio::time::sleep(Duration::from_millis(wait.milliseconds)).await,
            }
            Ok("waited".into())
        }
    }

    async fn wait(milliseconds: u64, cx: &Context) -> Result<InvokeToolResponse> {
        wait_within(Duration::from_secs(60), milliseconds, cx).await
    }

    async fn wait_within(timeout: Duration, milliseconds: u64, cx: &Context) -> Result<InvokeToolResponse> {
        let tools = RustTools::new().with(Waits).with_timeout(timeout);
        let arguments = format!("{{\"milliseconds\":{milliseconds}}}");
        tools.invoke_tool(cx, InvokeToolRequest { name: "wait".into(), arguments, call_id: String::new() }).await
    }

    #[tokio::test]
    async fn a_failure_is_told_to_the_model_or_ends_the_step_as_the_tool_says() {
        let cx = Context::test("a");
        assert_eq!(wait(0, &cx).await.unwrap().parts[0].as_text(), Some("waited"));
        assert_eq!(wait(0, &cx).await.unwrap().parts[0].provenance, "tool:wait");
        let failed = wait(1, &cx).await.unwrap();
        assert!(failed.is_error && failed.parts[0].as_text() == Some("one is too short"));
        assert_eq!(wait(2, &cx).await.unwrap_err().code(), llama_stack_core::Code::Unavailable);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_that_call_alone() {
        let cx = Context::test("a");
        assert_eq!(wait(3, &cx).await.unwrap_err().code(), llama_stack_core::Code::Internal);
        assert!(wait(0, &cx).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_tool_is_told_and_a_passed_deadline_is_an_error() {
        let slow = wait_within(Duration::from_millis(50), 600_000, &Context::test("a")).await.unwrap();
        assert!(slow.is_error && slow.parts[0].as_text().unwrap().contains("0.05 seconds"));
        let hurried = Context::test("a").with_timeout(Duration::from_millis(5));
        assert_eq!(wait(600_000, &hurried).await.unwrap_err().code(), llama_stack_core::Code::DeadlineExceeded);
    }

    #[test]
    fn the_schema_carries_what_the_fields_say() {
        let definition = definition::<Waits>();
        assert!(definition.parameters.contains("How long, in milliseconds."), "{}", definition.parameters);
        assert!(Arguments::new(&definition).unwrap().check("{}").unwrap_err().contains("milliseconds"));
    }
}
