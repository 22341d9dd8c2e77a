//! Conditions, vectors and errors in the words of Qdrant's gRPC API.

use std::collections::HashMap;

use llama_stack_core::{Code, Error};
use llama_stack_proto::v1::Chunk;
use qdrant_client::{
    QdrantError,
    qdrant::{
        Condition as Wired, Document, DocumentBuilder, Filter, NamedVectors, Range, Value, Vector, VectorInput, vector, vector_input,
    },
};

use crate::{
    index::{BankKey, Shape},
    qdrant::{
        condition::{self, Condition},
        point::{self, DENSE, OWNER, SPARSE},
    },
};

/// What Qdrant calls its own BM25, which needs no inference service.
const BM25: &str = "qdrant/bm25";

/// This bank's points for which `condition` holds as well.
pub(super) fn filter(bank: &BankKey, condition: Option<Wired>) -> Filter {
    Filter::must(std::iter::once(Wired::matches(OWNER, point::owner(bank))).chain(condition))
}

pub(super) fn text_in(key: &str, values: Vec<String>) -> Wired {
    Wired::matches(key, values)
}

pub(super) fn condition(condition: &Condition) -> Wired {
    let all = |conditions: &[Condition]| conditions.iter().map(self::condition).collect::<Vec<_>>();
    match condition {
        Condition::All(conditions) => Filter::must(all(conditions)).into(),
        Condition::Any(conditions) => Filter::should(all(conditions)).into(),
        Condition::Not(condition) => Filter::must_not([self::condition(condition)]).into(),
        Condition::TextIn { key, values } => text_in(key, values.clone()),
        Condition::Boolean { key, value } => Wired::matches(key, *value),
        Condition::Number { key, range: condition::Range { gt, gte, lt, lte } } => {
            Wired::range(key, Range { gt: *gt, gte: *gte, lt: *lt, lte: *lte })
        }
    }
}

pub(super) fn vectors(shape: &Shape, chunk: Chunk, language: &str) -> NamedVectors {
    let mut vectors = NamedVectors::default();
    if shape.dimension > 0 {
        vectors = vectors.add_vector(DENSE, chunk.vector);
    }
    if shape.keyword {
        vectors = vectors.add_vector(SPARSE, Vector::from(vector::Vector::Document(document(&chunk.text, language))));
    }
    vectors
}

pub(super) fn words(text: &str, language: &str) -> VectorInput {
    VectorInput { variant: Some(vector_input::Variant::Document(document(text, language))) }
}

fn document(text: &str, language: &str) -> Document {
    DocumentBuilder::new(text, BM25).options(HashMap::from([("language".to_owned(), Value::from(language))])).build()
}

/// The server's words go to the log, not to the caller.
pub(super) fn error(error: QdrantError) -> Error {
    let typed = match &error {
        QdrantError::ResponseError { status } => match Code::from_grpc(status.code()) {
            Code::NotFound => Error::not_found("there is no such bank at the Qdrant server"),
            Code::InvalidArgument => Error::new(Code::InvalidArgument, "the Qdrant server refuses this request"),
            Code::TooLarge => Error::new(Code::TooLarge, "the Qdrant server takes less at once: send smaller batches"),
            Code::Unauthenticated | Code::PermissionDenied => {
                Error::failed_precondition("the Qdrant server refuses the stack's api_key: check it in the manifest")
            }
            Code::DeadlineExceeded => Error::new(Code::DeadlineExceeded, "the Qdrant server did not answer in time"),
            _ => Error::unavailable("the Qdrant server does not answer as it should"),
        },
        QdrantError::ResourceExhaustedError { .. } => Error::new(Code::ResourceExhausted, "the Qdrant server has too much to do"),
        _ => Error::unavailable("the Qdrant server does not answer as it should"),
    };
    typed.with_source(error)
}
