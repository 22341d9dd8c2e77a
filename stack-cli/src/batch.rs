//! `llama-stack batch`: requests in a file, run by a running stack in the background.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use llama_stack_core::{Batches as _, Code, Error, Result, grpc::Remote};
use llama_stack_proto::v1::{
    Batch, BatchError, BatchStatus, CancelBatchRequest, CreateBatchRequest, GetBatchRequest, ListBatchesRequest,
    batches_client::BatchesClient,
};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::{BatchCreateArgs, BatchVerb, ToArgs},
    caller::caller,
    file::{Files, seconds},
    named::pair,
    output::Output,
    reach,
    table::{table, told},
};

type Client = Remote<BatchesClient<Channel>>;

/// How often a batch is looked at that is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// How long a stack may be away, as one that starts anew is, before who waits gives up.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Largest page.
const PAGE: u32 = 100;
/// What ids of files begin with.
const FILE: &str = "file-";

/// A batch, for people and programs.
#[derive(Serialize)]
struct Row {
    id: String,
    status: &'static str,
    endpoint: String,
    /// That answered; none yet, or several.
    model: Option<String>,
    total: u64,
    completed: u64,
    failed: u64,
    usage: Option<Usage>,
    input_file_id: String,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
    completion_window: String,
    created: Option<String>,
    expires: Option<String>,
    ended: Option<String>,
    metadata: BTreeMap<String, String>,
    errors: Vec<Mistake>,
}

#[derive(Serialize)]
struct Usage {
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    total_tokens: u64,
}

/// What is wrong with the input.
#[derive(Serialize)]
struct Mistake {
    code: String,
    message: String,
    field: Option<String>,
    line: Option<u64>,
}

impl From<Batch> for Row {
    fn from(batch: Batch) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let mistake = |error: BatchError| Mistake {
            code: error.code,
            message: error.message,
            field: some(error.field),
            line: Some(error.line).filter(|line| *line > 0),
        };
        Self {
            status: batch.status().word(),
            usage: batch.usage.as_ref().map(|usage| Usage {
                input_tokens: usage.input_tokens,
                cached_tokens: usage.cached_tokens,
                output_tokens: usage.output_tokens,
                reasoning_tokens: usage.reasoning_tokens,
                total_tokens: usage.total_tokens(),
            }),
            id: batch.id,
            endpoint: batch.endpoint,
            model: some(batch.model),
            total: batch.total,
            completed: batch.completed,
            failed: batch.failed,
            input_file_id: batch.input_file_id,
            output_file_id: some(batch.output_file_id),
            error_file_id: some(batch.error_file_id),
            completion_window: batch.completion_window,
            created: batch.created.map(told),
            expires: batch.expires.map(told),
            ended: batch.ended.map(told),
            metadata: batch.metadata.into_iter().collect(),
            errors: batch.errors.into_iter().map(mistake).collect(),
        }
    }
}

pub(crate) async fn run(verb: BatchVerb, output: &Output) -> Result<()> {
    match verb {
        BatchVerb::Create(args) => create(args, output).await,
        BatchVerb::List { limit, server } => Stack::at(&server.server)?.list(limit, output).await,
        BatchVerb::Show { batch, watch, server } => {
            let stack = Stack::at(&server.server)?;
            if watch {
                return stack.watch(&batch, output).await;
            }
            output.result(&Row::from(stack.get(&batch).await?), shown)
        }
        BatchVerb::Cancel { batch, server } => {
            let stack = Stack::at(&server.server)?;
            let cancelled = stack.client.cancel_batch(&caller(), CancelBatchRequest { id: batch }).await;
            let row = Row::from(cancelled.map_err(|error| stack.explained(error))?);
            output.result(&row, |row| format!("{} is {}\n", row.id, row.status))
        }
        BatchVerb::Results { batch, errors, to, server } => results(&batch, errors, &to, &server.server, output).await,
    }
}

async fn create(args: BatchCreateArgs, output: &Output) -> Result<()> {
    let metadata = args.metadata.iter().map(|text| pair("metadata", text)).collect::<Result<_>>()?;
    let server = &args.server.server;
    let (stack, files) = (Stack::at(server)?, Files::at(server)?);
    let known = args.file.to_str().filter(|name| name.starts_with(FILE) && !args.file.exists());
    let (input_file_id, sent) = match known {
        Some(id) => (id.to_owned(), false),
        None => (files.upload(&args.file, "batch", 0, output).await?.id, true),
    };
    let request = CreateBatchRequest {
        input_file_id: input_file_id.clone(),
        endpoint: args.endpoint,
        completion_window: args.window,
        metadata,
        output_expires_after_seconds: seconds(args.output_days),
    };
    let made = match stack.client.create_batch(&caller(), request).await {
        Ok(made) => made,
        Err(error) if is_refusal(error.code()) => {
            // It was sent for this batch alone.
            if sent {
                files.take_back(&input_file_id, output).await;
            }
            return Err(reach::explained(error, server));
        }
        Err(error) => {
            let perhaps = format!("a batch of {input_file_id} may have been made, see `llama-stack batch list`");
            return Err(reach::explained(error, server).context(perhaps));
        }
    };
    output.note(&format!("`llama-stack batch show {} --watch` waits for its end", made.id));
    output.result(&Row::from(made), |row| format!("{}\n", row.id))
}

