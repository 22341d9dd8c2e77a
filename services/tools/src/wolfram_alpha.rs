//! `remote::wolfram-alpha`: computed answers, by Wolfram|Alpha's LLM API.
//! Source: <https://products.wolframalpha.com/llm-api/documentation>.

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Result, Tools};
use llama_stack_egress::Request;
use llama_stack_proto::v1::OnInterrupt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    RustTools, Tool, ToolFailure,
    service::{Config, Service},
};

/// Of an answer; the API's own default.
const MAX_CHARS: usize = 6_800;

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    let service = Service::new("Wolfram|Alpha", "https://www.wolframalpha.com", config, deps)?;
    Ok(Arc::new(RustTools::new().with(WolframAlpha(service))))
}

struct WolframAlpha(Service);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Args {
    /// In English and in few words, for example: distance from Earth to Mars; or a formula: integrate x^2 sin x.
    query: String,
}

#[async_trait::async_trait]
impl Tool for WolframAlpha {
    type Args = Args;
    const NAME: &'static str = "wolfram_alpha";
    const DESCRIPTION: &'static str =
        "Asks Wolfram|Alpha: mathematics, units, dates, and facts about science, places, people and the economy.";

    async fn call(&self, cx: &Context, args: Args) -> Result<String, ToolFailure> {
        if args.query.trim().is_empty() {
            return Err("query is empty; say what to compute".into());
        }
        let mut url = self.0.endpoint("api/v1/llm-api");
        url.query_pairs_mut().append_pair("input", args.query.trim()).append_pair("maxchars", &MAX_CHARS.to_string());
        let response = self.0.send(cx, Request::get(url).with_bearer(self.0.key(cx)?)?).await?;
        let text = String::from_utf8_lossy(&response.body);
        let text: String = text.trim().chars().take(MAX_CHARS).collect();
        match response.status {
            200 if !text.is_empty() => Ok(text),
            // Not a failure of the service: it could not read the question, and says what it might be.
            200 | 501 if text.is_empty() => Err("Wolfram|Alpha has no answer to this; say it in other words".into()),
            501 => Err(ToolFailure::Told(text)),
            _ => Err(self.0.refusal(cx, &response)),
        }
    }

    fn on_interrupt(&self) -> OnInterrupt {
        OnInterrupt::Retry
    }

    fn reads_untrusted(&self) -> bool {
        true
    }
}
