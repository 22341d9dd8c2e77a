use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{StreamExt, TryStreamExt};
use llama_stack_core::{
    Code, Context, Error, Files, Inference, Stack,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    ChatRequest, FileChunk, FileHeader, GetFileRequest, GetInfoRequest, ListModelsRequest, ListModelsResponse, ListProvidersRequest,
    UploadFileRequest, files_client::FilesClient, inference_client::InferenceClient, stack_client::StackClient,
    upload_file_request::Message,
};
use prost::Message as _;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::client::{Server, start};

fn connect(server: &Server) -> Channel {
    channel(&server.url(""), Duration::from_secs(2)).unwrap()
}

#[tokio::test]
async fn a_chat_over_grpc_is_the_same_chat() {
    let server = start().await;
    let (cx, remote) = (Context::test("acme"), Remote::<InferenceClient<Channel>>::new(connect(&server)));
    let response = remote.chat(&cx, ChatRequest::user("parrot", "hi")).await.unwrap();
    assert_eq!(response.choices[0].message.as_ref().unwrap().joined_text(), "Hello");
    let events = remote.stream_chat(&cx, ChatRequest::user("parrot", "hi")).await.unwrap();
    assert_eq!(events.count().await, 4);
    let error = remote.chat(&cx, ChatRequest::user("gpt-9", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::NotFound, Some("model_not_found"), Some("model")));
}

#[tokio::test]
async fn dropping_a_grpc_stream_ends_the_generation() {
    let server = start().await;
    let remote = Remote::<InferenceClient<Channel>>::new(connect(&server));
    let mut events = remote.stream_chat(&Context::test("acme"), ChatRequest::user("parrot", "forever")).await.unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    server.script.dropped().await;
}

/// Words that nobody has read yet are many small frames, which h2 takes for a flood where the window is small.
#[tokio::test]
async fn slow_readers_do_not_cost_all_others_their_connection() {
    let server = start().await;
    let (cx, remote) = (Context::test("acme"), Remote::<InferenceClient<Channel>>::new(connect(&server)));
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(remote.stream_chat(&cx, ChatRequest::user("parrot", "forever")).await.unwrap());
    }
    // Meanwhile each of them says something.
    for _ in 0..200 {
        remote.list_models(&cx, ListModelsRequest::default()).await.unwrap();
    }
    for events in &mut streams {
        let said: Vec<_> = events.take(20).try_collect().await.unwrap();
        assert_eq!(said.len(), 20);
    }
}

#[tokio::test]
async fn the_stack_tells_what_runs() {
    let server = start().await;
    let (cx, remote) = (Context::test("acme"), Remote::<StackClient<Channel>>::new(connect(&server)));
    let info = remote.get_info(&cx, GetInfoRequest {}).await.unwrap();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("test", env!("CARGO_PKG_VERSION")));
    let providers = remote.list_providers(&cx, ListProvidersRequest::default()).await.unwrap().providers;
    let told: Vec<_> = providers.iter().map(|one| (one.api.as_str(), one.id.as_str(), one.r#type.as_str(), one.status)).collect();
    assert_eq!(told, [("inference", "scripted", "test::scripted", 1)]);
}

#[tokio::test]
async fn files_are_kept_over_grpc() {
    let server = start().await;
    let (cx, remote) = (Context::test("acme"), Remote::<FilesClient<Channel>>::new(connect(&server)));
    let header = FileHeader { filename: "a.txt".into(), purpose: "assistants".into(), ..FileHeader::default() };
    let messages = [Message::Header(header), Message::Data("hello ".into()), Message::Data("world".into())];
    let upload = futures::stream::iter(messages.map(|message| Ok(UploadFileRequest { message: Some(message) })));
    let file = remote.upload_file(&cx, Box::pin(upload)).await.unwrap();
    assert_eq!((file.bytes, file.owner.as_str()), (11, "tester"));
    let request = GetFileRequest { id: file.id.clone() };
    let chunks: Vec<FileChunk> = remote.download_file(&cx, request.clone()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(chunks.iter().flat_map(|chunk| chunk.data.clone()).collect::<Vec<u8>>(), b"hello world");
    let error = remote.get_file(&Context::test("other"), request).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("file_not_found")));
}

