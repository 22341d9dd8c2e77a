//! Prometheus metrics of one stack. Each stack has a recorder of its own: nothing is installed for the process.

use std::{sync::Arc, time::Duration};

use metrics::{Key, Label, Level, Metadata, Recorder as _, SharedString};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use llama_stack_inference::Pools;
use llama_stack_proto::v1::Usage;

use crate::identity::tls::Failure;

const REQUESTS: &str = "llama_stack_requests_total";
const DURATION: &str = "llama_stack_request_duration_seconds";
const IN_FLIGHT: &str = "llama_stack_requests_in_flight";
const TOKENS: &str = "llama_stack_tokens_total";
const FIRST_TOKEN: &str = "llama_stack_time_to_first_token_seconds";
const PER_TOKEN: &str = "llama_stack_time_per_output_token_seconds";
const GENERATED: &str = "llama_stack_generation_seconds";
const REFUSED: &str = "llama_stack_requests_refused_total";
const CONNECTIONS_REFUSED: &str = "llama_stack_connections_refused_total";
const HANDSHAKES_FAILED: &str = "llama_stack_tls_handshakes_failed_total";
const VERDICTS: &str = "llama_stack_shield_verdicts_total";
const JUDGED: &str = "llama_stack_shield_bytes_total";
const JUDGING: &str = "llama_stack_shield_seconds";
const GENERATING: &str = "llama_stack_generations_in_flight";
const UPSTREAM_REQUESTS: &str = "llama_stack_upstream_requests_total";
const UPSTREAM_OUTSTANDING: &str = "llama_stack_upstream_outstanding";
const UPSTREAM_UP: &str = "llama_stack_upstream_up";
const UPSTREAM_STATE: &str = "llama_stack_upstream_state";
const POOL_RETRIES: &str = "llama_stack_pool_retries_total";

/// Of the breaker of a pool's upstream, as [`llama_stack_inference::UpstreamFigures`] names them.
const STATES: [&str; 3] = ["closed", "open", "half_open"];

