//! `inline::builtin`: tools that need nothing but this process.

use std::sync::Arc;

use llama_stack_core::{Deps, Error, Result, Tools};
use serde::Deserialize;

use crate::RustTools;

mod calculator;
mod clock;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Which of them. Default: all.
    tools: Option<Vec<String>>,
}

pub(crate) async fn build(config: Config, _deps: Deps) -> Result<Arc<dyn Tools>> {
    let mut tools = RustTools::new().with(calculator::Calculator).with(clock::Clock);
    if let Some(wanted) = config.tools {
        let there = tools.names();
        if let Some((at, name)) = wanted.iter().enumerate().find(|(_, name)| !there.contains(&name.as_str())) {
            let message = format!("no built-in tool {name:?}; there is: {}", there.join(", "));
            return Err(Error::invalid(format!("config.tools[{at}]"), message));
        }
        tools.keep(&wanted);
    }
    Ok(Arc::new(tools))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_stack_core::Context;
    use llama_stack_proto::v1::ListToolsRequest;

    async fn names(config: &str) -> Result<Vec<String>> {
        let tools = build(serde_json::from_str(config).unwrap(), Deps::new(".")).await?;
        let listed = tools.list_tools(&Context::system(), ListToolsRequest::default()).await?;
        Ok(listed.tools.iter().map(|tool| crate::name(tool).to_owned()).collect())
    }

    #[tokio::test]
    async fn the_manifest_chooses_the_tools() {
        assert_eq!(names("{}").await.unwrap(), ["calculator", "clock"]);
        assert_eq!(names(r#"{"tools":["clock"]}"#).await.unwrap(), ["clock"]);
        let error = names(r#"{"tools":["clock","abacus"]}"#).await.unwrap_err();
        assert_eq!((error.field(), error.message().contains("calculator")), (Some("config.tools[1]"), true));
    }
}
