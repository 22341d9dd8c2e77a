//! Files whose text is handed to providers that keep their banks elsewhere. What is made of a file goes with it, wherever it is: so
//! before a provider of another process is told of one, the store is.

use llama_stack_core::{Code, Context, Error, Memory, Result, forget::Keepers, ids};
use llama_stack_proto::v1::{DeleteDocumentsRequest, Document, InsertDocumentsResponse, document::Content};
use llama_stack_store::Store;

/// What is noted of the banks of some providers.
pub(crate) struct Handed {
    store: Store,
    /// Those who may have kept what models were told of a document.
    keepers: Keepers,
    /// By their ids.
    providers: Vec<String>,
}

/// A document and the file it is made of; empty where it is none.
type Made = (String, String);

impl Handed {
    pub(crate) fn new(store: Store, keepers: Keepers, providers: Vec<String>) -> Self {
        Self { store, keepers, providers }
    }

    pub(crate) fn is_of(&self, provider: &str) -> bool {
        self.providers.iter().any(|id| id == provider)
    }

    /// Before they are inserted: all of them, and those that were not known before. One that is made of a file gets its id here, so
    /// that it is known by it.
    pub(crate) async fn note(&self, tenant: &str, bank: &str, documents: &mut [Document]) -> Result<(Vec<Made>, Vec<Made>)> {
        let mut all = Vec::with_capacity(documents.len());
        for document in documents {
            let file = match &document.content {
                Some(Content::FileId(file)) => file.clone(),
                _ => String::new(),
            };
            if document.id.is_empty() && !file.is_empty() {
                document.id = ids::new("doc");
            }
            all.push((document.id.clone(), file));
        }
        let mut new = of_files(&all);
        let known = self.store.handed_documents(tenant, bank, &new).await?;
        new.retain(|made| !known.contains(made));
        self.store.note_handed(tenant, bank, new.clone()).await?;
        Ok((all, new))
    }

    /// What the provider has said to that. If it refused all of it, what was not known before is not known.
    pub(crate) async fn answered<T>(&self, tenant: &str, bank: &str, new: Vec<Made>, answer: Result<T>) -> Result<T> {
        let refused = |error: &Error| {
            matches!(error.code(), Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::TooLarge | Code::Unimplemented)
        };
        if answer.as_ref().err().is_some_and(refused) {
            self.store.forget_handed(tenant, bank, new).await?;
        }
        answer
    }

    /// Once the provider has them: those whose file was deleted meanwhile go after it, as who deleted it may have found none yet.
    pub(crate) async fn check(&self, cx: &Context, provider: &dyn Memory, bank: &str, made: &[Made]) -> Result<()> {
        let made = of_files(made);
        let known = self.store.handed_documents(cx.tenant(), bank, &made).await?;
        for (document, file) in made.into_iter().filter(|made| !known.contains(made)) {
            let request = DeleteDocumentsRequest { bank_id: bank.into(), document_ids: vec![document], file_id: file };
            provider.delete_documents(cx, request).await?;
        }
        Ok(())
    }

    /// What is in place is not of any other file any more. In the background it is not known yet what comes of it.
    pub(crate) async fn settle(&self, tenant: &str, bank: &str, made: Vec<Made>, answer: &InsertDocumentsResponse) -> Result<()> {
        if answer.ingestion.is_some() {
            return Ok(());
        }
        let inserted = made.into_iter().filter(|(document, _)| answer.document_ids.contains(document)).collect();
        self.store.settle_handed(tenant, bank, inserted).await
    }

    /// After they are deleted; only as far as they are of this file, where one is named.
    pub(crate) async fn forget(&self, tenant: &str, bank: &str, documents: Vec<String>, file: &str) -> Result<()> {
        if self.store.forget_quotes(tenant, bank, &documents).await? {
            self.keepers.forget(tenant).await?;
        }
        self.settled(tenant, bank, documents, file).await
    }

    /// They are not of this file any more; or of none at all, where none is named.
    pub(crate) async fn settled(&self, tenant: &str, bank: &str, documents: Vec<String>, file: &str) -> Result<()> {
        let which = documents.into_iter().map(|document| (document, file.to_owned())).collect();
        self.store.forget_handed(tenant, bank, which).await
    }

    pub(crate) async fn forget_bank(&self, tenant: &str, bank: &str) -> Result<()> {
        if self.store.forget_quotes_of_bank(tenant, bank).await? {
            self.keepers.forget(tenant).await?;
        }
        self.store.forget_handed_bank(tenant, bank).await
    }
}

fn of_files(made: &[Made]) -> Vec<Made> {
    made.iter().filter(|(_, file)| !file.is_empty()).cloned().collect()
}
