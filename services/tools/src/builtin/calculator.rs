//! A calculator for models: arithmetic on exact whole numbers where it can be, else on 64-bit floats.

use llama_stack_core::Context;
use llama_stack_proto::v1::OnInterrupt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Tool, ToolFailure};

mod number;
mod parser;

pub(crate) struct Calculator;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    // No example: small models compute that instead.
    /// The expression alone.
    expression: String,
}

#[async_trait::async_trait]
impl Tool for Calculator {
    type Args = Args;
    const NAME: &'static str = "calculator";
    const DESCRIPTION: &'static str = "Computes an arithmetic expression: operators + - * / % ^ and parentheses; pi and e; sqrt, abs, round, \
                                       floor, ceil, exp, ln, log10, log2, sin, cos, tan, asin, acos, atan (radians), min and max.";

    async fn call(&self, _cx: &Context, args: Args) -> Result<String, ToolFailure> {
        Ok(parser::evaluate(&args.expression)?.to_string())
    }

    fn on_interrupt(&self) -> OnInterrupt {
        OnInterrupt::Retry
    }
}
