//! Banks on Qdrant, in the process and behind a socket: every promise of `Memory`, and what is their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod server;
mod stand;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use llama_stack_core::{Code, Memory};
use llama_stack_memory::index::{Search, Shape};
use llama_stack_proto::v1::{DeleteBankRequest, GetBankRequest, ListChunksRequest, SearchMode};
use llama_stack_tests::{
    conformance::memory::{self, isolation, retrieval},
    served,
    worded::EMBEDDING,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use stand::Stand;
use tonic::transport::Identity;

const EDGE: &str = "inline::qdrant-edge";
const REMOTE: &str = "remote::qdrant";

async fn remote() -> serde_json::Value {
    json!({ "url": server::start().await, "api_key": server::KEY })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_keeps_every_promise() {
    let stand = Stand::new(EDGE, json!({})).await;
    memory::all(stand.memory.clone()).await;
}

#[ignore = "takes minutes: `cargo test --release --workspace --test banks -- --ignored`"]
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_keeps_every_promise_with_rounded_vectors_and_over_a_socket() {
    let stand = Stand::new(EDGE, json!({ "quantization": "scalar" })).await;
    let router: Arc<dyn Memory> = Arc::new(llama_stack_memory::Router::new(vec![("qdrant".into(), stand.memory.clone())]));
    let served = served::memory(router).await;
    memory::all(served.client.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_every_promise() {
    let stand = Stand::new(REMOTE, remote().await).await;
    memory::all(stand.memory.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_searches_find_nothing_foreign() {
    let stand = Stand::new(EDGE, json!({})).await;
    isolation::nothing_foreign_is_found(stand.memory.clone(), 2_000).await;
    let stand = Stand::new(REMOTE, remote().await).await;
    isolation::nothing_foreign_is_found(stand.memory.clone(), 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_in_the_next_process() {
    let stand = Stand::new(EDGE, json!({})).await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr"), memory::text("b", "dogs bark")]).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("b", "dogs sleep")]).await;
    let stand = Stand::open(EDGE, json!({}), stand.stop().await).await;
    for mode in [SearchMode::Vector, SearchMode::Keyword, SearchMode::Hybrid] {
        assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "dogs sleep", mode)).await[0], "b", "{mode:?}");
    }
    assert!(memory::found(&stand.memory, &cx, memory::query(&bank, "bark", SearchMode::Keyword)).await.is_empty());
    let described = stand.memory.get_bank(&cx, GetBankRequest::new(bank.id.as_str())).await.unwrap();
    assert_eq!(described.chunk_count, 2);
    // A bank that is deleted leaves no file with its text.
    stand.memory.delete_bank(&cx, DeleteBankRequest { id: bank.id }).await.unwrap();
    let folder = stand.folder.path().join("memory/qdrant");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

/// More banks than shards are open at a time.
#[tokio::test(flavor = "multi_thread")]
async fn many_banks_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let index = llama_stack_qdrant::open_edge(folder.path(), llama_stack_qdrant::Quantization::None).await.unwrap();
    let banks: Vec<_> = (0..40).map(|n| stand::bank(&format!("bank{n}"))).collect();
    for (n, bank) in banks.iter().enumerate() {
        index.create(bank, &Shape { dimension: 4, keyword: true }).await.unwrap();
        index.upsert(bank, vec![stand::chunk(n, 4)]).await.unwrap();
    }
    for (n, bank) in banks.iter().enumerate() {
        let search = Search { vector: stand::vector(n, 4), mode: SearchMode::Vector, limit: 10, ..Search::default() };
        let hits = index.search(bank, &search).await.unwrap();
        assert_eq!(hits.iter().map(|hit| hit.chunk.id.as_str()).collect::<Vec<_>>(), [format!("c{n}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_come_in_the_order_of_their_documents_page_by_page() {
    let stand = Stand::new(EDGE, json!({})).await;
    let beside = stand.beside(REMOTE, "remote", remote().await).await;
    let cx = memory::somebody();
    for memory in [stand.memory.clone(), beside] {
        let bank = memory::made(&memory, &cx).await;
        let chunk = |document: usize, index: u32| llama_stack_proto::v1::Chunk {
            index,
            ..memory::chunk(
                &format!("{document}-{index}"),
                &format!("d{document}"),
                "an animal",
                &llama_stack_tests::worded::vector("animal"),
            )
        };
        let all: Vec<_> = (0..9).rev().flat_map(|document| (0..12).map(move |index| (document, index))).collect();
        let request = memory::chunks(&bank, all.iter().map(|(document, index)| chunk(*document, *index)).collect());
        memory.insert_chunks(&cx, request).await.unwrap();
        let mut request = ListChunksRequest { bank_id: bank.id.clone(), page_size: 7, ..ListChunksRequest::default() };
        let mut listed = Vec::new();
        loop {
            let page = memory.list_chunks(&cx, request.clone()).await.unwrap();
            listed.extend(page.chunks.into_iter().map(|chunk| (chunk.document_id, chunk.index)));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let mut expected: Vec<_> = all.iter().map(|(document, index)| (format!("d{document}"), *index)).collect();
        expected.sort();
        assert_eq!(listed, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_server_is_said() {
    let folder = Stand::new(EDGE, json!({})).await;
    let cx = memory::somebody();
    let key = folder.beside(REMOTE, "key", json!({ "url": server::start().await, "api_key": "another" })).await;
    let error = key.create_bank(&cx, memory::vector_bank()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("index_unusable")), "{error}");
    let gone = folder.beside(REMOTE, "gone", json!({ "url": "http://127.0.0.1:1" })).await;
    let error = gone.create_bank(&cx, memory::vector_bank()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("index_unavailable")), "{error}");
    for (config, field) in [
        (json!({ "url": "localhost:6334" }), "url"),
        (json!({ "url": "http://localhost:6334", "collection_prefix": "a b" }), "collection_prefix"),
        (json!({ "url": "http://localhost:6334", "timeout_seconds": 0 }), "timeout_seconds"),
    ] {
        let built = stand::registry().memory.build(REMOTE, config, folder.deps.clone()).await;
        assert_eq!(built.err().unwrap().field(), Some(field));
    }
}

/// A private authority, and its certificate as a file.
fn authority(folder: &Path, name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = folder.join(format!("{name}.pem"));
    std::fs::write(&file, issuer.pem()).unwrap();
    (issuer, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_is_trusted_where_its_authority_is_named() {
    // Two are linked; the server's side chooses none by itself.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let ((ours, known), (_, other)) = (authority(folder.path(), "ours"), authority(folder.path(), "theirs"));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    let url = server::start_tls(Identity::from_pem(certificate.pem(), key.serialize_pem())).await;
    let cx = memory::somebody();

    let stand = Stand::new(REMOTE, json!({ "url": url, "api_key": server::KEY, "ca_certificate": known })).await;
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr"), memory::text("b", "dogs bark")]).await;
    assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "dogs", SearchMode::Keyword)).await, ["b"]);
    // The key is still asked for.
    let keyless = stand.beside(REMOTE, "keyless", json!({ "url": url, "ca_certificate": known })).await;
    let error = keyless.create_bank(&cx, memory::vector_bank()).await.unwrap_err();
    assert_eq!(error.reason(), Some("index_unusable"), "{error}");

    for (id, config) in [("unknown", json!({ "url": url })), ("another", json!({ "url": url, "ca_certificate": other }))] {
        let untrusting = stand.beside(REMOTE, id, config).await;
        let error = untrusting.create_bank(&cx, memory::vector_bank()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("index_untrusted")), "{error}");
        assert!(error.message().contains("ca_certificate"), "{error}");
    }
    // Of a known authority, for another name: that is no matter of authorities alone.
    let (key, misnamed) = (KeyPair::generate().unwrap(), CertificateParams::new(["qdrant.example".to_owned()]).unwrap());
    let certificate = misnamed.signed_by(&key, &ours).unwrap();
    let url = server::start_tls(Identity::from_pem(certificate.pem(), key.serialize_pem())).await;
    let wrong = stand.beside(REMOTE, "misnamed", json!({ "url": url, "ca_certificate": known })).await;
    let error = wrong.create_bank(&cx, memory::vector_bank()).await.unwrap_err();
    assert!(error.reason() == Some("index_untrusted") && error.message().contains("another name"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_tls_and_keys_that_cannot_work_are_refused_at_the_start() {
    let stand = Stand::new(EDGE, json!({})).await;
    let (_, known) = authority(stand.folder.path(), "ours");
    let no_certificate = stand.folder.path().join("state.db");
    for (config, field) in [
        (json!({ "url": "https://localhost:6334", "ca_certificate": "/nowhere/ca.pem" }), "config.ca_certificate"),
        (json!({ "url": "https://localhost:6334", "ca_certificate": no_certificate }), "config.ca_certificate"),
        (json!({ "url": "http://localhost:6334", "ca_certificate": known }), "config.ca_certificate"),
        (json!({ "url": "http://localhost:6334", "api_key": "of two\nlines" }), "api_key"),
    ] {
        let error = stand::registry().memory.build(REMOTE, config, stand.deps.clone()).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{error}");
        assert!(!format!("{error:?}").contains("of two"), "the key is shown");
    }
}

/// The same texts are found as well as by the index that compares everything, in every way.
#[ignore = "takes minutes: `cargo test --release --workspace --test banks -- --ignored`"]
#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_as_well_as_by_the_exact_index() {
    let stand = Stand::new(EDGE, json!({})).await;
    let exact = stand.beside("inline::sqlite", "sqlite", json!({})).await;
    let cx = memory::somebody();
    let inference = stand.deps.inference.clone().unwrap();
    let found = retrieval::measured(stand.memory.clone(), inference.as_ref(), &cx, EMBEDDING).await;
    let expected = retrieval::measured(exact, inference.as_ref(), &cx, EMBEDDING).await;
    for way in ["vector", "keyword", "hybrid"] {
        let (found, expected) = (found.all(way), expected.all(way));
        assert!(found.recall > expected.recall - 0.02 && found.ndcg > expected.ndcg - 0.03, "{way}: {found:?}, and {expected:?}");
    }
}
