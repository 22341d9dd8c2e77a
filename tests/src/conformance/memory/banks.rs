//! Banks: made, described, changed, listed, deleted, expired.

use std::{collections::HashMap, sync::Arc, time::Duration};

use llama_stack_core::{Code, Memory};
use llama_stack_proto::v1::{
    Bank, BankKind, ChunkingStrategy, CreateBankRequest, DeleteBankRequest, GetBankRequest, ListBanksRequest, QueryRequest, SearchMode,
    UpdateBankRequest,
};

use super::{bank_of, caller, inserted, made, query, somebody, text, vector_bank};
use crate::worded::{DIMENSION, EMBEDDING};

pub async fn all(memory: Arc<dyn Memory>) {
    a_bank_is_what_was_asked_for(memory.clone()).await;
    a_bank_for_somebody_else_is_an_admins_to_make(memory.clone()).await;
    a_bank_for_a_purpose_is_made_once(memory.clone()).await;
    counts_can_be_left_out(memory.clone()).await;
    what_may_change_changes(memory.clone()).await;
    a_deleted_bank_is_gone_with_all_it_had(memory.clone()).await;
    lists_cover_the_banks_once_in_either_order(memory.clone()).await;
    what_is_wrong_is_named(memory.clone()).await;
    an_expired_bank_is_not_there(memory).await;
}

fn get(id: &str) -> GetBankRequest {
    GetBankRequest::new(id)
}

pub async fn a_bank_is_what_was_asked_for(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let metadata = HashMap::from([("team".to_owned(), "red".to_owned())]);
    let asked = CreateBankRequest { metadata: metadata.clone(), shared: true, expires_after_seconds: 1_000, ..vector_bank() };
    let bank = memory.create_bank(&cx, asked).await.unwrap();
    assert_eq!((bank.name.as_str(), bank.kind(), &bank.metadata, bank.shared), ("docs", BankKind::Vector, &metadata, true));
    assert_eq!((bank.embedding_model.as_str(), bank.embedding_dimension, bank.owner.as_str()), (EMBEDDING, DIMENSION, "ann"));
    let (active, expires) = (bank.last_active.unwrap(), bank.expires.unwrap());
    assert_eq!(expires.seconds - active.seconds, 1_000);
    assert_eq!(memory.get_bank(&cx, get(&bank.id)).await.unwrap(), bank);

    inserted(&memory, &cx, &bank, vec![text("a", "the cat sat on the mat"), text("b", "dogs bark")]).await;
    let now = memory.get_bank(&cx, get(&bank.id)).await.unwrap();
    assert_eq!((now.document_count, now.chunk_count), (2, 2));
    assert_eq!(now.document_status_counts, HashMap::from([("completed".to_owned(), 2)]));
    assert!(now.bytes_used >= 4 * u64::from(DIMENSION) * 2, "{now:?}");
    // The vectors are somebody else's here, and there are none.
    let own = CreateBankRequest { embedding_dimension: 3, ..CreateBankRequest::default() };
    assert_eq!(memory.create_bank(&cx, own).await.unwrap().embedding_dimension, 3);
    let keyword = memory.create_bank(&cx, bank_of(BankKind::Keyword)).await.unwrap();
    assert_eq!((keyword.kind(), keyword.embedding_dimension, keyword.expires), (BankKind::Keyword, 0, None));
}

pub async fn a_bank_for_somebody_else_is_an_admins_to_make(memory: Arc<dyn Memory>) {
    let ann = somebody();
    let (bob, admin) = (caller(ann.tenant(), "bob", &[]), caller(ann.tenant(), "root", &["admin"]));
    let for_bob = CreateBankRequest { owner: "bob".into(), ..vector_bank() };
    let refused = memory.create_bank(&ann, for_bob.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.field()), (Code::PermissionDenied, Some("owner")));
    for maker in [&bob, &admin] {
        let bank = memory.create_bank(maker, for_bob.clone()).await.unwrap();
        assert_eq!(bank.owner, "bob");
        memory.delete_bank(&bob, DeleteBankRequest { id: bank.id }).await.unwrap();
    }
}

