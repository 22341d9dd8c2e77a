//! Bank id → provider.

use std::sync::Arc;

use llama_stack_core::{Code, Context, Error, EventStream, Memory, Result, forget::Keepers};
use llama_stack_proto::v1::{
    Bank, CancelIngestionRequest, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, DeleteDocumentsRequest,
    DeleteDocumentsResponse, Document, GetBankRequest, GetDocumentRequest, GetIngestionRequest, Ingestion, InsertChunksRequest,
    InsertChunksResponse, InsertDocumentsRequest, InsertDocumentsResponse, ListBanksRequest, ListBanksResponse, ListChunksRequest,
    ListChunksResponse, ListDocumentsRequest, ListDocumentsResponse, QueryRequest, QueryResponse, UpdateBankRequest, UpdateDocumentRequest,
};
use llama_stack_store::Store;

use crate::{banks::MAX_BANKS, handed::Handed, spread};

/// The banks of all providers as one service.
///
/// It keeps no list of banks: with one provider every call goes there, with more they are asked in the manifest's order
/// whose the bank is. Without any, every method is `Unimplemented`.
pub struct Router {
    providers: Vec<(String, Arc<dyn Memory>)>,
    handed: Option<Handed>,
}

type Provider = (String, Arc<dyn Memory>);

impl Router {
    /// Providers by id, in the manifest's order. The first makes the banks that name no provider.
    pub fn new(providers: Vec<Provider>) -> Self {
        Self { providers, handed: None }
    }

    /// Notes in the store which documents of these providers, that keep their banks elsewhere, are made of files here: so they are
    /// [found](Store::documents_of_file) when a file goes.
    pub fn noting(self, store: Store, keepers: Keepers, elsewhere: Vec<String>) -> Self {
        Self { handed: Some(Handed::new(store, keepers, elsewhere)), ..self }
    }

    /// What is noted of a provider's banks, if it is one of those.
    fn handed(&self, provider: &str) -> Option<&Handed> {
        self.handed.as_ref().filter(|handed| handed.is_of(provider))
    }

    fn first(&self) -> Result<&Provider> {
        self.providers.first().ok_or_else(|| {
            let message = "this stack has no memory: the manifest names no provider under providers.memory";
            Error::new(Code::Unimplemented, message).with_reason("no_memory_provider")
        })
    }

    fn named(&self, id: &str) -> Result<&Provider> {
        let first = self.first()?;
        if id.is_empty() {
            return Ok(first);
        }
        self.providers.iter().find(|(there, _)| there == id).ok_or_else(|| {
            let there: Vec<&str> = self.providers.iter().map(|(id, _)| id.as_str()).collect();
            Error::not_found(format!("no memory provider {id:?}; there is: {}", there.join(", "))).with_field("provider_id")
        })
    }

    /// Whose bank it is.
    ///
    /// # Errors
    /// `NotFound` where no provider has it · the error of a provider that could not be asked, where no other has it.
    async fn owner(&self, cx: &Context, bank: &str) -> Result<&Provider> {
        let first = self.first()?;
        if self.providers.len() == 1 {
            return Ok(first);
        }
        Ok(self.find(cx, bank).await?.0)
    }

    /// A bank, and whose it is.
    ///
    /// # Errors
    /// As those of [`Router::owner`].
    async fn find(&self, cx: &Context, bank: &str) -> Result<(&Provider, Bank)> {
        let mut failed = None;
        for provider in &self.providers {
            match cx.within(provider.1.get_bank(cx, GetBankRequest::uncounted(bank))).await {
                Ok(bank) => return Ok((provider, bank)),
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => failed = Some(error.context(&provider.0)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::not_found(format!("no bank {bank:?}")).with_reason("bank_not_found")))
    }
}

/// A bank under the id that its provider has here.
fn label((id, _): &Provider, mut bank: Bank) -> Bank {
    id.clone_into(&mut bank.provider_id);
    bank
}

/// What a provider finds in banks that are its own.
///
/// # Errors
/// Its own, or `Unavailable` where what it found is not of these banks, or cannot be put in an order.
pub(crate) async fn ask(cx: &Context, (id, provider): &Provider, request: QueryRequest) -> Result<QueryResponse> {
    let banks = request.bank_ids.clone();
    let answer = cx.within(provider.query(cx, request)).await?;
    let wrong = answer.chunks.iter().find_map(|found| {
        if found.chunk.is_none() {
            return Some("a result without its chunk".to_owned());
        }
        if !found.score.is_finite() {
            return Some(format!("a result with the score {}", found.score));
        }
        (!banks.contains(&found.bank_id)).then(|| format!("a result of the bank {:?}, which was not asked for", found.bank_id))
    });
    match wrong {
        Some(wrong) => {
            Err(Error::unavailable(format!("provider {id:?} sent what is no answer: {wrong}")).with_reason("upstream_malformed"))
        }
        None => Ok(answer),
    }
}

#[async_trait::async_trait]
impl Memory for Router {
    async fn create_bank(&self, cx: &Context, mut request: CreateBankRequest) -> Result<Bank> {
        let provider = self.named(&request.provider_id)?;
        // It names a provider of this stack; another stack has its own.
        request.provider_id.clear();
        Ok(label(provider, cx.within(provider.1.create_bank(cx, request)).await?))
    }