/// Whether nothing was done; after any other failure the answer alone may be lost.
fn is_refusal(code: Code) -> bool {
    !matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal)
}

async fn results(id: &str, errors: bool, to: &ToArgs, server: &str, output: &Output) -> Result<()> {
    let batch = Stack::at(server)?.get(id).await?;
    let file = if errors { &batch.error_file_id } else { &batch.output_file_id };
    if file.is_empty() {
        return Err(match (batch.ended.is_some(), errors) {
            (false, _) => Error::failed_precondition(format!("{id} has not ended: `llama-stack batch show {id} --watch` waits for that")),
            (true, true) => Error::not_found(format!("none of its lines failed; `llama-stack batch results {id}` has the answers")),
            (true, false) => {
                Error::not_found(format!("none of its lines was answered; `llama-stack batch show {id}` and --errors say why"))
            }
        });
    }
    Files::at(server)?.download(file, to, output).await
}

/// The batches of a stack.
struct Stack<'a> {
    client: Client,
    server: &'a str,
}

impl<'a> Stack<'a> {
    fn at(server: &'a str) -> Result<Self> {
        Ok(Self { client: Client::new(reach::connect(server)?), server })
    }

    fn explained(&self, error: Error) -> Error {
        reach::listed(error, self.server, "batch list")
    }

    async fn get(&self, id: &str) -> Result<Batch> {
        self.client.get_batch(&caller(), GetBatchRequest { id: id.to_owned() }).await.map_err(|error| self.explained(error))
    }

    async fn list(&self, limit: u32, output: &Output) -> Result<()> {
        let (mut rows, mut left, mut request) = (Vec::<Row>::new(), limit, ListBatchesRequest::default());
        while left > 0 {
            request.page_size = left.min(PAGE);
            let page = self.client.list_batches(&caller(), request.clone()).await.map_err(|error| self.explained(error))?;
            left = left.saturating_sub(page.batches.len() as u32);
            rows.extend(page.batches.into_iter().map(Row::from));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        output.result(&rows, |rows| {
            if rows.is_empty() {
                return "there are no batches; `llama-stack batch create` makes one\n".into();
            }
            let line = |row: &Row| {
                let done = format!("{} of {}", row.completed + row.failed, row.total);
                let created = row.created.clone().unwrap_or_default();
                [row.id.clone(), row.status.to_owned(), done, row.failed.to_string(), row.endpoint.clone(), created]
            };
            table(["BATCH", "STATUS", "DONE", "FAILED", "ENDPOINT", "CREATED"], rows.iter().map(line))
        })
    }

    /// Until it has ended; says meanwhile how far it is.
    async fn watch(&self, id: &str, output: &Output) -> Result<()> {
        let (counts, mut waiting) = (output.counts(), Some(output.working(&format!("waiting for {id}"))));
        let (mut last, mut total, mut seen) = (0, 0, None::<Instant>);
        let ended = loop {
            match self.get(id).await {
                Ok(batch) => {
                    seen = Some(Instant::now());
                    let done = batch.completed + batch.failed;
                    if done > last {
                        waiting = None;
                        (last, total) = (done, batch.total);
                        counts(id, done, total);
                    }
                    if batch.ended.is_some() {
                        break Ok(batch);
                    }
                }
                Err(error) if is_away(error.code()) && seen.is_some_and(|seen| seen.elapsed() < PATIENCE) => {}
                Err(error) => break Err(error),
            }
            tokio::time::sleep(LOOK).await;
        };
        drop(waiting);
        if last < total {
            output.end_counts();
        }
        let batch = ended?;
        let status = batch.status();
        let row = Row::from(batch);
        output.result(&row, shown)?;
        match status {
            BatchStatus::Completed => Ok(()),
            _ => Err(Error::failed_precondition(format!("{id} is {}, not completed; what is known of that stands above", row.status))),
        }
    }
}

/// The stack may answer at the next look.
fn is_away(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded)
}

fn shown(row: &Row) -> String {
    let failed = if row.failed > 0 { format!(", {} failed", row.failed) } else { String::new() };
    let mut lines = vec![
        ("id", row.id.clone()),
        ("status", row.status.to_owned()),
        ("endpoint", row.endpoint.clone()),
        ("lines", format!("{} of {} done{failed}", row.completed + row.failed, row.total)),
    ];
    let rest = [
        ("model", row.model.clone()),
        ("tokens", row.usage.as_ref().map(tokens)),
        ("input", Some(row.input_file_id.clone())),
        ("output", row.output_file_id.clone()),
        ("errors", row.error_file_id.clone()),
        ("created", row.created.clone()),
        ("expires", row.expires.clone().filter(|_| row.ended.is_none())),
        ("ended", row.ended.clone()),
    ];
    lines.extend(rest.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<8}  {value}\n")).collect();
    text.extend(row.metadata.iter().map(|(name, value)| format!("metadata  {name}={value}\n")));
    text.extend(row.errors.iter().map(|error| match error.line {
        Some(line) => format!("line {line}: {}\n", error.message),
        None => format!("wrong: {}\n", error.message),
    }));
    text
}

fn tokens(usage: &Usage) -> String {
    let Usage { input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens } = usage;
    format!("{total_tokens}: {input_tokens} read ({cached_tokens} cached), {output_tokens} written ({reasoning_tokens} reasoning)")
}