pub async fn a_bank_for_a_purpose_is_made_once(memory: Arc<dyn Memory>) {
    let ann = somebody();
    let (bob, admin) = (caller(ann.tenant(), "bob", &[]), caller(ann.tenant(), "root", &["admin"]));
    let asked = |owner: &str| CreateBankRequest { purpose: "notes".into(), owner: owner.into(), ..vector_bank() };
    let made = futures::future::join_all((0..8).map(|_| memory.create_bank(&ann, asked("")))).await;
    let made: Vec<Bank> = made.into_iter().map(Result::unwrap).collect();
    assert!(made.iter().all(|bank| bank.id == made[0].id && bank.purpose == "notes"), "{made:?}");
    assert_eq!(memory.list_banks(&ann, ListBanksRequest::default()).await.unwrap().banks.len(), 1);
    inserted(&memory, &ann, &made[0], vec![text("a", "the cat sat on the mat")]).await;
    let there = memory.create_bank(&admin, asked("ann")).await.unwrap();
    assert_eq!((there.id.as_str(), there.document_count), (made[0].id.as_str(), 1));
    for (cx, request) in [(&bob, asked("")), (&ann, vector_bank()), (&ann, CreateBankRequest { purpose: "other".into(), ..vector_bank() })]
    {
        assert_ne!(memory.create_bank(cx, request).await.unwrap().id, there.id);
    }
    memory.delete_bank(&ann, DeleteBankRequest { id: there.id.clone() }).await.unwrap();
    assert_ne!(memory.create_bank(&ann, asked("")).await.unwrap().id, there.id);
    let crooked = CreateBankRequest { purpose: "a\nb".into(), ..vector_bank() };
    assert_eq!(memory.create_bank(&ann, crooked).await.unwrap_err().field(), Some("purpose"));
}

pub async fn counts_can_be_left_out(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    inserted(&memory, &cx, &bank, vec![text("a", "the cat sat on the mat")]).await;
    let counted = memory.get_bank(&cx, get(&bank.id)).await.unwrap();
    assert_eq!((counted.document_count, counted.chunk_count), (1, 1));
    let bare = memory.get_bank(&cx, GetBankRequest::uncounted(bank.id.as_str())).await.unwrap();
    let nothing = Bank::default();
    let expected = Bank {
        document_count: 0,
        chunk_count: 0,
        bytes_used: 0,
        indexed_share: nothing.indexed_share,
        document_status_counts: nothing.document_status_counts,
        ..counted
    };
    assert_eq!(bare, expected);
    let request = ListBanksRequest { without_counts: true, ..ListBanksRequest::default() };
    assert_eq!(memory.list_banks(&cx, request).await.unwrap().banks, [bare]);
}

pub async fn what_may_change_changes(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let metadata = HashMap::from([("a".to_owned(), "b".to_owned())]);
    let update = UpdateBankRequest {
        id: bank.id.clone(),
        name: Some("new".into()),
        metadata: metadata.clone(),
        replace_metadata: true,
        expires_after_seconds: Some(500),
        shared: Some(true),
    };
    let now = memory.update_bank(&cx, update).await.unwrap();
    assert_eq!((now.name.as_str(), now.metadata, now.shared, now.expires.is_some()), ("new", metadata.clone(), true, true));
    let never = UpdateBankRequest { id: bank.id.clone(), expires_after_seconds: Some(0), ..UpdateBankRequest::default() };
    let now = memory.update_bank(&cx, never).await.unwrap();
    assert_eq!((now.name.as_str(), now.metadata, now.expires, now.created), ("new", metadata, None, bank.created));
}

pub async fn a_deleted_bank_is_gone_with_all_it_had(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    inserted(&memory, &cx, &bank, vec![text("a", "the cat sat on the mat")]).await;
    memory.delete_bank(&cx, DeleteBankRequest { id: bank.id.clone() }).await.unwrap();
    for error in [
        memory.get_bank(&cx, get(&bank.id)).await.unwrap_err(),
        memory.delete_bank(&cx, DeleteBankRequest { id: bank.id.clone() }).await.unwrap_err(),
        memory.query(&cx, query(&bank, "cat", SearchMode::Vector)).await.unwrap_err(),
    ] {
        assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("bank_not_found")));
    }
}

