//! `llama-stack ps`: what a running stack runs.

use llama_stack_core::{Result, Stack, grpc::Remote};
use llama_stack_inference::UpstreamFigures;
use llama_stack_proto::v1::{GetInfoRequest, Model, StackInfo, inference_client::InferenceClient, stack_client::StackClient};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::ServerArgs,
    model,
    output::{Output, Tone},
    reach,
    table::table,
};

#[derive(Serialize)]
struct Report {
    name: String,
    version: String,
    uptime_seconds: u64,
    models: Vec<Row>,
}

/// A model: what its provider says of it.
#[derive(Serialize)]
struct Row {
    id: String,
    kind: String,
    provider: String,
    engine: String,
    /// Why this engine was taken, where there was a choice.
    engine_reason: String,
    state: String,
    /// That run, and that wait for their turn.
    requests: String,
    waiting: String,
    context_length: u32,
    memory_bytes: Option<u64>,
    /// Share of all prompt tokens that did not have to be read again.
    prefix_hits: Option<f64>,
    /// Of a pool: those that have the model, as they were when it was last asked for its models.
    upstreams: Vec<UpstreamFigures>,
}

pub(crate) async fn run(args: ServerArgs, output: &Output) -> Result<()> {
    let channel = reach::connect(&args.server)?;
    let (cx, stack) = (crate::caller::caller(), Remote::<StackClient<Channel>>::new(channel.clone()));
    let info = stack.get_info(&cx, GetInfoRequest {}).await.map_err(|error| reach::explained(error, &args.server))?;
    let models = {
        let _working = output.working("asking each model");
        model::all(&Remote::<InferenceClient<Channel>>::new(channel)).await.map_err(|error| reach::explained(error, &args.server))?
    };
    output.result(&report(info, models), |report| coloured(&text(report), output))
}

fn report(info: StackInfo, models: Vec<Model>) -> Report {
    let models = models.into_iter().map(row).collect();
    Report { name: info.name, version: info.version, uptime_seconds: info.uptime_seconds, models }
}

fn row(model: Model) -> Row {
    let said = |key: &str| model.metadata.get(key).cloned().unwrap_or_default();
    let number = |key: &str| said(key).parse::<u64>().ok();
    let read = number("prompt_tokens").filter(|read| *read > 0);
    let prefix_hits = number("cached_tokens").zip(read).map(|(cached, read)| cached as f64 / read as f64);
    Row {
        kind: model::kind(&model),
        engine: said("engine"),
        engine_reason: said("engine_reason"),
        state: said("state"),
        requests: said("requests"),
        waiting: said("waiting"),
        memory_bytes: number("memory_bytes"),
        prefix_hits,
        upstreams: serde_json::from_str(&said("upstreams")).unwrap_or_default(),
        context_length: model.context_length,
        provider: model.provider_id,
        id: model.id,
    }
}

fn text(report: &Report) -> String {
    let mut text = format!("{} {} - up {} s\n", report.name, report.version, report.uptime_seconds);
    let head = ["MODEL", "KIND", "PROVIDER", "ENGINE", "STATE", "REQUESTS", "WAITING", "CONTEXT", "MEMORY", "HITS", "WHY"];
    let rows = report.models.iter().map(|row| {
        let memory = row.memory_bytes.map(|bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        let hits = row.prefix_hits.map(|hits| format!("{:.0} %", hits * 100.0));
        let context = (row.context_length > 0).then(|| row.context_length.to_string());
        let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        [
            row.id.clone(),
            row.kind.clone(),
            row.provider.clone(),
            shown(&row.engine),
            shown(&row.state),
            shown(&row.requests),
            shown(&row.waiting),
            or_dash(context),
            or_dash(memory),
            or_dash(hits),
            row.engine_reason.clone(),
        ]
    });
    text.push_str(&table(head, rows));
    let upstreams: Vec<[String; 7]> =
        report.models.iter().flat_map(|row| row.upstreams.iter().map(move |one| upstream(&row.id, one))).collect();
    if !upstreams.is_empty() {
        text.push('\n');
        text.push_str(&table(["UPSTREAM", "MODEL", "STATE", "REQUESTS", "ANSWERED", "FAILED", "REFUSED"], upstreams));
    }
    text
}

/// The first line says that it runs; the head of the table steps back behind its rows.
fn coloured(text: &str, output: &Output) -> String {
    let paint = |(at, line): (usize, &str)| match at {
        0 => output.paint(Tone::Good, line),
        1 => output.paint(Tone::Faint, line),
        _ => line.to_owned(),
    };
    text.lines().enumerate().map(|line| paint(line) + "\n").collect()
}

fn upstream(model: &str, one: &UpstreamFigures) -> [String; 7] {
    // Of its breaker; a closed one whose upstream does not answer probes is no good news.
    let state = if one.healthy || one.state != "closed" { one.state.clone() } else { "unhealthy".into() };
    let [outstanding, answered, failed, refused] =
        [u64::from(one.outstanding), one.answered, one.failed, one.refused].map(|n| n.to_string());
    [one.id.clone(), model.to_owned(), state, outstanding, answered, failed, refused]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_a_line_and_says_what_it_is_known_to_do() {
        let metadata = [
            ("engine", "llama.cpp"),
            ("state", "loaded"),
            ("requests", "2"),
            ("waiting", "1"),
            ("prompt_tokens", "200"),
            ("cached_tokens", "150"),
        ];
        let local = Model {
            id: "m".into(),
            provider_id: "local".into(),
            kind: 1,
            context_length: 4096,
            metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Model::default()
        };
        let figures = r#"[{"id":"vllm/a","state":"open","healthy":true,"outstanding":2,"answered":7,"failed":5,"refused":1}]"#;
        let pooled = Model { metadata: [("upstreams".to_owned(), figures.to_owned())].into(), id: "p".into(), ..local.clone() };
        let remote = Model { id: "far/away".into(), provider_id: "vllm".into(), kind: 1, ..Model::default() };
        let info = StackInfo { name: "t".into(), version: "1.2.3".into(), uptime_seconds: 5, ..StackInfo::default() };
        let text = text(&report(info, vec![local, remote, pooled]));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["t", "1.2.3", "-", "up", "5", "s"]);
        assert_eq!(lines[2], ["m", "chat", "local", "llama.cpp", "loaded", "2", "1", "4096", "-", "75", "%"]);
        assert_eq!(lines[3], ["far/away", "chat", "vllm", "-", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(lines[6], ["UPSTREAM", "MODEL", "STATE", "REQUESTS", "ANSWERED", "FAILED", "REFUSED"]);
        assert_eq!(lines[7], ["vllm/a", "p", "open", "2", "7", "5", "1"]);
    }
}
