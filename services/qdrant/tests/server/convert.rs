//! Between Qdrant's gRPC messages and the embedded engine: written apart from the adapter's own translation, so that a test
//! finds what that gets wrong.

use std::collections::HashMap;

use qdrant_client::qdrant::{
    self as wire, condition::ConditionOneOf, r#match::MatchValue, point_id::PointIdOptions, query::Variant, vector, vector_input,
    vector_output, vectors::VectorsOptions, vectors_output, with_payload_selector, with_vectors_selector,
};
use qdrant_edge::{
    AnyVariants, Condition, FieldCondition, Filter, Match, MatchAny, NamedQuery, Payload, PointId, PointStructPersisted, QueryEnum, Range,
    Record, ScoredPoint, SparseVector, ValueVariants, VectorInternal, VectorPersisted, VectorStructInternal, VectorStructPersisted,
    WithPayloadInterface, WithVector, external::ordered_float::OrderedFloat,
};

pub fn id(id: wire::PointId) -> PointId {
    match id.point_id_options.unwrap() {
        PointIdOptions::Uuid(id) => PointId::Uuid(id.parse().unwrap()),
        PointIdOptions::Num(id) => PointId::NumId(id),
    }
}

pub fn id_out(id: PointId) -> wire::PointId {
    let options = match id {
        PointId::Uuid(id) => PointIdOptions::Uuid(id.to_string()),
        PointId::NumId(id) => PointIdOptions::Num(id),
    };
    wire::PointId { point_id_options: Some(options) }
}

pub fn point(point: wire::PointStruct) -> PointStructPersisted {
    let Some(VectorsOptions::Vectors(named)) = point.vectors.and_then(|vectors| vectors.vectors_options) else {
        panic!("a point without named vectors");
    };
    let vectors = named.vectors.into_iter().map(|(name, vector)| {
        let vector = match vector.vector.unwrap() {
            vector::Vector::Dense(dense) => VectorPersisted::Dense(dense.data),
            vector::Vector::Sparse(sparse) => VectorPersisted::Sparse(SparseVector { indices: sparse.indices, values: sparse.values }),
            other => panic!("{other:?}"),
        };
        (name, vector)
    });
    let payload = point.payload.into_iter().map(|(field, value)| (field, serde_json::Value::from(value))).collect();
    PointStructPersisted {
        id: id(point.id.unwrap()),
        vector: VectorStructPersisted::Named(vectors.collect()),
        payload: Some(Payload(payload)),
    }
}

pub fn filter(filter: wire::Filter) -> Filter {
    let each = |all: Vec<wire::Condition>| if all.is_empty() { None } else { Some(all.into_iter().map(condition).collect()) };
    Filter { should: each(filter.should), must: each(filter.must), must_not: each(filter.must_not), min_should: None }
}

fn condition(condition: wire::Condition) -> Condition {
    match condition.condition_one_of.unwrap() {
        ConditionOneOf::Filter(nested) => Condition::Filter(filter(nested)),
        ConditionOneOf::HasId(ids) => Condition::HasId(ids.has_id.into_iter().map(id).collect()),
        ConditionOneOf::Field(field) => {
            let key = field.key.parse().unwrap();
            match (field.r#match.and_then(|matched| matched.match_value), field.range) {
                (Some(MatchValue::Keyword(one)), None) => {
                    Condition::Field(FieldCondition::new_match(key, Match::new_value(ValueVariants::String(one))))
                }
                (Some(MatchValue::Keywords(many)), None) => {
                    let any = AnyVariants::Strings(many.strings.into_iter().collect());
                    Condition::Field(FieldCondition::new_match(key, Match::Any(MatchAny { any })))
                }
                (None, Some(wire::Range { lt, gt, gte, lte })) => {
                    let number = |number: Option<f64>| number.map(OrderedFloat);
                    let range = Range { lt: number(lt), gt: number(gt), gte: number(gte), lte: number(lte) };
                    Condition::Field(FieldCondition::new_range(key, range))
                }
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

pub fn query(query: Option<wire::Query>, using: Option<String>) -> QueryEnum {
    let Some(Variant::Nearest(input)) = query.and_then(|query| query.variant) else { panic!("not the nearest") };
    let query = match input.variant.unwrap() {
        vector_input::Variant::Dense(dense) => VectorInternal::Dense(dense.data),
        vector_input::Variant::Sparse(sparse) => VectorInternal::Sparse(SparseVector { indices: sparse.indices, values: sparse.values }),
        other => panic!("{other:?}"),
    };
    QueryEnum::Nearest(NamedQuery { query, using })
}

pub fn with_payload(wanted: Option<wire::WithPayloadSelector>) -> WithPayloadInterface {
    match wanted.and_then(|wanted| wanted.selector_options) {
        Some(with_payload_selector::SelectorOptions::Include(fields)) => {
            WithPayloadInterface::Fields(fields.fields.iter().map(|field| field.parse().unwrap()).collect())
        }
        Some(with_payload_selector::SelectorOptions::Enable(all)) => WithPayloadInterface::Bool(all),
        other => panic!("{other:?}"),
    }
}

pub fn with_vectors(wanted: Option<wire::WithVectorsSelector>) -> WithVector {
    match wanted.and_then(|wanted| wanted.selector_options) {
        Some(with_vectors_selector::SelectorOptions::Include(names)) => WithVector::Selector(names.names),
        Some(with_vectors_selector::SelectorOptions::Enable(all)) => WithVector::Bool(all),
        None => WithVector::Bool(false),
    }
}

pub fn record(record: Record) -> wire::RetrievedPoint {
    wire::RetrievedPoint {
        id: Some(id_out(record.id)),
        payload: payload(record.payload),
        vectors: vectors(record.vector),
        ..wire::RetrievedPoint::default()
    }
}

pub fn scored(point: ScoredPoint) -> wire::ScoredPoint {
    wire::ScoredPoint {
        id: Some(id_out(point.id)),
        payload: payload(point.payload),
        score: point.score,
        vectors: vectors(point.vector),
        ..wire::ScoredPoint::default()
    }
}

fn payload(payload: Option<Payload>) -> HashMap<String, wire::Value> {
    payload.map(|payload| payload.0).unwrap_or_default().into_iter().map(|(field, value)| (field, wire::Value::from(value))).collect()
}

fn vectors(vectors: Option<VectorStructInternal>) -> Option<wire::VectorsOutput> {
    let Some(VectorStructInternal::Named(named)) = vectors else { return None };
    let output = |vector| match vector {
        VectorInternal::Dense(data) => {
            let dense = vector_output::Vector::Dense(wire::DenseVector { data });
            wire::VectorOutput { vector: Some(dense), ..wire::VectorOutput::default() }
        }
        VectorInternal::Sparse(words) => {
            let sparse = wire::SparseVector { indices: words.indices, values: words.values };
            wire::VectorOutput { vector: Some(vector_output::Vector::Sparse(sparse)), ..wire::VectorOutput::default() }
        }
        other => panic!("{other:?}"),
    };
    let vectors = named.into_iter().map(|(name, vector)| (name, output(vector))).collect();
    Some(wire::VectorsOutput { vectors_options: Some(vectors_output::VectorsOptions::Vectors(wire::NamedVectorsOutput { vectors })) })
}
