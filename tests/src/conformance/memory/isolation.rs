//! Whose it is: every method for every kind of caller, and many searches of somebody who looks for what is not theirs.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use futures::{StreamExt as _, stream};
use llama_stack_core::{Code, Context, Memory, Result, ids};
use llama_stack_proto::v1::{
    CancelIngestionRequest, CreateBankRequest, DeleteBankRequest, DeleteDocumentsRequest, Filter, GetBankRequest, GetDocumentRequest,
    GetIngestionRequest, InsertDocumentsRequest, ListBanksRequest, ListChunksRequest, ListDocumentsRequest, QueryRequest, Ranker,
    SearchMode, UpdateBankRequest, UpdateDocumentRequest, Value,
    filter::{Comparison, Filter as Of, Filters},
};
use prost::Message as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{caller, chunk, chunks, inserted, number, query, text, value, vector_bank, with};
use crate::worded::vector;

/// What is there to be reached.
#[derive(Clone)]
struct Target {
    bank: llama_stack_proto::v1::Bank,
    ingestion: String,
}

/// What a method does with a bank.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Change,
    /// It names no bank: what it gives is looked at elsewhere.
    Lists,
}

type Call = fn(Arc<dyn Memory>, Context, Target) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

macro_rules! call {
    (|$memory:ident, $cx:ident, $target:ident| $call:expr) => {
        (|$memory: Arc<dyn Memory>, $cx: Context, $target: Target| Box::pin(async move { $call.await.map(drop) })) as Call
    };
}

/// Every method of the service by its name in the contract, and a right call of it.
fn methods() -> Vec<(&'static str, Does, Call)> {
    fn document(target: &Target) -> (String, String) {
        (target.bank.id.clone(), "secret".to_owned())
    }
    vec![
        ("CreateBank", Does::Lists, call!(|memory, cx, _target| memory.create_bank(&cx, vector_bank()))),
        ("ListBanks", Does::Lists, call!(|memory, cx, _target| memory.list_banks(&cx, ListBanksRequest::default()))),
        ("GetBank", Does::Read, call!(|memory, cx, target| memory.get_bank(&cx, GetBankRequest::new(target.bank.id)))),
        (
            "UpdateBank",
            Does::Change,
            call!(|memory, cx, target| memory
                .update_bank(&cx, UpdateBankRequest { id: target.bank.id, name: Some("taken".into()), ..Default::default() })),
        ),
        ("DeleteBank", Does::Change, call!(|memory, cx, target| memory.delete_bank(&cx, DeleteBankRequest { id: target.bank.id }))),
        (
            "InsertDocuments",
            Does::Change,
            call!(|memory, cx, target| memory.insert_documents(
                &cx,
                InsertDocumentsRequest { bank_id: target.bank.id, documents: vec![text("planted", "words")], ..Default::default() }
            )),
        ),
        (
            "InsertChunks",
            Does::Change,
            call!(|memory, cx, target| memory.insert_chunks(&cx, chunks(&target.bank, vec![chunk("planted", "planted", "words", &[])]))),
        ),
        (
            "GetDocument",
            Does::Read,
            call!(|memory, cx, target| {
                let (bank_id, document_id) = document(&target);
                memory.get_document(&cx, GetDocumentRequest { bank_id, document_id, ..Default::default() })
            }),
        ),
        (
            "ListDocuments",
            Does::Read,
            call!(|memory, cx, target| memory.list_documents(&cx, ListDocumentsRequest { bank_id: target.bank.id, ..Default::default() })),
        ),
        (
            "UpdateDocument",
            Does::Change,
            call!(|memory, cx, target| {
                let (bank_id, document_id) = document(&target);
                memory.update_document(&cx, UpdateDocumentRequest { bank_id, document_id, ..Default::default() })
            }),
        ),
        (
            "DeleteDocuments",
            Does::Change,
            call!(|memory, cx, target| {
                let (bank_id, document_id) = document(&target);
                memory.delete_documents(
                    &cx,
                    DeleteDocumentsRequest { bank_id, document_ids: vec![document_id], ..DeleteDocumentsRequest::default() },
                )
            }),
        ),
        ("Query", Does::Read, call!(|memory, cx, target| memory.query(&cx, query(&target.bank, "secret", SearchMode::Hybrid)))),
        (
            "ListChunks",
            Does::Read,
            call!(|memory, cx, target| memory.list_chunks(&cx, ListChunksRequest { bank_id: target.bank.id, ..Default::default() })),
        ),
        (
            "GetIngestion",
            Does::Read,
            call!(|memory, cx, target| memory.get_ingestion(&cx, GetIngestionRequest { bank_id: target.bank.id, id: target.ingestion })),
        ),
        (
            "CancelIngestion",
            Does::Change,
            call!(
                |memory, cx, target| memory.cancel_ingestion(&cx, CancelIngestionRequest { bank_id: target.bank.id, id: target.ingestion })
            ),
        ),
        (
            "WatchIngestion",
            Does::Read,
            call!(|memory, cx, target| async move {
                let request = GetIngestionRequest { bank_id: target.bank.id, id: target.ingestion };
                // Over a socket the refusal may come with the first message.
                memory.watch_ingestion(&cx, request).await?.next().await.unwrap_or(Ok(Default::default()))
            }),
        ),
    ]
}