/// Seconds; from a pass-through to a long generation.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    in_flight: metrics::Gauge,
    generating: metrics::Gauge,
    /// Asked for their figures when these are read.
    pools: Pools,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // Buckets are constant and not empty, which is all that can be refused here.
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let describe = |name: &'static str, text: &'static str| (metrics::KeyName::from_const_str(name), SharedString::const_str(text));
        for (name, text) in [
            describe(REQUESTS, "Requests by route, method and code."),
            describe(
                REFUSED,
                "Requests that limits refused, by reason: overloaded, rate_limit_exceeded, insufficient_quota, too_many_wrong_credentials.",
            ),
            describe(CONNECTIONS_REFUSED, "Connections that were closed at once, by the limit that left no place: max, per_address."),
            describe(
                HANDSHAKES_FAILED,
                "TLS handshakes that failed, by reason: certificate (of the client), alert, protocol, closed, timeout.",
            ),
            describe(TOKENS, "Tokens read (input) and generated (output), by model."),
            describe(VERDICTS, "Verdicts by shield and outcome: safe, violation, redacted, no_verdict, error."),
            describe(JUDGED, "Bytes of text by shield: judged, or known from before."),
            describe(UPSTREAM_REQUESTS, "Requests to the upstreams of pools, by outcome: answered, failed, refused (asked to come later)."),
            describe(POOL_RETRIES, "Requests that a pool asked again of another upstream, or would have (over_budget)."),
        ] {
            recorder.describe_counter(name, None, text);
        }
        for (name, text) in [
            describe(DURATION, "Seconds from a request's head to the end of its answer."),
            describe(FIRST_TOKEN, "Seconds from a streamed generation's start to its first event, by model."),
            describe(PER_TOKEN, "Seconds between the tokens of a streamed answer after its first, by model."),
            describe(GENERATED, "Seconds that an operation of a model took, by model and operation."),
            describe(JUDGING, "Seconds that a verdict took, by shield."),
        ] {
            recorder.describe_histogram(name, None, text);
        }
        for (name, text) in [
            describe(IN_FLIGHT, "Requests whose answer is not done."),
            describe(GENERATING, "Generations that wait for a model or are written by one: the depth of the queue."),
            describe(UPSTREAM_OUTSTANDING, "Requests under way at an upstream of a pool."),
            describe(
                UPSTREAM_STATE,
                "1 for the state of the breaker of an upstream of a pool (closed, open, half_open), 0 for the others.",
            ),
            describe(UPSTREAM_UP, "1 where an upstream of a pool answers its probes and its breaker is closed, else 0."),
        ] {
            recorder.describe_gauge(name, None, text);
        }
        // There from the start, so that the first is seen as a change.
        for limit in ["max", "per_address"] {
            recorder.register_counter(&refused_connections(limit), &METADATA).increment(0);
        }
        for reason in Failure::REASONS {
            recorder.register_counter(&failed_handshakes(reason), &METADATA).increment(0);
        }
        let in_flight = recorder.register_gauge(&Key::from_static_name(IN_FLIGHT), &METADATA);
        let generating = recorder.register_gauge(&Key::from_static_name(GENERATING), &METADATA);
        Self(Arc::new(Inner { handle: recorder.handle(), recorder, in_flight, generating, pools: Pools::default() }))
    }

    /// Where pools of upstreams enter themselves, to be counted here.
    pub(crate) fn pools(&self) -> &Pools {
        &self.0.pools
    }

    /// One more request; [`Metrics::ended`] takes it away.
    pub(crate) fn begun(&self) {
        self.0.in_flight.increment(1.0);
    }

    /// `route` as it was registered, never as it was asked for: labels are bounded.
    pub(crate) fn ended(&self, route: &SharedString, method: &'static str, code: SharedString, took: Duration) {
        self.0.in_flight.decrement(1.0);
        let labels = vec![Label::new("route", route.clone()), Label::from_static_parts("method", method), Label::new("code", code)];
        self.0.recorder.register_counter(&Key::from_parts(REQUESTS, labels), &METADATA).increment(1);
        let key = Key::from_parts(DURATION, vec![Label::new("route", route.clone())]);
        self.0.recorder.register_histogram(&key, &METADATA).record(took);
    }

    /// `reason` is one of the limits', so that labels are bounded.
    pub(crate) fn refused(&self, reason: String) {
        let key = Key::from_parts(REFUSED, vec![Label::new("reason", reason)]);
        self.0.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// `limit`: which left it no place.
    pub(crate) fn connection_refused(&self, limit: &'static str) {
        self.0.recorder.register_counter(&refused_connections(limit), &METADATA).increment(1);
    }

    /// `reason` is one of [`Failure::REASONS`].
    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        self.0.recorder.register_counter(&failed_handshakes(reason), &METADATA).increment(1);
    }

    /// `model` is one that answered, so that labels are bounded.
    pub(crate) fn tokens(&self, model: &str, usage: &Usage) {
        // Cached tokens are a part of the input: their share is the hit ratio of the prefix cache.
        let counts = [("input", usage.prompt_tokens), ("output", usage.completion_tokens), ("cached", usage.cached_tokens)];
        for (direction, count) in counts {
            if count > 0 {
                let labels = vec![Label::new("model", model.to_owned()), Label::from_static_parts("direction", direction)];
                self.0.recorder.register_counter(&Key::from_parts(TOKENS, labels), &METADATA).increment(count.into());
            }
        }
    }

    pub(crate) fn first_token(&self, model: &str, took: Duration) {
        let key = Key::from_parts(FIRST_TOKEN, vec![Label::new("model", model.to_owned())]);
        self.0.recorder.register_histogram(&key, &METADATA).record(took);
    }

    pub(crate) fn per_token(&self, model: &str, took: Duration) {
        let key = Key::from_parts(PER_TOKEN, vec![Label::new("model", model.to_owned())]);
        self.0.recorder.register_histogram(&key, &METADATA).record(took);
    }

    /// `operation`: `chat`, `text_completion` or `embeddings`.
    pub(crate) fn generated(&self, model: &str, operation: &'static str, took: Duration) {
        let labels = vec![Label::new("model", model.to_owned()), Label::from_static_parts("operation", operation)];
        self.0.recorder.register_histogram(&Key::from_parts(GENERATED, labels), &METADATA).record(took);
    }

    /// `shield` is one that there is, so that labels are bounded.
    pub(crate) fn verdict(&self, shield: &str, outcome: &'static str, took: Duration) {
        let labels = vec![Label::new("shield", shield.to_owned()), Label::from_static_parts("outcome", outcome)];
        self.0.recorder.register_counter(&Key::from_parts(VERDICTS, labels), &METADATA).increment(1);
        let key = Key::from_parts(JUDGING, vec![Label::new("shield", shield.to_owned())]);
        self.0.recorder.register_histogram(&key, &METADATA).record(took);
    }

    /// What a verdict cost.
    pub(crate) fn judged(&self, shield: &str, judged: u64, known: u64) {
        for (what, bytes) in [("judged", judged), ("known", known)] {
            if bytes > 0 {
                let labels = vec![Label::new("shield", shield.to_owned()), Label::from_static_parts("verdict", what)];
                self.0.recorder.register_counter(&Key::from_parts(JUDGED, labels), &METADATA).increment(bytes);
            }
        }
    }

    /// One more generation that waits for a model or is written by one, until the value is dropped.
    pub(crate) fn generating(&self) -> Generating {
        self.0.generating.increment(1.0);
        Generating(self.0.generating.clone())
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> String {
        self.read_pools();
        self.0.handle.render()
    }

    fn read_pools(&self) {
        let counter = |name: &'static str, labels: Vec<Label>| self.0.recorder.register_counter(&Key::from_parts(name, labels), &METADATA);
        let gauge = |name: &'static str, labels: Vec<Label>| self.0.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA);
        for pool in self.0.pools.figures() {
            let of_pool = |outcome: &'static str| vec![Label::new("pool", pool.pool.clone()), Label::from_static_parts("outcome", outcome)];
            counter(POOL_RETRIES, of_pool("taken")).absolute(pool.retries);
            counter(POOL_RETRIES, of_pool("over_budget")).absolute(pool.over_budget);
            for upstream in &pool.upstreams {
                let labels = || vec![Label::new("pool", pool.pool.clone()), Label::new("upstream", upstream.id.clone())];
                for (outcome, count) in [("answered", upstream.answered), ("failed", upstream.failed), ("refused", upstream.refused)] {
                    let labels = [labels(), vec![Label::from_static_parts("outcome", outcome)]].concat();
                    counter(UPSTREAM_REQUESTS, labels).absolute(count);
                }
                gauge(UPSTREAM_OUTSTANDING, labels()).set(f64::from(upstream.outstanding));
                gauge(UPSTREAM_UP, labels()).set(f64::from(u8::from(upstream.works())));
                for state in STATES {
                    let labels = [labels(), vec![Label::from_static_parts("state", state)]].concat();
                    gauge(UPSTREAM_STATE, labels).set(f64::from(u8::from(upstream.state == state)));
                }
            }
        }
    }

    /// Folds what was recorded into its buckets. Has to be called now and then: records pile up until it is.
    pub(crate) fn fold(&self) {
        self.0.handle.run_upkeep();
    }
}

fn refused_connections(limit: &'static str) -> Key {
    Key::from_parts(CONNECTIONS_REFUSED, vec![Label::from_static_parts("limit", limit)])
}

fn failed_handshakes(reason: &'static str) -> Key {
    Key::from_parts(HANDSHAKES_FAILED, vec![Label::from_static_parts("reason", reason)])
}

/// A generation that is not done.
pub(crate) struct Generating(metrics::Gauge);

impl Drop for Generating {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stacks_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.begun();
        one.ended(&"/livez".into(), "GET", "200".into(), Duration::from_millis(1));
        assert!(one.render().contains(r#"llama_stack_requests_total{route="/livez",method="GET",code="200"} 1"#), "{}", one.render());
        assert!(one.render().contains("llama_stack_requests_in_flight 0"));
        assert!(!other.render().contains("/livez"));
    }
}
