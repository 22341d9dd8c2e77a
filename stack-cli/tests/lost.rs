//! Verbs whose stack refuses, goes away or falls silent: its answers are the test's, and the program and the socket are real.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, stream};
use llama_stack_core::{Agents, Batches, Context, Error, EventStream, Files, Inference, Result, grpc::Served};
use llama_stack_proto::v1::{
    Batch, BatchStatus, ChatEvent, ChatRequest, CreateBatchRequest, CreateTurnRequest, DeleteFileRequest, DeleteFileResponse, File,
    FileChunk, GetBatchRequest, GetFileRequest, ListModelsRequest, ListModelsResponse, TurnEvent, UploadFileRequest,
    batches_server::BatchesServer, files_server::FilesServer, upload_file_request::Message,
};
use llama_stack_tests::served;
use support::{Said, call, command};
use tokio::{net::TcpListener, runtime::Runtime, sync::Notify};
use tonic::transport::{Server, server::TcpIncoming};

/// Keeps what is deleted, and answers the rest as it was told.
#[derive(Default)]
struct Frail {
    /// Of batches that are made or looked at, one after the other.
    answers: Mutex<VecDeque<Result<Batch>>>,
    deleted: Mutex<Vec<String>>,
}

impl Frail {
    fn next(&self) -> Result<Batch> {
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Err(Error::internal("nobody should have asked")))
    }

    fn will(&self, answers: impl IntoIterator<Item = Result<Batch>>) {
        self.answers.lock().unwrap().extend(answers);
    }
}

#[async_trait::async_trait]
impl Batches for Frail {
    async fn create_batch(&self, _: &Context, _: CreateBatchRequest) -> Result<Batch> {
        self.next()
    }

    async fn get_batch(&self, _: &Context, _: GetBatchRequest) -> Result<Batch> {
        self.next()
    }
}

#[async_trait::async_trait]
impl Files for Frail {
    async fn upload_file(&self, _: &Context, mut request: EventStream<UploadFileRequest>) -> Result<File> {
        let mut bytes = 0;
        while let Some(message) = request.next().await.transpose()? {
            if let Some(Message::Data(data)) = message.message {
                bytes += data.len() as u64;
            }
        }
        Ok(File { id: "file-1".into(), bytes, ..File::default() })
    }

    async fn get_file(&self, _: &Context, request: GetFileRequest) -> Result<File> {
        Ok(File { id: request.id, filename: "half.txt".into(), bytes: 8, ..File::default() })
    }

    /// One half, and then nothing, or that there is no more of it.
    async fn download_file(&self, _: &Context, request: GetFileRequest) -> Result<EventStream<FileChunk>> {
        let half = stream::iter([Ok(FileChunk { data: b"half".to_vec() })]);
        if request.id == "file-gone" {
            return Ok(Box::pin(half.chain(stream::iter([Err(Error::not_found("it was deleted"))]))));
        }
        Ok(Box::pin(half.chain(stream::pending())))
    }

    async fn delete_file(&self, _: &Context, request: DeleteFileRequest) -> Result<DeleteFileResponse> {
        self.deleted.lock().unwrap().push(request.id);
        Ok(DeleteFileResponse::default())
    }
}

struct Stack {
    home: tempfile::TempDir,
    frail: Arc<Frail>,
    url: String,
    _runtime: Runtime,
}

impl Stack {
    fn start() -> Self {
        let (runtime, frail) = (Runtime::new().unwrap(), Arc::new(Frail::default()));
        let (batches, files): (Arc<dyn Batches>, Arc<dyn Files>) = (frail.clone(), frail.clone());
        let router = Server::builder().add_service(BatchesServer::new(Served(batches))).add_service(FilesServer::new(Served(files)));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        Self { home: tempfile::tempdir().unwrap(), frail, url, _runtime: runtime }
    }

    fn call(&self, arguments: &[&str]) -> Said {
        call(self.home.path(), &[arguments, &["--server", &self.url]].concat())
    }
}

fn batch(status: BatchStatus, total: u64, completed: u64) -> Batch {
    let ended = (status == BatchStatus::Completed).then(prost_types::Timestamp::default);
    Batch { id: "batch_1".into(), status: status.into(), total, completed, ended, ..Batch::default() }
}

