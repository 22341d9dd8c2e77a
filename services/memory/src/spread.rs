//! A query over banks of several providers: all are asked at once, and what they found is one list.

use std::sync::Arc;

use futures::future::try_join_all;
use llama_stack_core::{Context, Error, Memory, Result};
use llama_stack_proto::v1::{Bank, QueryRequest, QueryResponse, SearchMode, ranker::Kind};

use crate::{
    banks::{DEFAULT_TOP_K, check_query, fitting, mode},
    fuse, router,
};

/// A provider that is asked, under its id, and which of the banks are its.
pub(crate) type Asked<'a> = (&'a (String, Arc<dyn Memory>), Vec<Bank>);

/// As one provider answers for several banks: all of them, or the error of one that fails. `top_k` and `max_tokens` hold for
/// all together; a threshold is held to the scores of each, and variety is among what each has found.
pub(crate) async fn query(cx: &Context, asked: &[Asked<'_>], request: QueryRequest) -> Result<QueryResponse> {
    check_query(&request)?;
    if !request.page_token.is_empty() {
        let message = "banks of several providers are answered on one page: ask for more at once, with a greater top_k";
        return Err(Error::invalid("page_token", message).with_reason("bad_page_token"));
    }
    let is_alike = is_alike(asked.iter().flat_map(|(_, banks)| banks), &request);
    let mut answers = Vec::with_capacity(asked.len());
    for (provider, banks) in asked {
        let bank_ids = banks.iter().map(|bank| bank.id.clone()).collect();
        let own = QueryRequest { bank_ids, max_tokens: 0, ..request.clone() };
        answers.push(async move { router::ask(cx, provider, own).await.map_err(|error| error.context(&provider.0)) });
    }
    let mut answers = try_join_all(answers).await?;
    let mut queries: Vec<String> = Vec::new();
    for answer in &mut answers {
        let more = std::mem::take(&mut answer.queries);
        more.into_iter().for_each(|text| {
            if !queries.contains(&text) {
                queries.push(text)
            }
        });
        if !is_alike {
            answer.chunks.iter_mut().enumerate().for_each(|(rank, scored)| scored.score = fuse::by_rank(rank));
        }
    }
    let top_k = if request.top_k == 0 { DEFAULT_TOP_K } else { request.top_k };
    let mut chunks = QueryResponse::merged(answers, top_k as usize);
    let texts = chunks.iter().map(|scored| scored.chunk.as_ref().map_or("", |chunk| chunk.text.as_str()));
    let kept = fitting(texts, request.max_tokens);
    chunks.truncate(kept);
    Ok(QueryResponse { chunks, queries, next_page_token: String::new() })
}

/// Whether a score means the same in all of these banks, whoever gives it: a cosine of one model does, alone or beside the share of
/// the query's words; what words are worth by BM25 depends on what else the bank says.
fn is_alike<'a>(banks: impl Iterator<Item = &'a Bank>, request: &QueryRequest) -> bool {
    // An order for variety is no order by scores.
    if request.mmr_lambda.is_some() {
        return false;
    }
    let ranker = request.ranker.as_ref();
    let again = ranker.is_some_and(|ranker| ranker.kind() == Kind::Rerank);
    if again && ranker.is_some_and(|ranker| !ranker.model.is_empty()) {
        return true;
    }
    let mut kinds = banks.map(|bank| {
        let mode = mode(bank, request).ok().filter(|mode| again || *mode != SearchMode::Keyword)?;
        Some((mode, bank.embedding_model.as_str(), bank.embedding_dimension))
    });
    let Some(Some(first)) = kinds.next() else { return false };
    kinds.all(|kind| kind == Some(first))
}
