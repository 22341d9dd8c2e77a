//! What is promised of banks. One is made for it, and deleted again.

use llama_stack_core::{Code, Memory, grpc::Remote};
use llama_stack_proto::v1::{
    Bank, BankKind, Chunk, CreateBankRequest, DeleteBankRequest, Document, GetBankRequest, InsertChunksRequest, InsertDocumentsRequest,
    ListBanksRequest, QueryRequest, SearchMode, document::Content, memory_client::MemoryClient,
};
use tonic::transport::Channel;

use super::{Peer, refused, report::Report, told};

type Client = Remote<MemoryClient<Channel>>;

const NOWHERE: &str = "bank_of_nobody";

pub(super) async fn check(peer: &Peer, report: &mut Report) {
    let client = Client::new(peer.channel.clone());
    let promise = "ListBanks lists its banks";
    match client.list_banks(&peer.cx(), ListBanksRequest::default()).await {
        Ok(_) => report.kept(promise),
        Err(error) => return report.broken(promise, told(&error)),
    }
    let answer = client.get_bank(&peer.cx(), GetBankRequest::new(NOWHERE)).await;
    refused(report, "GetBank of a bank that is not there is NOT_FOUND", answer, &[Code::NotFound]);
    let request = QueryRequest { text: "anything".into(), ..QueryRequest::default() };
    let answer = client.query(&peer.cx(), request).await;
    refused(report, "Query without a bank is INVALID_ARGUMENT", answer, &[Code::InvalidArgument]);
    let request = QueryRequest { bank_ids: vec![NOWHERE.into()], text: "anything".into(), ..QueryRequest::default() };
    refused(report, "Query of a bank that is not there is NOT_FOUND", client.query(&peer.cx(), request).await, &[Code::NotFound]);
    let request = CreateBankRequest {
        name: format!("llama-stack provider check {}", uuid::Uuid::new_v4()),
        kind: BankKind::Vector.into(),
        embedding_dimension: 3,
        ..CreateBankRequest::default()
    };
    let promise = "CreateBank makes a bank of vectors that callers bring";
    match client.create_bank(&peer.cx(), request).await {
        Ok(bank) => {
            report.kept(promise);
            used(&client, peer, &bank, report).await;
            deleted(&client, peer, &bank.id, report).await;
        }
        Err(error) if error.code() == Code::Unimplemented => report.skipped(promise, "it makes no banks"),
        Err(error) => report.broken(promise, told(&error)),
    }
}

fn chunk(id: &str, text: &str, vector: [f32; 3]) -> Chunk {
    Chunk { id: id.into(), document_id: format!("of-{id}"), text: text.into(), vector: vector.to_vec(), ..Chunk::default() }
}

