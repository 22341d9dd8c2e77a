use std::time::Instant;

use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Code, Context, Result, Safety};
use llama_stack_proto::v1::{GetShieldRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield};
use llama_stack_safety::reasons;

use super::{Observed, noted};

/// As metrics and spans write it.
fn outcome(response: &Result<RunShieldResponse>) -> &'static str {
    match response {
        Err(_) => "error",
        Ok(response) => match &response.violation {
            Some(violation) if reasons::is_failure(&violation.reason) => "no_verdict",
            Some(_) => "violation",
            None if response.redacted.is_some() => "redacted",
            None => "safe",
        },
    }
}

/// Who was judged by what, and how it ended: never what was judged.
fn audit(cx: &Context, shield: &str, stage: &str, outcome: &'static str) {
    let (tenant, principal, request_id) = (cx.tenant(), cx.principal().id.as_str(), cx.request_id().unwrap_or_default());
    if outcome == "safe" {
        tracing::debug!(target: "llama_stack::audit", tenant, principal, request_id, shield, stage, outcome, "shield decided");
    } else {
        tracing::info!(target: "llama_stack::audit", tenant, principal, request_id, shield, stage, outcome, "shield decided");
    }
}

#[async_trait::async_trait]
impl Safety for Observed<dyn Safety> {
    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        let (shield, stage) = (request.shield_id.clone(), request.stage().as_str_name().trim_start_matches("SHIELD_STAGE_"));
        let attributes = match &self.telemetry {
            Some(_) => {
                let stage = stage.to_lowercase();
                vec![KeyValue::new("llama_stack.shield.id", shield.clone()), KeyValue::new("llama_stack.shield.stage", stage)]
            }
            None => Vec::new(),
        };
        let (mut span, below) = self.span(cx, "run_shield", &shield, SpanKind::Internal, attributes);
        let begun = Instant::now();
        let response = self.inner.run_shield(&below, request).await;
        let outcome = outcome(&response);
        // A caller may ask for any shield; only those that there are become labels.
        if !response.as_ref().is_err_and(|error| matches!(error.code(), Code::NotFound | Code::InvalidArgument)) {
            self.metrics.verdict(&shield, outcome, begun.elapsed());
        }
        audit(cx, &shield, stage, outcome);
        if let Some(log) = &self.audit {
            log.shield(cx, &shield, stage, outcome);
        }
        if let Ok(response) = &response {
            self.metrics.judged(&shield, response.judged_bytes, response.known_bytes);
        }
        if let Some(span) = &mut span {
            span.set("llama_stack.shield.outcome", outcome);
        }
        noted(&mut span, response)
    }

    async fn list_shields(&self, cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        self.inner.list_shields(cx, request).await
    }

    async fn get_shield(&self, cx: &Context, request: GetShieldRequest) -> Result<Shield> {
        self.inner.get_shield(cx, request).await
    }
}