pub async fn lists_cover_the_banks_once_in_either_order(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let mut ids = Vec::new();
    for n in 0..5 {
        let kind = if n == 2 { BankKind::KeyValue } else { BankKind::Keyword };
        ids.push(memory.create_bank(&cx, bank_of(kind)).await.unwrap().id);
    }
    for (newest_first, expected) in [(false, ids.clone()), (true, ids.iter().rev().cloned().collect())] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListBanksRequest { page_size: 2, page_token, newest_first, ..ListBanksRequest::default() };
            let page = memory.list_banks(&cx, request).await.unwrap();
            assert!(page.banks.len() <= 2);
            seen.extend(page.banks.into_iter().map(|bank| bank.id));
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        assert_eq!(seen, expected);
    }
    let of_kind = ListBanksRequest { kind: BankKind::KeyValue.into(), ..ListBanksRequest::default() };
    let listed = memory.list_banks(&cx, of_kind).await.unwrap().banks;
    assert_eq!(listed.iter().map(|bank| &bank.id).collect::<Vec<_>>(), [&ids[2]]);
    let crooked = ListBanksRequest { page_token: "no such page".into(), ..ListBanksRequest::default() };
    assert_eq!(memory.list_banks(&cx, crooked).await.unwrap_err().field(), Some("page_token"));
}

/// The field that is wrong, each time.
pub async fn what_is_wrong_is_named(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let chunking = ChunkingStrategy { max_chunk_tokens: 7, ..ChunkingStrategy::default() };
    let crooked = [
        (CreateBankRequest { kind: 9, ..vector_bank() }, "kind"),
        (CreateBankRequest { embedding_model: "none".into(), ..vector_bank() }, "embedding_model"),
        (CreateBankRequest { embedding_dimension: 9, ..vector_bank() }, "embedding_dimension"),
        (CreateBankRequest { embedding_model: EMBEDDING.into(), ..bank_of(BankKind::Keyword) }, "kind"),
        (CreateBankRequest { chunking: Some(chunking), ..vector_bank() }, "chunking.max_chunk_tokens"),
        (CreateBankRequest { name: "x".repeat(300), ..vector_bank() }, "name"),
        (CreateBankRequest { expires_after_seconds: u64::MAX, ..vector_bank() }, "expires_after_seconds"),
        (CreateBankRequest { metadata: HashMap::from([(String::new(), String::new())]), ..vector_bank() }, "metadata"),
    ];
    for (request, field) in crooked {
        let error = memory.create_bank(&cx, request).await.unwrap_err();
        assert_eq!(error.field(), Some(field), "{error:?}");
    }
    for id in ["", "no-such-bank", "bank_\u{0}", "' OR 1=1 --", "../../etc/passwd", &"x".repeat(5_000)] {
        let error = memory.get_bank(&cx, get(id)).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error:?}");
    }
    let nothing = QueryRequest::default();
    assert_eq!(memory.query(&cx, nothing).await.unwrap_err().field(), Some("bank_ids"));
}

pub async fn an_expired_bank_is_not_there(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, CreateBankRequest { expires_after_seconds: 1_000, ..vector_bank() }).await.unwrap();
    inserted(&memory, &cx, &bank, vec![text("a", "the cat sat on the mat")]).await;
    let active = memory.get_bank(&cx, get(&bank.id)).await.unwrap();
    assert_eq!(active.expires.unwrap().seconds, active.last_active.unwrap().seconds + 1_000);
    // Only now is its time short: to fill it may take longer than that, and even this may.
    let soon = UpdateBankRequest { id: bank.id.clone(), expires_after_seconds: Some(1), ..UpdateBankRequest::default() };
    match memory.update_bank(&cx, soon).await {
        Ok(active) => assert_eq!(active.expires.unwrap().seconds, active.last_active.unwrap().seconds + 1),
        Err(error) => assert_eq!(error.code(), Code::NotFound, "{error:?}"),
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(memory.get_bank(&cx, get(&bank.id)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(memory.query(&cx, query(&bank, "cat", SearchMode::Keyword)).await.unwrap_err().code(), Code::NotFound);
    assert!(memory.list_banks(&cx, ListBanksRequest::default()).await.unwrap().banks.is_empty());
}
