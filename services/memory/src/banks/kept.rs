//! Banks themselves: made, described, changed, listed, deleted.

use llama_stack_core::{Code, Context, Error, Result, context::named, ids};
use llama_stack_proto::v1::{
    Bank, BankKind, CreateBankRequest, DeleteBankResponse, DocumentStatus, GetBankRequest, ListBanksRequest, ListBanksResponse,
    UpdateBankRequest,
};
use llama_stack_store::BankList;

use super::{
    Banks,
    access::{Want, is_admin, key},
    valid,
};
use crate::index::Shape;

/// Numbers of a vector.
const MAX_DIMENSION: u32 = 65_536;

/// Whose a new bank is.
fn owner(cx: &Context, asked: &str) -> Result<String> {
    let own = &cx.principal().id;
    match asked {
        "" => Ok(own.clone()),
        asked if asked == own => Ok(own.clone()),
        asked if is_admin(cx) => named("owner", asked),
        _ => {
            let message = "a bank is its maker's: making one for somebody else takes the role admin";
            Err(Error::new(Code::PermissionDenied, message).with_field("owner").with_reason("not_authorized"))
        }
    }
}

impl Banks {
    pub(super) async fn create(&self, cx: &Context, request: CreateBankRequest) -> Result<Bank> {
        valid::name(&request.name)?;
        valid::metadata(&request.metadata)?;
        valid::expiry(request.expires_after_seconds)?;
        let kind = match BankKind::try_from(request.kind) {
            Ok(BankKind::Unspecified) => BankKind::Vector,
            Ok(kind) => kind,
            Err(_) => return Err(Error::invalid("kind", "kind must be vector, keyword or key_value")),
        };
        let chunking = request.chunking.as_ref().map(llama_stack_documents::validate).transpose()?;
        let (embedding_model, embedding_dimension) = match kind {
            BankKind::Vector => self.vectors(cx, &request).await?,
            _ if !request.embedding_model.is_empty() || request.embedding_dimension > 0 => {
                return Err(Error::invalid("kind", "only vector banks have an embedding model and a dimension"));
            }
            _ => (String::new(), 0),
        };
        let owner = owner(cx, &request.owner)?;
        let now = ids::now();
        if !request.purpose.is_empty() {
            valid::id("purpose", &request.purpose)?;
            if let Some(there) = self.store.bank_for(cx.tenant(), &self.provider_id, &owner, &request.purpose, &now).await? {
                return self.described(cx.tenant(), there).await;
            }
        }
        let bank = Bank {
            id: ids::new("bank"),
            name: request.name,
            provider_id: self.provider_id.clone(),
            kind: kind.into(),
            embedding_model,
            embedding_dimension,
            chunking,
            metadata: request.metadata,
            created: Some(now),
            last_active: Some(now),
            owner,
            shared: request.shared,
            expires_after_seconds: request.expires_after_seconds,
            purpose: request.purpose,
            ..Bank::default()
        };
        let key = key(cx.tenant(), &bank.id);
        // The index first: a bank that is told exists in whole.
        self.index.create(&key, &shape(&bank)).await?;
        while !self.store.insert_bank(cx.tenant(), &bank).await? {
            // Somebody was faster; unless that one is gone again.
            if let Some(there) = self.store.bank_for(cx.tenant(), &self.provider_id, &bank.owner, &bank.purpose, &ids::now()).await? {
                self.index.remove(&key).await?;
                return self.described(cx.tenant(), there).await;
            }
        }
        self.get(cx, &GetBankRequest::new(bank.id)).await
    }

    /// The model and the dimension of a new vector bank.
    async fn vectors(&self, cx: &Context, request: &CreateBankRequest) -> Result<(String, u32)> {
        let asked = request.embedding_dimension;
        if asked > MAX_DIMENSION {
            return Err(Error::invalid("embedding_dimension", format!("embedding_dimension must be at most {MAX_DIMENSION}")));
        }
        if request.embedding_model.is_empty() && asked > 0 {
            return Ok((String::new(), asked));
        }
        let model = self.embedding_model(cx, &request.embedding_model).await?;
        let dimension = self.dimension(cx, &model).await?;
        if asked > 0 && asked != dimension {
            let message = format!("{model} makes vectors of {dimension} numbers, not {asked}");
            return Err(Error::invalid("embedding_dimension", message).with_reason("wrong_dimension"));
        }
        Ok((model, dimension))
    }

