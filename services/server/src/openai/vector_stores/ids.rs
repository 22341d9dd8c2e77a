//! Ids as clients know them, and as the stack does; and what is told of an id that leads nowhere.

use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{Bank, BankKind, GetBankRequest};

use crate::http::AppState;

/// The id under which clients know a bank. That of a bank which another provider named is the bank's own.
pub(crate) fn store_id(bank_id: &str) -> String {
    bank_id.strip_prefix("bank_").map_or_else(|| bank_id.to_owned(), |stem| format!("vs_{stem}"))
}

/// The bank that a client means.
pub(crate) fn bank_id(store_id: &str) -> String {
    store_id.strip_prefix("vs_").map_or_else(|| store_id.to_owned(), |stem| format!("bank_{stem}"))
}

/// The id under which clients know an ingestion.
pub(super) fn batch_id(ingestion_id: &str) -> String {
    ingestion_id.strip_prefix(INGESTION).map_or_else(|| ingestion_id.to_owned(), |stem| format!("vsfb_{stem}"))
}

/// The ingestion that a client means.
pub(super) fn ingestion_id(batch_id: &str) -> String {
    batch_id.strip_prefix("vsfb_").map_or_else(|| batch_id.to_owned(), |stem| format!("{INGESTION}{stem}"))
}

const INGESTION: &str = "ing_";

/// The bank of a vector store, without its counts. One of another kind is none.
///
/// # Errors
/// `NotFound`
pub(super) async fn find(state: &AppState, cx: &Context, id: &str) -> Result<Bank> {
    got(state, cx, id, GetBankRequest::uncounted(bank_id(id))).await
}

/// [`find`], with what it holds.
///
/// # Errors
/// `NotFound`
pub(super) async fn counted(state: &AppState, cx: &Context, id: &str) -> Result<Bank> {
    got(state, cx, id, GetBankRequest::new(bank_id(id))).await
}

async fn got(state: &AppState, cx: &Context, id: &str, request: GetBankRequest) -> Result<Bank> {
    let bank = state.memory.get_bank(cx, request).await.map_err(|error| no_store(error, id))?;
    if matches!(bank.kind(), BankKind::Vector | BankKind::Unspecified) { Ok(bank) } else { Err(missing(id)) }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("no vector store {id:?}")).with_reason("vector_store_not_found")
}

/// An error about a bank, as one about the store that it is.
pub(crate) fn no_store(error: Error, id: &str) -> Error {
    let banks = error.code() == Code::NotFound && error.reason().is_none_or(|reason| reason == "bank_not_found");
    if banks { missing(id) } else { error }
}

/// An error about a document, as one about the file that it is.
pub(super) fn no_file(error: Error, store: &str, file: &str) -> Error {
    if error.code() != Code::NotFound || error.reason() == Some("bank_not_found") {
        return no_store(error, store);
    }
    Error::not_found(format!("no file {file:?} in vector store {store:?}")).with_reason("file_not_found")
}

pub(super) fn no_batch(error: Error, store: &str, batch: &str) -> Error {
    if error.code() != Code::NotFound || error.reason() == Some("bank_not_found") {
        return no_store(error, store);
    }
    Error::not_found(format!("no file batch {batch:?} in vector store {store:?}")).with_reason("file_batch_not_found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_where_it_came_from() {
        for bank in ["bank_01", "theirs", "x_y"] {
            assert_eq!(bank_id(&store_id(bank)), bank);
        }
        assert_eq!((store_id("bank_01").as_str(), batch_id("ing_7").as_str()), ("vs_01", "vsfb_7"));
        assert_eq!(ingestion_id("vsfb_7"), "ing_7");
        // Who knows the bank by its own id may say so.
        assert_eq!(bank_id("bank_01"), "bank_01");
    }
}
