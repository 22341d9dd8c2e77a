//! What is remembered of a person: a bank that they own, one document for each memory.

use std::{collections::HashMap, sync::Arc};

use llama_stack_core::{Code, Context, Error, Memory, Result, ids};
use llama_stack_proto::v1::{
    Bank, BankKind, CreateBankRequest, DeleteDocumentsRequest, Document, GetBankRequest, InsertDocumentsRequest, InvokeToolResponse,
    ListBanksRequest, Part, QueryRequest, SearchMode, Value, document::Content, value::Value as Is,
};
use llama_stack_store::PERSONAL_MEMORY;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::{
    Config, Forget, Recall, Remember, RememberThis,
    search::{provenance, result},
};
use crate::said;

const MAX_TEXT: usize = 4_096;
const DAY: i64 = 24 * 3600;
/// People whose bank is known without asking.
const MAX_KNOWN: usize = 10_000;

pub(super) struct Personal {
    memory: Arc<dyn Memory>,
    config: Remember,
    /// Tenant and principal → bank. Held while one is made, so that nobody gets two; of several processes the purpose sees to that.
    known: Mutex<HashMap<(String, String), String>>,
}

impl Personal {
    pub(super) fn new(memory: Arc<dyn Memory>, config: Remember) -> Self {
        Self { memory, config, known: Mutex::default() }
    }

    /// The id is made of the text: the same is remembered once, and a call that is made again changes nothing.
    pub(super) async fn remember(&self, cx: &Context, asked: RememberThis) -> Result<InvokeToolResponse> {
        let text = asked.text.trim();
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(Error::invalid("text", format!("text must be 1 to {MAX_TEXT} bytes long")));
        }
        let days = i64::from(asked.days.unwrap_or(self.config.keep_days));
        let now = ids::now();
        let mut expires = now;
        expires.seconds += days * DAY;
        let id = format!("mem_{}", &hex::encode(Sha256::digest(text))[..16]);
        let attribute = |text: &str| Value { value: Some(Is::Text(text.into())) };
        let said_at = Value { value: Some(Is::Number(now.seconds as f64)) };
        let document = Document {
            id: id.clone(),
            content: Some(Content::Text(text.into())),
            title: "memory".into(),
            // Who had it remembered, and when.
            attributes: HashMap::from([("by".to_owned(), attribute(&cx.principal().id)), ("at".to_owned(), said_at)]),
            expires: (days > 0).then_some(expires),
            ..Document::default()
        };
        let bank_id = self.bank(cx, true).await?.ok_or_else(|| Error::internal("a person's bank was not made"))?;
        let request = InsertDocumentsRequest { bank_id, documents: vec![document], ..InsertDocumentsRequest::default() };
        if let Some(failure) = self.memory.insert_documents(cx, request).await?.failures.into_iter().next() {
            return Err(failure.error.map_or_else(|| Error::internal("the memory was not kept"), |error| Error::from(&error)));
        }
        Ok(answer("remember", format!("remembered as {id}")))
    }

    pub(super) async fn recall(&self, cx: &Context, asked: Recall, config: &Config) -> Result<InvokeToolResponse> {
        let Some(bank_id) = self.bank(cx, false).await? else {
            return Ok(answer("recall", "nothing is remembered"));
        };
        let mode = if self.config.keyword { SearchMode::Keyword } else { SearchMode::Hybrid };
        let request = QueryRequest {
            bank_ids: vec![bank_id],
            text: asked.query,
            mode: mode.into(),
            top_k: config.top_k,
            max_tokens: config.max_tokens,
            ..QueryRequest::default()
        };
        let found = self.memory.query(cx, request).await?.chunks;
        if found.is_empty() {
            return Ok(answer("recall", "nothing about this is remembered"));
        }
        let parts = found.iter().map(|scored| {
            let chunk = scored.chunk.clone().unwrap_or_default();
            Part::text(format!("[{}] {}", chunk.document_id, chunk.text)).with_provenance(provenance(&scored.bank_id, &chunk.document_id))
        });
        let parts = parts.collect();
        Ok(InvokeToolResponse { parts, is_error: false, search_results: found.into_iter().map(result).collect() })
    }

    pub(super) async fn forget(&self, cx: &Context, asked: Forget) -> Result<InvokeToolResponse> {
        let id = asked.id.trim().trim_matches(['[', ']']).to_owned();
        let nothing = || Error::not_found(format!("nothing is remembered under {id:?}: recall gives the ids"));
        let bank_id = self.bank(cx, false).await?.ok_or_else(nothing)?;
        let request = DeleteDocumentsRequest { bank_id, document_ids: vec![id.clone()], ..DeleteDocumentsRequest::default() };
        match self.memory.delete_documents(cx, request).await?.deleted {
            0 => Err(nothing()),
            _ => Ok(answer("forget", format!("{id} is forgotten"))),
        }
    }

    /// The caller's bank; `None` where there is none and none is to be made.
    async fn bank(&self, cx: &Context, make: bool) -> Result<Option<String>> {
        let person = (cx.tenant().to_owned(), cx.principal().id.clone());
        let known_before = self.known.lock().await.get(&person).cloned();
        if let Some(id) = &known_before {
            match self.memory.get_bank(cx, GetBankRequest::uncounted(id.as_str())).await {
                Ok(_) => return Ok(known_before),
                // Deleted since.
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut known = self.known.lock().await;
        // Somebody may have looked it up meanwhile.
        if let Some(id) = known.get(&person).filter(|id| known_before.as_ref() != Some(*id)) {
            return Ok(Some(id.clone()));
        }
        let id = match self.look_up(cx).await? {
            Some(bank) => bank.id,
            None if !make => return Ok(None),
            None => self.make(cx).await?.id,
        };
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(person, id.clone());
        Ok(Some(id))
    }

    /// The one for this purpose; where there is none, one that is said to be, as they were made once and as copies are.
    async fn look_up(&self, cx: &Context) -> Result<Option<Bank>> {
        let mut request = ListBanksRequest { page_size: 1_000, without_counts: true, ..ListBanksRequest::default() };
        let mut said = None;
        loop {
            let page = self.memory.list_banks(cx, request.clone()).await?;
            for bank in page.banks.into_iter().filter(|bank| bank.owner == cx.principal().id) {
                if bank.purpose == PERSONAL_MEMORY.1 {
                    return Ok(Some(bank));
                }
                if said.is_none() && bank.metadata.get(PERSONAL_MEMORY.0).is_some_and(|is| is == PERSONAL_MEMORY.1) {
                    said = Some(bank);
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(said);
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn make(&self, cx: &Context) -> Result<Bank> {
        let kind = if self.config.keyword { BankKind::Keyword } else { BankKind::Vector };
        let request = CreateBankRequest {
            name: "what is remembered".into(),
            kind: kind.into(),
            provider_id: self.config.provider_id.clone(),
            embedding_model: self.config.embedding_model.clone(),
            metadata: HashMap::from([(PERSONAL_MEMORY.0.to_owned(), PERSONAL_MEMORY.1.to_owned())]),
            purpose: PERSONAL_MEMORY.1.into(),
            ..CreateBankRequest::default()
        };
        self.memory.create_bank(cx, request).await
    }
}

fn answer(tool: &str, text: impl Into<String>) -> InvokeToolResponse {
    InvokeToolResponse { parts: vec![said(tool, text)], ..InvokeToolResponse::default() }
}