async fn used(client: &Client, peer: &Peer, bank: &Bank, report: &mut Report) {
    let got = client.get_bank(&peer.cx(), GetBankRequest::new(bank.id.as_str())).await;
    report.judge(
        "GetBank gives what was made",
        match got {
            Ok(got) => (got.id != bank.id || got.name != bank.name).then(|| "it has another id or name".into()),
            Err(error) => Some(told(&error)),
        },
    );

    let wrong = vec![Chunk { vector: vec![1.0], ..chunk("c0", "too short", [1.0, 0.0, 0.0]) }];
    let answer = client
        .insert_chunks(&peer.cx(), InsertChunksRequest { bank_id: bank.id.clone(), chunks: wrong, ..InsertChunksRequest::default() })
        .await;
    let promise = "a vector of another dimension is told";
    match answer {
        Ok(answer) if !answer.failures.is_empty() => report.kept(promise),
        answer => refused(report, promise, answer, &[Code::InvalidArgument]),
    }

    let chunks = vec![chunk("c1", "a cat on a mat", [1.0, 0.0, 0.0]), chunk("c2", "a dog in the fog", [0.0, 1.0, 0.0])];
    let promise = "InsertChunks stores chunks, and again the same chunks";
    for _ in 0..2 {
        let request = InsertChunksRequest { bank_id: bank.id.clone(), chunks: chunks.clone(), ..InsertChunksRequest::default() };
        match client.insert_chunks(&peer.cx(), request).await {
            Ok(answer) if answer.failures.is_empty() => {}
            Ok(answer) => return report.broken(promise, format!("{} chunks failed", answer.failures.len())),
            // The least that is needed of a memory takes documents alone.
            Err(error) if error.code() == Code::Unimplemented => {
                report.skipped(promise, "it takes no chunks");
                return documents(client, peer, bank, report).await;
            }
            Err(error) => return report.broken(promise, told(&error)),
        }
    }
    report.kept(promise);

    let request = QueryRequest {
        bank_ids: vec![bank.id.clone()],
        vector: vec![0.1, 0.9, 0.0],
        mode: SearchMode::Vector.into(),
        top_k: 10,
        ..QueryRequest::default()
    };
    let promise = "Query finds what was stored once, the nearest first, with falling scores";
    match client.query(&peer.cx(), request).await {
        Err(error) => report.broken(promise, told(&error)),
        Ok(found) => {
            let ids: Vec<String> = found.chunks.iter().map(|found| found.chunk.clone().unwrap_or_default().id).collect();
            let falling = found.chunks.is_sorted_by(|a, b| a.score >= b.score);
            let wrong = if ids != ["c2", "c1"] {
                Some(format!("it found {ids:?}, where c2 and c1 are due"))
            } else {
                (!falling).then(|| "the scores rise".to_owned())
            };
            report.judge(promise, wrong);
        }
    }

    // gRPC's own limit is 4 MiB where nobody sets another; a stack sends up to 64.
    let promise = "chunks of 5 MiB are taken at once";
    let text = "word ".repeat(1_640);
    let chunks = (0..640).map(|n| chunk(&format!("l{n}"), &text, [0.0, 0.0, 1.0])).collect();
    let request = InsertChunksRequest { bank_id: bank.id.clone(), chunks, ..InsertChunksRequest::default() };
    match client.insert_chunks(&peer.cx(), request).await {
        Ok(answer) => report.judge(promise, (!answer.failures.is_empty()).then(|| format!("{} chunks failed", answer.failures.len()))),
        Err(error) => report.broken(promise, told(&error)),
    }
}

/// Texts, which the provider makes chunks of by itself.
async fn documents(client: &Client, peer: &Peer, bank: &Bank, report: &mut Report) {
    let document = |id: &str, text: &str| Document { id: id.into(), content: Some(Content::Text(text.into())), ..Document::default() };
    let documents = vec![document("d1", "a cat on a mat"), document("d2", "a dog in the fog")];
    let request = InsertDocumentsRequest { bank_id: bank.id.clone(), documents, ..InsertDocumentsRequest::default() };
    let promise = "InsertDocuments stores texts";
    match client.insert_documents(&peer.cx(), request).await {
        Ok(answer) if answer.failures.is_empty() => report.kept(promise),
        Ok(answer) => return report.broken(promise, format!("{} documents failed", answer.failures.len())),
        Err(error) if error.code() == Code::Unimplemented => return report.skipped(promise, "it takes no documents either"),
        Err(error) => return report.broken(promise, told(&error)),
    }
    let request = QueryRequest { bank_ids: vec![bank.id.clone()], text: "a dog".into(), ..QueryRequest::default() };
    let promise = "Query finds the text that is asked for, before others";
    match client.query(&peer.cx(), request).await {
        Err(error) => report.broken(promise, told(&error)),
        Ok(found) => {
            let first = found.chunks.first().cloned().unwrap_or_default().chunk.unwrap_or_default().document_id;
            report.judge(promise, (first != "d2").then(|| format!("it found {first:?} first, where d2 is due")));
        }
    }
}

async fn deleted(client: &Client, peer: &Peer, id: &str, report: &mut Report) {
    if let Err(error) = client.delete_bank(&peer.cx(), DeleteBankRequest { id: id.to_owned() }).await {
        return report.broken("DeleteBank deletes a bank", format!("{}; the bank {id} is left over", told(&error)));
    }
    let answer = client.get_bank(&peer.cx(), GetBankRequest::new(id)).await;
    refused(report, "a bank that was deleted is gone: NOT_FOUND", answer, &[Code::NotFound]);
}