/// The names in the contract.
fn contract() -> HashSet<String> {
    let files = prost_types::FileDescriptorSet::decode(llama_stack_proto::DESCRIPTORS).unwrap();
    let services = files.file.into_iter().flat_map(|file| file.service);
    let memory = services.into_iter().find(|service| service.name() == "Memory").unwrap();
    memory.method.into_iter().map(|method| method.name().to_owned()).collect()
}

async fn target(memory: &Arc<dyn Memory>, owner: &Context, shared: bool) -> Target {
    let bank = memory.create_bank(owner, CreateBankRequest { shared, ..vector_bank() }).await.unwrap();
    inserted(memory, owner, &bank, vec![text("secret", "the secret words")]).await;
    let background = InsertDocumentsRequest {
        bank_id: bank.id.clone(),
        documents: vec![text("later", "more secret words")],
        background: true,
        ..Default::default()
    };
    let ingestion = memory.insert_documents(owner, background).await.unwrap().ingestion.unwrap().id;
    Target { bank, ingestion }
}

/// Every method × {another tenant, another of the same tenant, the owner, an admin} × {private, shared}.
pub async fn every_method_keeps_to_who_asks(memory: Arc<dyn Memory>) {
    let methods = methods();
    assert_eq!(methods.iter().map(|(name, ..)| (*name).to_owned()).collect::<HashSet<_>>(), contract());
    let tenant = ids::new("tenant");
    let callers = [
        ("another tenant's owner", caller(&ids::new("tenant"), "ann", &[])),
        ("another tenant's admin", caller(&ids::new("tenant"), "eve", &["admin"])),
        ("another of the tenant", caller(&tenant, "bob", &["reader"])),
        ("the owner", caller(&tenant, "ann", &[])),
        ("an admin of the tenant", caller(&tenant, "root", &["admin"])),
    ];
    let mut cases = 0;
    for shared in [false, true] {
        for (method, does, call) in &methods {
            for (who, cx) in &callers {
                let target = target(&memory, &caller(&tenant, "ann", &[]), shared).await;
                let told = call(memory.clone(), cx.clone(), target).await;
                let owns = matches!(*who, "the owner" | "an admin of the tenant");
                let expected = match (*does, *who) {
                    (Does::Lists, _) => None,
                    _ if owns => None,
                    (Does::Read, "another of the tenant") if shared => None,
                    (Does::Change, "another of the tenant") if shared => Some(Code::PermissionDenied),
                    _ => Some(Code::NotFound),
                };
                assert_eq!(told.as_ref().err().map(|error| error.code()), expected, "{method} by {who}, shared: {shared}: {told:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * methods.len() * callers.len());
    lists_show_what_may_be_read(&memory, &tenant).await;
}

async fn lists_show_what_may_be_read(memory: &Arc<dyn Memory>, tenant: &str) {
    let (ann, bob) = (caller(tenant, "ann", &[]), caller(tenant, "bob", &[]));
    let private = target(memory, &ann, false).await.bank.id;
    let shared = target(memory, &ann, true).await.bank.id;
    let theirs = target(memory, &bob, false).await.bank.id;
    let mut listed = HashSet::new();
    let mut request = ListBanksRequest { page_size: 7, ..ListBanksRequest::default() };
    loop {
        let page = memory.list_banks(&bob, request.clone()).await.unwrap();
        assert!(page.banks.iter().all(|bank| bank.owner == "bob" || bank.shared), "{:?}", page.banks);
        listed.extend(page.banks.into_iter().map(|bank| bank.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(listed.contains(&shared) && listed.contains(&theirs) && !listed.contains(&private));
}

/// Somebody has two banks and searches, lists and counts, again and again, with whatever might reach the banks of another
/// tenant and of another person: their ids, filters that are always true, negations, hostile words, the largest pages.
pub async fn nothing_foreign_is_found(memory: Arc<dyn Memory>, searches: usize) {
    let (tenant, other) = (ids::new("tenant"), ids::new("tenant"));
    let mallory = caller(&tenant, "mallory", &["reader", "administrator", "Admin"]);
    let mut foreign_ids = Vec::new();
    for owner in [caller(&other, "ann", &["admin"]), caller(&other, "mallory", &[]), caller(&tenant, "ann", &[])] {
        let bank = memory.create_bank(&owner, vector_bank()).await.unwrap();
        let document = |n: usize| {
            with(text(&format!("doc{n}"), &format!("foreign secret number {n}")), &[("whose", value("foreign")), ("n", number(n as f64))])
        };
        inserted(&memory, &owner, &bank, (0..20).map(document).collect()).await;
        foreign_ids.push(bank.id);
    }
    let mut own_ids = Vec::new();
    for _ in 0..2 {
        let bank = memory.create_bank(&mallory, vector_bank()).await.unwrap();
        let document = |n: usize| {
            with(text(&format!("doc{n}"), &format!("own secret number {n}")), &[("whose", value("own")), ("n", number(n as f64))])
        };
        inserted(&memory, &mallory, &bank, (0..5).map(document).collect()).await;
        own_ids.push(bank.id);
    }
    let attempts = stream::iter(0..searches as u64).map(|seed| {
        let (memory, mallory, own, foreign) = (memory.clone(), mallory.clone(), own_ids.clone(), foreign_ids.clone());
        tokio::spawn(async move { attempt(memory, mallory, own, foreign, seed).await })
    });
    let answered: usize = attempts.buffer_unordered(16).map(|reached| reached.unwrap()).fold(0, async |sum, reached| sum + reached).await;
    assert!(answered > searches / 10, "only {answered} of {searches} searches were answered at all: they show nothing");
}

/// 1 where it was answered.
async fn attempt(memory: Arc<dyn Memory>, cx: Context, own: Vec<String>, foreign: Vec<String>, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let theirs = foreign.choose(&mut rng).unwrap();
    let aim = if rng.random_bool(0.5) { own.choose(&mut rng).unwrap().clone() } else { guess(&mut rng, theirs) };
    let mut bank_ids = vec![aim.clone()];
    if rng.random_bool(0.3) {
        bank_ids.push(foreign.choose(&mut rng).unwrap().clone());
    }
    let modes = [SearchMode::Vector, SearchMode::Keyword, SearchMode::Hybrid];
    let hostile =
        ["foreign secret", "secret OR *", "\" OR \"foreign", "NOT own", "foreign NEAR secret", "' OR tenant != '' --", "number 7"];
    let asked = hostile.choose(&mut rng).unwrap();
    let request = QueryRequest {
        bank_ids: bank_ids.clone(),
        text: (*asked).to_owned(),
        vector: if rng.random_bool(0.3) { vector("foreign secret number 7") } else { Vec::new() },
        mode: (*modes.choose(&mut rng).unwrap()).into(),
        filter: rng.random_bool(0.7).then(|| filter(&mut rng, 0, &foreign)),
        top_k: if rng.random_bool(0.5) { 1_000 } else { 3 },
        score_threshold: rng.random_bool(0.2).then_some(-1_000.0),
        ranker: rng.random_bool(0.3).then(|| Ranker { kind: rng.random_range(1..4), ..Ranker::default() }),
        mmr_lambda: rng.random_bool(0.1).then_some(0.0),
        ..QueryRequest::default()
    };
    let mine = |id: &String| own.contains(id);
    let answered = match memory.query(&cx, request.clone()).await {
        Ok(answer) => {
            assert!(bank_ids.iter().all(mine), "a foreign bank was searched: {request:?}");
            for scored in answer.chunks {
                let chunk = scored.chunk.unwrap();
                assert!(mine(&scored.bank_id) && chunk.text.starts_with("own"), "{chunk:?} by {request:?}");
            }
            1
        }
        Err(error) => {
            assert!(matches!(error.code(), Code::NotFound | Code::InvalidArgument), "{error:?} by {request:?}");
            assert!(!error.message().contains("secret"), "{error:?}");
            0
        }
    };
    match seed % 4 {
        0 => {
            let request =
                ListChunksRequest { bank_id: aim.clone(), document_id: "doc7".into(), page_token: "doc1#0".into(), ..Default::default() };
            if let Ok(page) = memory.list_chunks(&cx, request).await {
                assert!(mine(&aim) && page.chunks.iter().all(|chunk| chunk.text.starts_with("own")));
            }
        }
        1 => {
            let request = GetDocumentRequest { bank_id: aim.clone(), document_id: "doc7".into(), ..Default::default() };
            assert_eq!(memory.get_document(&cx, request).await.unwrap_err().code(), Code::NotFound, "own banks have five");
        }
        2 => match memory.get_bank(&cx, GetBankRequest::new(aim.as_str())).await {
            Ok(bank) => assert!(mine(&aim) && bank.document_count == 5 && bank.chunk_count == 5, "{bank:?}"),
            Err(error) => assert_eq!(error.code(), Code::NotFound),
        },
        _ => {}
    }
    answered
}

/// The id, or what somebody might try in its place.
fn guess(rng: &mut StdRng, id: &str) -> String {
    match rng.random_range(0..6) {
        0 => id.to_uppercase(),
        1 => format!("{id}%"),
        2 => "%".into(),
        3 => format!("{id}' OR '1'='1"),
        4 => id[..id.len() - 1].into(),
        _ => id.into(),
    }
}

/// Often one that is always true, or that asks for what is not theirs.
fn filter(rng: &mut StdRng, depth: usize, foreign: &[String]) -> Filter {
    if depth < 4 && rng.random_bool(0.5) {
        let filters = (0..rng.random_range(1..4)).map(|_| filter(rng, depth + 1, foreign)).collect();
        let filters = Filters { filters };
        return Filter { filter: Some(if rng.random_bool(0.7) { Of::Any(filters) } else { Of::All(filters) }) };
    }
    let attribute = *["whose", "tenant", "bank_id", "bank", "n", "document_id", "' OR 1=1 --"].choose(rng).unwrap();
    let operator = rng.random_range(1..=8);
    let values: Vec<Value> = match rng.random_range(0..4) {
        0 => vec![value("foreign")],
        1 => vec![value(foreign.choose(rng).unwrap())],
        2 => vec![number(7.0)],
        _ => vec![value("no such value")],
    };
    Filter { filter: Some(Of::Comparison(Comparison { attribute: attribute.into(), operator, values })) }
}