    pub(super) async fn get(&self, cx: &Context, request: &GetBankRequest) -> Result<Bank> {
        let bank = self.open(cx, &request.id, Want::Read).await?;
        if request.without_counts { Ok(bank) } else { self.described(cx.tenant(), bank).await }
    }

    /// With its counts.
    async fn described(&self, tenant: &str, mut bank: Bank) -> Result<Bank> {
        let counts = self.store.count_documents(tenant, &bank.id).await?;
        let mut kept = 0;
        for (status, documents, bytes) in counts {
            bank.document_count += documents;
            kept += bytes;
            bank.document_status_counts.insert(status_name(status).into(), documents);
        }
        match self.index.stats(&key(tenant, &bank.id)).await {
            Ok(stats) => {
                bank.chunk_count = stats.chunks;
                bank.indexed_share = stats.indexed_share;
                bank.bytes_used = stats.bytes;
            }
            // Deleted between the two looks.
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
        if bank.kind() == BankKind::KeyValue {
            bank.bytes_used = kept;
        }
        Ok(bank)
    }

    pub(super) async fn update(&self, cx: &Context, request: UpdateBankRequest) -> Result<Bank> {
        let mut bank = self.open(cx, &request.id, Want::Change).await?;
        if let Some(name) = request.name {
            valid::name(&name)?;
            bank.name = name;
        }
        if request.replace_metadata {
            valid::metadata(&request.metadata)?;
            bank.metadata = request.metadata;
        } else if !request.metadata.is_empty() {
            let message = "metadata is replaced as a whole: set replace_metadata";
            return Err(Error::invalid("replace_metadata", message));
        }
        if let Some(seconds) = request.expires_after_seconds {
            valid::expiry(seconds)?;
            bank.expires_after_seconds = seconds;
        }
        bank.shared = request.shared.unwrap_or(bank.shared);
        let now = ids::now();
        self.store.touch_bank(cx.tenant(), &bank, &now).await?;
        bank.last_active = Some(now);
        self.store.update_bank(cx.tenant(), &bank).await?;
        self.get(cx, &GetBankRequest::new(bank.id)).await
    }

    pub(super) async fn list(&self, cx: &Context, request: ListBanksRequest) -> Result<ListBanksResponse> {
        if BankKind::try_from(request.kind).is_err() {
            return Err(Error::invalid("kind", "kind must be vector, keyword or key_value"));
        }
        let list = BankList {
            provider_id: &self.provider_id,
            principal: Some(cx.principal().id.as_str()).filter(|_| !is_admin(cx)),
            kind: request.kind,
            newest_first: request.newest_first,
            page_size: request.page_size,
            page_token: &request.page_token,
        };
        let (listed, next_page_token) = self.store.list_banks(cx.tenant(), list, &ids::now()).await?;
        let mut banks = Vec::with_capacity(listed.len());
        for bank in listed {
            banks.push(if request.without_counts { bank } else { self.described(cx.tenant(), bank).await? });
        }
        Ok(ListBanksResponse { banks, next_page_token })
    }

    pub(super) async fn delete(&self, cx: &Context, id: &str) -> Result<DeleteBankResponse> {
        let bank = self.open(cx, id, Want::Change).await?;
        self.store.doom_bank(cx.tenant(), &self.provider_id, &bank.id).await?;
        // From here on it is not there; if what follows is cut off, the next sweep ends it.
        self.end(cx.tenant(), &bank.id).await?;
        Ok(DeleteBankResponse {})
    }

    /// Removes what a bank has whose deletion has begun. Idempotent.
    pub(super) async fn end(&self, tenant: &str, id: &str) -> Result<()> {
        let key = key(tenant, id);
        let _alone = self.0.locks.bank(&key).await;
        self.index.remove(&key).await?;
        if self.store.forget_quotes_of_bank(tenant, id).await? {
            self.keepers.forget(tenant).await?;
        }
        self.store.delete_bank(tenant, &self.provider_id, id).await
    }
}

/// Words are searched in vector banks as well, so that every one of them can be searched both ways.
pub fn shape(bank: &Bank) -> Shape {
    Shape { dimension: bank.embedding_dimension, keyword: bank.kind() != BankKind::KeyValue }
}

fn status_name(status: DocumentStatus) -> &'static str {
    match status {
        DocumentStatus::InProgress => "in_progress",
        DocumentStatus::Completed => "completed",
        DocumentStatus::Failed => "failed",
        DocumentStatus::Cancelled => "cancelled",
        DocumentStatus::Unspecified => "unknown",
    }
}