/// Ctrl-C, and what comes of it.
fn interrupted(child: Child) -> Said {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    child.wait_with_output().unwrap().into()
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_was_sent_for_a_batch_goes_only_where_the_batch_was_refused() {
    let stack = Stack::start();
    let input = stack.home.path().join("in.jsonl");
    std::fs::write(&input, "{}\n").unwrap();
    let create = ["batch", "create", input.to_str().unwrap(), "--endpoint", "/v1/embeddings"];

    stack.frail.will([Err(Error::unavailable("the answer was lost"))]);
    let lost = stack.call(&create);
    assert_eq!(lost.code, 4, "{}", lost.err);
    assert!(lost.err.contains("batch list") && lost.err.contains("file-1"), "{}", lost.err);
    assert!(stack.frail.deleted.lock().unwrap().is_empty(), "the batch may be there, and its input is gone");

    stack.frail.will([Err(Error::invalid("endpoint", "not that one"))]);
    assert_eq!(stack.call(&create).code, 2);
    assert_eq!(*stack.frail.deleted.lock().unwrap(), ["file-1"]);
}

#[test]
fn a_batch_is_waited_for_while_its_stack_is_away() {
    let stack = Stack::start();
    let watch = ["batch", "show", "batch_1", "--watch"];
    let under_way = || Ok(batch(BatchStatus::InProgress, 100, 1));

    stack.frail.will([under_way(), Err(Error::unavailable("it starts anew")), Ok(batch(BatchStatus::Completed, 100, 100))]);
    let watched = stack.call(&watch);
    assert_eq!(watched.code, 0, "{}", watched.err);
    assert!(watched.out.contains("100 of 100 done"), "{}", watched.out);

    stack.frail.will([under_way(), Err(Error::not_found("it was deleted"))]);
    let gone = stack.call(&watch);
    assert_eq!(gone.code, 3, "{}", gone.err);
    assert!(gone.err.starts_with("error: "), "nothing was counted, and there is a line: {:?}", gone.err);

    stack.frail.will([Err(Error::unavailable("it never was there"))]);
    assert_eq!(stack.call(&watch).code, 4);
}

#[test]
fn a_download_that_is_stopped_leaves_no_draft() {
    let stack = Stack::start();
    let folder = stack.home.path().join("to");
    std::fs::create_dir(&folder).unwrap();
    let to = folder.join("whole.txt");
    let mut child = command(stack.home.path())
        .args(["file", "download", "file-1", "--output", to.to_str().unwrap(), "--server", &stack.url])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut told).unwrap();
    assert!(told.starts_with("fetching "), "{told}");
    assert_eq!(names(&folder).len(), 1, "the half of it");
    assert_eq!(interrupted(child).code, 1);
    assert!(names(&folder).is_empty(), "{:?}", names(&folder));
}

#[test]
fn what_ends_a_download_after_its_first_piece_is_explained_too() {
    let stack = Stack::start();
    let folder = stack.home.path().join("to");
    std::fs::create_dir(&folder).unwrap();
    let to = folder.join("whole.txt");
    let places: [&[&str]; 2] = [&[], &["--output", to.to_str().unwrap()]];
    for place in places {
        let said = stack.call(&[&["file", "download", "file-gone"][..], place].concat());
        assert_eq!(said.code, 3, "{place:?}: {}", said.err);
        assert!(said.err.contains("it was deleted") && said.err.contains("llama-stack file list"), "{place:?}: {}", said.err);
    }
    assert!(names(&folder).is_empty(), "{:?}", names(&folder));
}

/// A model and an agent that think for ever.
#[derive(Default)]
struct Silent {
    asked: Notify,
}

#[async_trait::async_trait]
impl Inference for Silent {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        Ok(ListModelsResponse::default())
    }

    async fn stream_chat(&self, _: &Context, _: ChatRequest) -> Result<EventStream<ChatEvent>> {
        self.asked.notify_one();
        Ok(Box::pin(stream::pending()))
    }
}

#[async_trait::async_trait]
impl Agents for Silent {
    async fn create_turn(&self, _: &Context, _: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
        self.asked.notify_one();
        Ok(Box::pin(stream::pending()))
    }
}

#[test]
fn a_piped_chat_that_is_stopped_before_its_first_word_has_failed() {
    let (runtime, home, silent) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap(), Arc::new(Silent::default()));
    let stack = runtime.block_on(served::inference(silent.clone()));
    let mut child = command(home.path())
        .args(["chat", "--model", "m", "--server", &stack.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hi\n").unwrap();
    runtime.block_on(silent.asked.notified());
    let said = interrupted(child);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
    assert!(said.err.contains("stopped before it answered"), "{}", said.err);
}

#[test]
fn a_turn_that_is_stopped_before_its_first_event_has_failed() {
    let (runtime, home, silent) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap(), Arc::new(Silent::default()));
    let stack = runtime.block_on(served::agents(silent.clone()));
    let child = command(home.path())
        .args(["agent", "run", "hi", "--agent", "agent_1", "--server", &stack.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    runtime.block_on(silent.asked.notified());
    let said = interrupted(child);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
    assert!(said.err.contains("stopped before it began"), "{}", said.err);
}
