//! Between the API's messages and the engine's types.

use std::collections::HashMap;

use qdrant_client::qdrant::{
    self, Document, Filter, PointId, PointStruct, RetrievedPoint, ScoredPoint, Value, VectorInput, VectorOutput, VectorsOutput,
    WithVectorsSelector, condition::ConditionOneOf, r#match::MatchValue, point_id::PointIdOptions, vector::Vector, vector_input,
    vector_output, vectors::VectorsOptions, vectors_output, with_vectors_selector::SelectorOptions,
};
use qdrant_edge::{
    Payload, PointStructPersisted, Record, SparseVector, VectorInternal, VectorPersisted, VectorStructInternal, VectorStructPersisted,
    WithVector,
    bm25_embed::{EdgeBm25, EdgeBm25Config},
};
use serde_json::{Map, Value as Json, json};
use tonic::Status;

pub fn id(id: Option<PointId>) -> Result<qdrant_edge::PointId, Status> {
    match id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Uuid(text)) => {
            let id = text.parse().map_err(|_| Status::invalid_argument(format!("Unable to parse UUID: {text}")))?;
            Ok(qdrant_edge::PointId::Uuid(id))
        }
        Some(PointIdOptions::Num(number)) => Ok(qdrant_edge::PointId::NumId(number)),
        None => Err(Status::invalid_argument("no id")),
    }
}

pub fn id_back(id: qdrant_edge::PointId) -> PointId {
    match id {
        qdrant_edge::PointId::Uuid(id) => id.to_string().into(),
        qdrant_edge::PointId::NumId(number) => number.into(),
    }
}

fn words(document: &Document) -> Result<EdgeBm25, Status> {
    assert_eq!(document.model, "qdrant/bm25");
    let language = document.options.get("language").and_then(|language| language.as_str()).cloned();
    EdgeBm25::new(EdgeBm25Config { language, ..EdgeBm25Config::default() }).map_err(|error| Status::invalid_argument(error.to_string()))
}

pub fn point(point: PointStruct) -> Result<PointStructPersisted, Status> {
    let Some(VectorsOptions::Vectors(named)) = point.vectors.and_then(|vectors| vectors.vectors_options) else {
        return Err(Status::invalid_argument("vectors without names"));
    };
    let mut vectors = HashMap::new();
    for (name, vector) in named.vectors {
        #[allow(deprecated, reason = "what the client sends, for servers before 1.16")]
        let vector = vector.vector.unwrap_or_else(|| Vector::Dense(qdrant::DenseVector { data: vector.data }));
        let vector = match vector {
            Vector::Dense(dense) => VectorPersisted::Dense(dense.data),
            Vector::Document(document) => VectorPersisted::Sparse(words(&document)?.embed_document(&document.text)),
            other => return Err(Status::unimplemented(format!("{other:?}"))),
        };
        vectors.insert(name, vector);
    }
    let payload: Map<String, Json> = point.payload.into_iter().map(|(key, value)| (key, value.into())).collect();
    Ok(PointStructPersisted { id: id(point.id)?, vector: VectorStructPersisted::Named(vectors), payload: Some(Payload(payload)) })
}

/// `None` where a text has no words.
pub fn searched(query: VectorInput) -> Result<Option<VectorInternal>, Status> {
    match query.variant {
        Some(vector_input::Variant::Dense(dense)) => Ok(Some(VectorInternal::Dense(dense.data))),
        Some(vector_input::Variant::Document(document)) => {
            let words: SparseVector = words(&document)?.embed_query(&document.text);
            Ok((!words.indices.is_empty()).then_some(VectorInternal::Sparse(words)))
        }
        other => Err(Status::unimplemented(format!("{other:?}"))),
    }
}

pub fn vectors_wanted(selector: Option<WithVectorsSelector>) -> WithVector {
    WithVector::Bool(matches!(selector.and_then(|selector| selector.selector_options), Some(SelectorOptions::Enable(true))))
}

/// By the JSON that both the server's HTTP API and the engine read.
pub fn filter(filter: Option<Filter>) -> Result<qdrant_edge::Filter, Status> {
    serde_json::from_value(json_of(&filter.unwrap_or_default())?).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn json_of(filter: &Filter) -> Result<Json, Status> {
    let list = |conditions: &[qdrant::Condition]| conditions.iter().map(condition).collect::<Result<Vec<_>, _>>();
    let mut all = Map::new();
    for (name, conditions) in [("must", &filter.must), ("should", &filter.should), ("must_not", &filter.must_not)] {
        if !conditions.is_empty() {
            all.insert(name.to_owned(), list(conditions)?.into());
        }
    }
    Ok(all.into())
}

fn condition(condition: &qdrant::Condition) -> Result<Json, Status> {
    let field = match &condition.condition_one_of {
        Some(ConditionOneOf::Filter(filter)) => return json_of(filter),
        Some(ConditionOneOf::Field(field)) => field,
        other => return Err(Status::unimplemented(format!("{other:?}"))),
    };
    let key = &field.key;
    if let Some(qdrant::Range { lt, gt, gte, lte }) = field.range {
        return Ok(json!({ "key": key, "range": { "lt": lt, "gt": gt, "gte": gte, "lte": lte } }));
    }
    match field.r#match.as_ref().and_then(|matched| matched.match_value.as_ref()) {
        Some(MatchValue::Keyword(word)) => Ok(json!({ "key": key, "match": { "value": word } })),
        Some(MatchValue::Keywords(words)) => Ok(json!({ "key": key, "match": { "any": words.strings } })),
        Some(MatchValue::Boolean(value)) => Ok(json!({ "key": key, "match": { "value": value } })),
        other => Err(Status::unimplemented(format!("{other:?}"))),
    }
}

fn payload(payload: Option<Payload>) -> HashMap<String, Value> {
    payload.unwrap_or_default().0.into_iter().map(|(key, value)| (key, value.into())).collect()
}

pub fn record(record: Record) -> RetrievedPoint {
    let vectors = record.vector.map(|vectors| {
        let VectorStructInternal::Named(named) = vectors else { panic!("vectors without names") };
        let dense = named.into_iter().filter_map(|(name, vector)| match vector {
            VectorInternal::Dense(data) => {
                let vector = Some(vector_output::Vector::Dense(qdrant::DenseVector { data }));
                Some((name, VectorOutput { vector, ..Default::default() }))
            }
            _ => None,
        });
        let named = qdrant::NamedVectorsOutput { vectors: dense.collect() };
        VectorsOutput { vectors_options: Some(vectors_output::VectorsOptions::Vectors(named)) }
    });
    RetrievedPoint { id: Some(id_back(record.id)), payload: payload(record.payload), vectors, ..Default::default() }
}

pub fn scored(point: qdrant_edge::ScoredPoint) -> ScoredPoint {
    ScoredPoint {
        id: Some(id_back(point.id)),
        payload: payload(point.payload),
        score: point.score,
        version: point.version,
        ..Default::default()
    }
}