    async fn get_bank(&self, cx: &Context, request: GetBankRequest) -> Result<Bank> {
        let provider = self.owner(cx, &request.id).await?;
        Ok(label(provider, cx.within(provider.1.get_bank(cx, request)).await?))
    }

    async fn update_bank(&self, cx: &Context, request: UpdateBankRequest) -> Result<Bank> {
        let provider = self.owner(cx, &request.id).await?;
        Ok(label(provider, cx.within(provider.1.update_bank(cx, request)).await?))
    }

    /// One provider after the other; a page never spans two.
    async fn list_banks(&self, cx: &Context, mut request: ListBanksRequest) -> Result<ListBanksResponse> {
        self.first()?;
        let bad = || Error::invalid("page_token", "page_token is not one that this list gave").with_reason("bad_page_token");
        let (at, token) = match request.page_token.split_once(':') {
            None if request.page_token.is_empty() => (0, String::new()),
            None => return Err(bad()),
            Some((at, token)) => (at.parse::<usize>().map_err(|_| bad())?, token.to_owned()),
        };
        let provider = self.providers.get(at).ok_or_else(bad)?;
        request.page_token = token;
        let page = cx.within(provider.1.list_banks(cx, request)).await?;
        let next_page_token = match page.next_page_token.as_str() {
            "" if at + 1 < self.providers.len() => format!("{}:", at + 1),
            "" => String::new(),
            token => format!("{at}:{token}"),
        };
        Ok(ListBanksResponse { banks: page.banks.into_iter().map(|bank| label(provider, bank)).collect(), next_page_token })
    }

    async fn delete_bank(&self, cx: &Context, request: DeleteBankRequest) -> Result<DeleteBankResponse> {
        let (id, provider) = self.owner(cx, &request.id).await?;
        let bank = request.id.clone();
        let deleted = cx.within(provider.delete_bank(cx, request)).await?;
        if let Some(handed) = self.handed(id) {
            handed.forget_bank(cx.tenant(), &bank).await?;
        }
        Ok(deleted)
    }

    async fn insert_documents(&self, cx: &Context, mut request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        let (id, provider) = self.owner(cx, &request.bank_id).await?;
        let Some(handed) = self.handed(id) else { return cx.within(provider.insert_documents(cx, request)).await };
        let bank = request.bank_id.clone();
        let (made, new) = handed.note(cx.tenant(), &bank, &mut request.documents).await?;
        let answer = cx.within(provider.insert_documents(cx, request)).await;
        let answer = handed.answered(cx.tenant(), &bank, new, answer).await?;
        cx.within(handed.check(cx, provider.as_ref(), &bank, &made)).await?;
        handed.settle(cx.tenant(), &bank, made, &answer).await?;
        Ok(answer)
    }

    async fn insert_chunks(&self, cx: &Context, mut request: InsertChunksRequest) -> Result<InsertChunksResponse> {
        let (id, provider) = self.owner(cx, &request.bank_id).await?;
        let Some(handed) = self.handed(id) else { return cx.within(provider.insert_chunks(cx, request)).await };
        let bank = request.bank_id.clone();
        let (made, new) = handed.note(cx.tenant(), &bank, &mut request.documents).await?;
        let answer = cx.within(provider.insert_chunks(cx, request)).await;
        let answer = handed.answered(cx.tenant(), &bank, new, answer).await?;
        cx.within(handed.check(cx, provider.as_ref(), &bank, &made)).await?;
        Ok(answer)
    }

