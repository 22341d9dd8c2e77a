//! Deleting all that a tenant, or one person of it, has here: what services keep by their services, and then the rows that are left.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use llama_stack_core::{Agents, Code, Context, Error, Files, Memory, Principal, Prompts, Result, context::named, forget::Keepers};
use llama_stack_proto::v1::{
    CancelTurnRequest, DeleteAgentRequest, DeleteBankRequest, DeleteDocumentsRequest, DeleteFileRequest, DeletePromptRequest,
    DeleteSessionRequest, DeleteTurnRequest, EraseRequest, EraseResponse, ListBanksRequest, ListFilesRequest, ListSessionsRequest, Session,
};
use llama_stack_store::Store;

use crate::{history::Log, limits::Limits};

/// Of a list, at a time.
const PAGE: u32 = 100;
/// Who has this role may erase other tenants than their own.
const OPERATOR: &str = "operator";

/// The services as they are behind every guard.
pub(crate) struct Eraser {
    pub(crate) store: Store,
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) prompts: Arc<dyn Prompts>,
    pub(crate) requests: Arc<Log>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) keepers: Keepers,
    pub(crate) memory_providers: Vec<String>,
    /// Callers are told apart: their roles count.
    pub(crate) is_guarded: bool,
}

type Counts = BTreeMap<String, u64>;

fn count(counts: &mut Counts, what: &str, more: u64) {
    if more > 0 {
        *counts.entry(what.to_owned()).or_default() += more;
    }
}

/// Deleted by somebody else meanwhile is as good.
fn gone<T>(deleted: Result<T>) -> Result<u64> {
    match deleted {
        Ok(_) => Ok(1),
        Err(error) if matches!(error.code(), Code::NotFound | Code::Unimplemented) => Ok(0),
        Err(error) => Err(error),
    }
}

impl Eraser {
    pub(crate) async fn erase(&self, cx: &Context, request: EraseRequest) -> Result<EraseResponse> {
        if request.tenant.is_empty() {
            return Err(Error::invalid("tenant", "tenant must be named: all that it has is deleted, or what principal has of it"));
        }
        let tenant = named("tenant", &request.tenant)?;
        let principal = Some(request.principal).filter(|id| !id.is_empty()).map(|id| named("principal", &id)).transpose()?;
        let may = !self.is_guarded || tenant == cx.tenant() || cx.principal().roles.iter().any(|role| role == OPERATOR);
        if !may {
            let message = "erasing what another tenant has takes the role operator";
            return Err(Error::new(Code::PermissionDenied, message).with_field("tenant").with_reason("not_authorized"));
        }
        let who = Principal { id: "operator".into(), tenant: tenant.clone(), roles: vec!["admin".into()] };
        let (admin, of) = (Context::new(who), principal.as_deref());
        let known = |id: &String| self.memory_providers.contains(id);
        if let Some(unknown) = self.store.bank_providers(&tenant, of).await?.into_iter().find(|id| !known(id)) {
            let message = format!(
                "memory provider {unknown:?} has banks of what is to be erased, and the manifest has not this provider: put it back, so that \
                 all of it can be deleted"
            );
            return Err(Error::failed_precondition(message).with_reason("no_such_provider"));
        }
        let mut counts = Counts::new();
        // First, so that nothing new comes by them; but who asks can ask again if something fails.
        let asks = Some(cx.principal().id.as_str()).filter(|_| tenant == cx.tenant());
        count(&mut counts, "api_keys", self.store.forget_api_keys(&tenant, of, asks).await?);
        // Their lines begin turns and write files. Those under way end with what is deleted below, or at their next write.
        count(&mut counts, "batches", self.store.forget_batches(&tenant, of).await?);
        let turns = match of {
            Some(person) => self.store.turns_of(&tenant, person).await?,
            None => Vec::new(),
        };
        self.sessions(&admin, of, &turns, &mut counts).await?;
        self.banks(&admin, of, &mut counts).await?;
        self.files(&admin, of, &mut counts).await?;
        if let Some(person) = of {
            for id in self.store.owned_by(&tenant, person).await? {
                if id.starts_with("agent_") {
                    count(&mut counts, "agents", gone(self.agents.delete_agent(&admin, DeleteAgentRequest { id }).await)?);
                } else if id.starts_with("pmpt_") {
                    count(&mut counts, "prompts", gone(self.prompts.delete_prompt(&admin, DeletePromptRequest { id }).await)?);
                }
            }
        }
        // What was read for them, now that nothing of theirs is under way. It is the tenant's, whoever of it said it.
        count(&mut counts, "prefixes", self.keepers.forget(&tenant).await?);
        // What waits to be written down of their requests, and of what they used, goes with the rest.
        self.requests.flush().await?;
        self.limits.flush().await?;
        for (table, rows) in self.store.erase_rows(&tenant, of, turns).await? {
            count(&mut counts, &table, rows);
        }
        if asks.is_some() {
            count(&mut counts, "api_keys", self.store.forget_api_keys(&tenant, of, None).await?);
        }
        tracing::info!(target: "llama_stack::audit", by = cx.principal().id, tenant, deleted = ?counts, "erased");
        Ok(EraseResponse { deleted: counts.into_iter().collect() })
    }