#[tokio::test]
async fn every_service_has_its_health_and_its_description() {
    let server = start().await;
    let mut reflection = ServerReflectionClient::new(connect(&server));
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = reflection.server_reflection_info(futures::stream::iter([request])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) = answers.next().await.unwrap().unwrap().message_response else {
        panic!("no list of services")
    };
    let mut health = HealthClient::new(connect(&server));
    for name in ["Inference", "Safety", "Memory", "Files", "Tools", "Agents", "Stack"] {
        let service = format!("llama_stack.v1.{name}");
        assert!(services.service.iter().any(|there| there.name == service), "{service}");
        let status = health.check(HealthCheckRequest { service }).await.unwrap().into_inner().status;
        assert_eq!(status, 1, "{name}");
    }
    assert_eq!(health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner().status, 1);
}

/// A message with its length, as gRPC frames it.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// The last part of the body is a frame of trailers, marked by its highest bit.
#[tokio::test]
async fn browsers_call_by_grpc_web() {
    let server = start().await;
    let url = server.url("/llama_stack.v1.Inference/ListModels");
    let body = framed(&ListModelsRequest::default().encode_to_vec());
    let read = |body: &[u8]| {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        assert_eq!(body[5 + length], 0x80, "a frame of trailers");
        let trailers = String::from_utf8(body[10 + length..].to_vec()).unwrap();
        (ListModelsResponse::decode(&body[5..5 + length]).unwrap(), trailers)
    };
    let send = async |kind: &str, body: Vec<u8>| {
        let request = server.http.post(&url).header("content-type", kind).header("accept", kind).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("x-request-id"));
        response.bytes().await.unwrap()
    };
    let (models, trailers) = read(&send("application/grpc-web+proto", body.clone()).await);
    assert_eq!(models.models.len(), 2);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    // As text, each frame is in base64 of its own.
    let text = send("application/grpc-web-text+proto", STANDARD.encode(&body).into_bytes()).await;
    assert!(!text.is_empty() && text.iter().all(u8::is_ascii_graphic));
}

#[tokio::test]
async fn an_unknown_grpc_service_is_unimplemented() {
    let server = start().await;
    let mut client = tonic::client::Grpc::new(connect(&server));
    client.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/no.Such/Method");
    let codec = tonic_prost::ProstCodec::<ListModelsRequest, ListModelsResponse>::default();
    let status = client.unary(tonic::Request::new(ListModelsRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(Error::from(status).code(), Code::Unimplemented);
}

/// INTERNAL is for defects of the server: what a caller wrote wrong is the caller's.
#[tokio::test]
async fn what_is_no_message_is_an_invalid_argument() {
    let server = start().await;
    let broken =
        [framed(&[0x0a, 0xff, 0xff]), framed(&[0x0b]), vec![1, 0, 0, 0, 0], vec![9, 0, 0, 0, 0], vec![0, 0, 0, 0, 9, 1], Vec::new()];
    for (path, body) in ["Inference/ListModels", "Inference/StreamChat", "Files/UploadFile"]
        .into_iter()
        .flat_map(|path| broken.iter().map(move |body| (path, body)))
    {
        let request = server.http.post(server.url(&format!("/llama_stack.v1.{path}")));
        let response = request.header("content-type", "application/grpc-web+proto").body(body.clone()).send().await.unwrap();
        let told = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
        let text = String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned();
        let code = told.or_else(|| text.split("grpc-status:").nth(1).map(|code| code.trim_start()[..1].to_owned()));
        assert_eq!(code.as_deref(), Some("3"), "{path} {body:?}: {text:?}");
    }
}