    async fn get_document(&self, cx: &Context, request: GetDocumentRequest) -> Result<Document> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.get_document(cx, request)).await
    }

    async fn list_documents(&self, cx: &Context, request: ListDocumentsRequest) -> Result<ListDocumentsResponse> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.list_documents(cx, request)).await
    }

    async fn delete_documents(&self, cx: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        let (id, provider) = self.owner(cx, &request.bank_id).await?;
        let Some(handed) = self.handed(id) else { return cx.within(provider.delete_documents(cx, request)).await };
        let DeleteDocumentsRequest { bank_id, document_ids, file_id } = request.clone();
        let answer = cx.within(provider.delete_documents(cx, request)).await;
        match &answer {
            // All of them are of something else by now.
            Ok(answer) if answer.deleted == 0 && !file_id.is_empty() => {
                handed.settled(cx.tenant(), &bank_id, document_ids, &file_id).await?
            }
            Ok(_) => handed.forget(cx.tenant(), &bank_id, document_ids, &file_id).await?,
            // Nothing of the bank is there any more, whoever deleted it.
            Err(error) if error.code() == Code::NotFound => handed.forget(cx.tenant(), &bank_id, document_ids, &file_id).await?,
            Err(_) => {}
        }
        answer
    }

    async fn update_document(&self, cx: &Context, request: UpdateDocumentRequest) -> Result<Document> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.update_document(cx, request)).await
    }

    async fn list_chunks(&self, cx: &Context, request: ListChunksRequest) -> Result<ListChunksResponse> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.list_chunks(cx, request)).await
    }

    async fn get_ingestion(&self, cx: &Context, request: GetIngestionRequest) -> Result<Ingestion> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.get_ingestion(cx, request)).await
    }

    async fn cancel_ingestion(&self, cx: &Context, request: CancelIngestionRequest) -> Result<Ingestion> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.cancel_ingestion(cx, request)).await
    }

    async fn watch_ingestion(&self, cx: &Context, request: GetIngestionRequest) -> Result<EventStream<Ingestion>> {
        let (_, provider) = self.owner(cx, &request.bank_id).await?;
        cx.within(provider.watch_ingestion(cx, request)).await
    }

    async fn query(&self, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        let first = self.first()?;
        if request.bank_ids.is_empty() {
            return Err(Error::invalid("bank_ids", "bank_ids is empty: name at least one bank"));
        }
        if self.providers.len() == 1 {
            return ask(cx, first, request).await;
        }
        // Before each is looked for.
        if request.bank_ids.len() > MAX_BANKS {
            let message = format!("bank_ids must name 1 to {MAX_BANKS} banks, not {}", request.bank_ids.len());
            return Err(Error::invalid("bank_ids", message));
        }
        let mut asked: Vec<spread::Asked<'_>> = Vec::new();
        for id in &request.bank_ids {
            let (provider, bank) = self.find(cx, id).await?;
            match asked.iter_mut().find(|((there, _), _)| *there == provider.0) {
                Some((_, banks)) if banks.iter().any(|there| there.id == bank.id) => {}
                Some((_, banks)) => banks.push(bank),
                None => asked.push((provider, vec![bank])),
            }
        }
        match asked.as_slice() {
            [(only, _)] => ask(cx, only, request).await,
            several => spread::query(cx, several, request).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{BankKind, Chunk, ScoredChunk, SearchMode, document::Content};
    use llama_stack_store::Durability;

    use super::*;

    /// Has one bank, named like itself.
    struct One(&'static str);

    #[async_trait::async_trait]
    impl Memory for One {
        async fn create_bank(&self, _cx: &Context, request: CreateBankRequest) -> Result<Bank> {
            assert!(request.provider_id.is_empty());
            Ok(Bank { id: self.0.into(), name: request.name, provider_id: "its own".into(), ..Bank::default() })
        }

        async fn get_bank(&self, _cx: &Context, request: GetBankRequest) -> Result<Bank> {
            let bank = |id| Bank { id, kind: BankKind::Vector.into(), embedding_model: "m".into(), ..Bank::default() };
            if request.id == self.0 { Ok(bank(request.id)) } else { Err(Error::not_found("no such bank")) }
        }

        async fn list_banks(&self, _cx: &Context, request: ListBanksRequest) -> Result<ListBanksResponse> {
            assert!(request.page_token.is_empty());
            Ok(ListBanksResponse { banks: vec![Bank { id: self.0.into(), ..Bank::default() }], ..Default::default() })
        }

        async fn query(&self, _cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
            assert_eq!(request.bank_ids, [self.0]);
            if request.text == "fail" && self.0 == "blue" {
                return Err(Error::unavailable("its index does not answer"));
            }
            let chunk = |rank: u32| Chunk { id: format!("{}{rank}", self.0), text: "some words".into(), ..Chunk::default() };
            let score = |rank: u32| if self.0 == "red" { 9.0 - rank as f32 } else { 0.9 - rank as f32 / 10.0 };
            let scored = |rank| ScoredChunk { chunk: Some(chunk(rank)), bank_id: self.0.into(), score: score(rank) };
            let (chunks, queries) = ((0..3).map(scored).collect(), vec![request.text]);
            Ok(QueryResponse { chunks, queries, next_page_token: "more".into() })
        }
    }

    fn router(banks: &[&'static str]) -> Router {
        Router::new(banks.iter().map(|bank| (format!("at-{bank}"), Arc::new(One(bank)) as Arc<dyn Memory>)).collect())
    }

    fn query(banks: &[&str]) -> QueryRequest {
        QueryRequest { bank_ids: banks.iter().map(|bank| (*bank).to_owned()).collect(), ..QueryRequest::default() }
    }

    #[tokio::test]
    async fn without_a_provider_every_answer_says_so() {
        let (router, cx) = (router(&[]), Context::test("a"));
        let errors = [
            router.create_bank(&cx, CreateBankRequest::default()).await.unwrap_err(),
            router.get_bank(&cx, GetBankRequest::new("x")).await.unwrap_err(),
            router.list_banks(&cx, ListBanksRequest::default()).await.unwrap_err(),
            router.insert_documents(&cx, InsertDocumentsRequest::default()).await.unwrap_err(),
            router.query(&cx, query(&[])).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), Code::Unimplemented);
            assert!(error.message().contains("providers.memory"), "{error}");
        }
    }

    /// Else it could not be deleted, where the provider deletes no documents either.
    #[tokio::test]
    async fn a_file_that_a_provider_refused_is_not_noted() {
        let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
        let (router, cx) = (router(&["red"]).noting(store.clone(), Keepers::default(), vec!["at-red".into()]), Context::test("a"));
        let document = Document { id: "a".into(), content: Some(Content::FileId("file-1".into())), ..Document::default() };
        let request = InsertDocumentsRequest { bank_id: "red".into(), documents: vec![document], ..InsertDocumentsRequest::default() };
        assert_eq!(router.insert_documents(&cx, request).await.unwrap_err().code(), Code::Unimplemented);
        assert!(store.documents_of_file("a", "file-1").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_new_bank_goes_to_the_provider_that_is_named_else_to_the_first() {
        let (router, cx) = (router(&["red", "blue"]), Context::test("a"));
        for (asked, made_by) in [("", "at-red"), ("at-blue", "at-blue")] {
            let request = CreateBankRequest { provider_id: asked.into(), ..CreateBankRequest::default() };
            assert_eq!(router.create_bank(&cx, request).await.unwrap().provider_id, made_by);
        }
        let request = CreateBankRequest { provider_id: "at-green".into(), ..CreateBankRequest::default() };
        assert!(router.create_bank(&cx, request).await.unwrap_err().message().contains("at-red, at-blue"));
    }

    #[tokio::test]
    async fn a_bank_is_found_at_its_provider() {
        let (router, cx) = (router(&["red", "blue"]), Context::test("a"));
        assert_eq!(router.get_bank(&cx, GetBankRequest::new("blue")).await.unwrap().provider_id, "at-blue");
        assert_eq!(router.get_bank(&cx, GetBankRequest::new("green")).await.unwrap_err().code(), Code::NotFound);
        assert!(router.query(&cx, query(&["blue"])).await.is_ok());
        assert_eq!(router.query(&cx, query(&[])).await.unwrap_err().field(), Some("bank_ids"));
    }

    #[tokio::test]
    async fn banks_of_several_providers_are_searched_as_one() {
        let (router, cx) = (router(&["red", "blue"]), Context::test("a"));
        let asked =
            |mode: SearchMode| QueryRequest { text: "words".into(), mode: mode.into(), top_k: 4, ..query(&["blue", "red", "blue"]) };
        let found = async |request: QueryRequest| {
            let answer = router.query(&cx, request).await.unwrap();
            assert_eq!((answer.queries, answer.next_page_token), (vec!["words".to_owned()], String::new()));
            answer.chunks.into_iter().map(|scored| scored.chunk.unwrap().id).collect::<Vec<String>>()
        };
        // Cosines of one model are compared; what words are worth differs from index to index, and places are.
        assert_eq!(found(asked(SearchMode::Vector)).await, ["red0", "red1", "red2", "blue0"]);
        for request in [asked(SearchMode::Keyword), QueryRequest { mmr_lambda: Some(0.5), ..asked(SearchMode::Vector) }] {
            assert_eq!(found(request).await, ["blue0", "red0", "blue1", "red1"]);
        }
        // One budget for all, and the first is there whatever it takes.
        assert_eq!(found(QueryRequest { max_tokens: 1, ..asked(SearchMode::Keyword) }).await, ["blue0"]);
    }

    #[tokio::test]
    async fn a_search_over_several_providers_is_whole_or_refused() {
        let (router, cx) = (router(&["red", "blue"]), Context::test("a"));
        let asked = QueryRequest { text: "words".into(), ..query(&["blue", "red"]) };
        let refused = async |request: QueryRequest| router.query(&cx, request).await.unwrap_err();
        let error = refused(QueryRequest { text: "fail".into(), ..asked.clone() }).await;
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().starts_with("at-blue: "), "{error}");
        assert_eq!(refused(QueryRequest { page_token: "more".into(), ..asked.clone() }).await.field(), Some("page_token"));
        assert_eq!(refused(QueryRequest { top_k: 1_001, ..asked }).await.field(), Some("top_k"));
        assert_eq!(refused(query(&["blue", "green"])).await.code(), Code::NotFound);
    }

    /// Its answers are made of nonsense: what stands in `text` is wrong with them.
    struct Crooked;

    #[async_trait::async_trait]
    impl Memory for Crooked {
        async fn query(&self, _cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
            let right = ScoredChunk { chunk: Some(Chunk::default()), bank_id: "red".into(), score: 0.5 };
            let found = match request.text.as_str() {
                "chunk" => ScoredChunk { chunk: None, ..right },
                "score" => ScoredChunk { score: f32::NAN, ..right },
                "bank" => ScoredChunk { bank_id: "of-somebody-else".into(), ..right },
                _ => right,
            };
            Ok(QueryResponse { chunks: vec![found], ..QueryResponse::default() })
        }
    }

    /// A passage of another's bank is nobody's to read, whatever a provider thinks of it.
    #[tokio::test]
    async fn what_is_no_finding_is_not_passed_on() {
        let router = Router::new(vec![("far".into(), Arc::new(Crooked) as Arc<dyn Memory>)]);
        let asked = |text: &str| QueryRequest { text: text.into(), ..query(&["red"]) };
        assert_eq!(router.query(&Context::test("a"), asked("right")).await.unwrap().chunks.len(), 1);
        for wrong in ["chunk", "score", "bank"] {
            let error = router.query(&Context::test("a"), asked(wrong)).await.unwrap_err();
            assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_malformed")));
            assert!(error.message().contains("\"far\"") && error.message().contains(wrong), "{error}");
        }
    }

    #[tokio::test]
    async fn the_list_covers_every_provider_once() {
        let (router, cx) = (router(&["red", "blue"]), Context::test("a"));
        let (mut seen, mut request) = (Vec::new(), ListBanksRequest::default());
        loop {
            let page = router.list_banks(&cx, request).await.unwrap();
            seen.extend(page.banks.into_iter().map(|bank| (bank.id, bank.provider_id)));
            if page.next_page_token.is_empty() {
                break;
            }
            request = ListBanksRequest { page_token: page.next_page_token, ..ListBanksRequest::default() };
        }
        assert_eq!(seen, [("red".into(), "at-red".into()), ("blue".into(), "at-blue".into())]);
        let crooked = ListBanksRequest { page_token: "9:".into(), ..ListBanksRequest::default() };
        assert_eq!(router.list_banks(&cx, crooked).await.unwrap_err().field(), Some("page_token"));
    }
}