    /// Sessions with their turns; and a person's turns in the sessions of others.
    async fn sessions(&self, admin: &Context, of: Option<&str>, turns: &[String], counts: &mut Counts) -> Result<()> {
        let mut request = ListSessionsRequest { page_size: PAGE, ..ListSessionsRequest::default() };
        loop {
            let page = self.agents.list_sessions(admin, request.clone()).await?;
            let owners = match of {
                Some(_) => {
                    let ids: Vec<&str> = page.sessions.iter().map(|session| session.id.as_str()).collect();
                    self.store.owners_of_sessions(admin.tenant(), &ids).await?
                }
                None => HashMap::new(),
            };
            for Session { id, .. } in page.sessions {
                if of.is_none_or(|person| owners.get(&id).is_some_and(|owner| owner == person)) {
                    count(counts, "sessions", gone(self.agents.delete_session(admin, DeleteSessionRequest { id }).await)?);
                }
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        for id in turns {
            // Those of the sessions above have gone with them. Of others some may be under way.
            gone(self.agents.cancel_turn(admin, CancelTurnRequest { id: id.clone() }).await)?;
            gone(self.agents.delete_turn(admin, DeleteTurnRequest { id: id.clone() }).await)?;
        }
        count(counts, "turns", turns.len() as u64);
        Ok(())
    }

    /// Banks, what is remembered of people among them; and a person's documents in the banks of others.
    async fn banks(&self, admin: &Context, of: Option<&str>, counts: &mut Counts) -> Result<()> {
        let mut request = ListBanksRequest { page_size: PAGE, ..ListBanksRequest::default() };
        loop {
            let page = match self.memory.list_banks(admin, request.clone()).await {
                // A stack without memory.
                Err(error) if error.code() == Code::Unimplemented => break,
                page => page?,
            };
            for bank in page.banks.into_iter().filter(|bank| of.is_none_or(|person| bank.owner == person)) {
                count(counts, "documents", bank.document_count);
                count(counts, "banks", gone(self.memory.delete_bank(admin, DeleteBankRequest { id: bank.id }).await)?);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let Some(person) = of else { return Ok(()) };
        for (bank_id, id) in self.store.documents_of(admin.tenant(), person).await? {
            let request = DeleteDocumentsRequest { bank_id, document_ids: vec![id], ..DeleteDocumentsRequest::default() };
            count(counts, "documents", gone(self.memory.delete_documents(admin, request).await)?);
        }
        Ok(())
    }

    async fn files(&self, admin: &Context, of: Option<&str>, counts: &mut Counts) -> Result<()> {
        let mut request = ListFilesRequest { page_size: PAGE, ..ListFilesRequest::default() };
        loop {
            let page = self.files.list_files(admin, request.clone()).await?;
            for file in page.files.into_iter().filter(|file| of.is_none_or(|person| file.owner == person)) {
                count(counts, "files", gone(self.files.delete_file(admin, DeleteFileRequest { id: file.id }).await)?);
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            request.page_token = page.next_page_token;
        }
    }
}
