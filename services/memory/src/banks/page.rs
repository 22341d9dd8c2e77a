//! Where a search goes on: a token says what was given already, so that whatever changes meanwhile nothing is given twice.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Bank, QueryRequest};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::query::{Found, MAX_QUERIES, MAX_TEXT};

/// How far pages go: what gives the last of these has no token.
pub(super) const MOST: usize = 1_000;

/// A page of a query, as its request asks for it.
#[derive(Debug)]
pub(super) struct Page {
    query: u64,
    /// What the pages before have given.
    given: HashSet<u64>,
    /// What a model made of the query for the first page: it may write something else each time.
    pub(super) rewritten: Option<Vec<String>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Token {
    /// Of the request.
    #[prost(fixed64, tag = "1")]
    query: u64,
    /// Of each chunk that was given.
    #[prost(fixed64, repeated, tag = "2")]
    given: Vec<u64>,
    #[prost(string, repeated, tag = "3")]
    rewritten: Vec<String>,
}

impl Page {
    /// # Errors
    /// `InvalidArgument` for a token that an answer to this query never gave (`bad_page_token`).
    pub(super) fn new(request: &QueryRequest) -> Result<Self> {
        let query = query(request);
        if request.page_token.is_empty() {
            return Ok(Self { query, given: HashSet::new(), rewritten: None });
        }
        let token = read(&request.page_token).filter(|token| token.query == query && fits(token, request)).ok_or_else(|| {
            let message = "page_token is not one that an answer to this query gave: all else of the request must be as it was";
            Error::invalid("page_token", message).with_reason("bad_page_token")
        })?;
        let rewritten = Some(token.rewritten).filter(|texts| !texts.is_empty());
        Ok(Self { query, given: token.given.into_iter().collect(), rewritten })
    }

    /// How many there are on it, at most, of `top_k`.
    pub(super) fn size(&self, top_k: usize) -> usize {
        top_k.min(MOST - self.given.len())
    }

    /// How many must be looked for, to fill it and to see whether there is another.
    pub(super) fn depth(&self, top_k: usize) -> usize {
        self.given.len() + self.size(top_k) + 1
    }

    /// Leaves what was not given yet.
    pub(super) fn skip(&self, banks: &[Bank], found: &mut Vec<Found>) {
        if !self.given.is_empty() {
            found.retain(|found| !self.given.contains(&place(banks, found)));
        }
    }

    /// The token of the next page, after this one gave `found`; empty where pages go no further.
    pub(super) fn next(self, banks: &[Bank], found: &[Found], rewritten: &[String]) -> String {
        let given: Vec<u64> = self.given.into_iter().chain(found.iter().map(|found| place(banks, found))).collect();
        if given.len() >= MOST {
            return String::new();
        }
        URL_SAFE_NO_PAD.encode(Token { query: self.query, given, rewritten: rewritten.to_vec() }.encode_to_vec())
    }
}

fn read(token: &str) -> Option<Token> {
    Token::decode(URL_SAFE_NO_PAD.decode(token).ok()?.as_slice()).ok()
}

/// Whether a token of this query may look so: whoever made it, what it asks for is within what may be asked.
fn fits(token: &Token, request: &QueryRequest) -> bool {
    let text = |text: &String| !text.trim().is_empty() && text.len() <= MAX_TEXT;
    (1..MOST).contains(&token.given.len())
        && token.rewritten.is_empty() == request.rewrite_model.is_empty()
        && token.rewritten.len() <= MAX_QUERIES as usize
        && token.rewritten.iter().all(text)
}

fn query(request: &QueryRequest) -> u64 {
    hash(&[QueryRequest { page_token: String::new(), ..request.clone() }.encode_to_vec().as_slice()])
}

fn place(banks: &[Bank], found: &Found) -> u64 {
    hash(&[banks[found.bank].id.as_bytes(), found.hit.chunk.id.as_bytes()])
}

/// The first bytes of a SHA-256: of a thousand no two are the same, save by one chance in 10^13.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::Chunk;

    use super::*;
    use crate::index::Hit;

    fn found(ids: &[&str]) -> Vec<Found> {
        let hit = |id: &&str| Hit { chunk: Chunk { id: (*id).into(), ..Chunk::default() }, score: 1.0 };
        ids.iter().map(|id| Found { bank: 0, hit: hit(id) }).collect()
    }

    fn asked(token: &str) -> QueryRequest {
        QueryRequest { bank_ids: vec!["bank_1".into()], text: "cats".into(), page_token: token.into(), ..QueryRequest::default() }
    }

    #[test]
    fn a_page_leaves_out_what_was_given_and_nothing_else() {
        let banks = [Bank { id: "bank_1".into(), ..Bank::default() }];
        let first = Page::new(&asked("")).unwrap();
        assert_eq!((first.size(2), first.depth(2)), (2, 3));
        let second = Page::new(&asked(&first.next(&banks, &found(&["a", "b"]), &[]))).unwrap();
        let mut rest = found(&["new", "b", "c", "a"]);
        second.skip(&banks, &mut rest);
        assert_eq!(rest.iter().map(|found| found.hit.chunk.id.as_str()).collect::<Vec<_>>(), ["new", "c"]);
        assert_eq!((second.size(2), second.depth(2)), (2, 5));
    }

    #[test]
    fn a_token_serves_its_own_query_to_its_end() {
        let banks = [Bank { id: "bank_1".into(), ..Bank::default() }];
        let ids: Vec<String> = (0..MOST).map(|n| n.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let after = |ids: &[&str], rewritten: &[String]| Page::new(&asked("")).unwrap().next(&banks, &found(ids), rewritten);
        let nearly = Page::new(&asked(&after(&ids[1..], &[]))).unwrap();
        assert_eq!((nearly.size(10), nearly.depth(10)), (1, MOST + 1));
        let reason = |request: &QueryRequest| {
            let error = Page::new(request).unwrap_err();
            assert_eq!(error.field(), Some("page_token"));
            error.reason().map(str::to_owned).unwrap()
        };
        // With the last of them the list ends, and so do tokens.
        assert_eq!(nearly.next(&banks, &found(&ids[..1]), &[]), "");
        assert_eq!(after(&ids, &[]), "");
        let beyond = Token { query: query(&asked("")), given: (0..MOST as u64).collect(), rewritten: Vec::new() };
        assert_eq!(reason(&asked(&URL_SAFE_NO_PAD.encode(beyond.encode_to_vec()))), "bad_page_token");
        let token = after(&ids[..1], &[]);
        for other in [
            QueryRequest { text: "dogs".into(), ..asked(&token) },
            QueryRequest { top_k: 3, ..asked(&token) },
            QueryRequest { bank_ids: vec!["bank_2".into()], ..asked(&token) },
            // A model wrote no such query.
            asked(&after(&ids[..1], &["dogs".into()])),
            asked(&after(&[], &[])),
            asked("!"),
            asked("AAAA"),
            asked(&format!("{token}A")),
        ] {
            assert_eq!(reason(&other), "bad_page_token", "{other:?}");
        }
        let written = |token: &str| QueryRequest { rewrite_model: "m".into(), ..asked(token) };
        let token = Page::new(&written("")).unwrap().next(&banks, &found(&["a"]), &["felines".into()]);
        assert_eq!(Page::new(&written(&token)).unwrap().rewritten.unwrap(), ["felines"]);
    }
}
