//! Between the form that both engines are asked in and Qdrant's gRPC; and what its failures mean.

use std::{collections::HashMap, time::Duration};

use llama_stack_core::{Code, Error};
use llama_stack_memory::index::{BankKey, Shape};
use llama_stack_proto::v1::filter::comparison::Operator;
use qdrant_client::{
    QdrantError,
    qdrant::{
        CollectionInfo, Condition as Wire, CreateCollection, DenseVector, Distance, FieldCondition, Filter, HasIdCondition, Match,
        Modifier, NamedVectors, PayloadIncludeSelector, PointId, PointStruct, QuantizationConfig, QuantizationSearchParams,
        QuantizationType, Query as WireQuery, Range, RepeatedStrings, ScalarQuantization, SearchParams, SparseVector, SparseVectorConfig,
        SparseVectorParams, Value as WireValue, Vector, VectorInput, VectorParams, VectorParamsMap, Vectors, VectorsConfig, VectorsOutput,
        WithPayloadSelector, WithVectorsSelector, condition::ConditionOneOf, r#match::MatchValue, point_id::PointIdOptions,
        quantization_config::Quantization as Quantized, query::Variant, vector, vector_input, vector_output, vectors::VectorsOptions,
        vectors_config, vectors_output, with_payload_selector, with_vectors_selector,
    },
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    condition::Condition,
    engine::Query,
    point::{DENSE, Point, WORDS},
};

/// As in the embedded engine.
const OVERSAMPLING: f64 = 2.0;

#[allow(deprecated, reason = "servers before 1.20 know no other fields for it")]
pub(super) fn collection(name: String, shape: &Shape, quantized: bool) -> CreateCollection {
    let mut dense = HashMap::new();
    if shape.dimension > 0 {
        let on_disk = quantized.then_some(true);
        let params = VectorParams { size: shape.dimension.into(), distance: Distance::Cosine.into(), on_disk, ..VectorParams::default() };
        dense.insert(DENSE.to_owned(), params);
    }
    let mut words = HashMap::new();
    if shape.keyword {
        words.insert(WORDS.to_owned(), SparseVectorParams { modifier: Some(Modifier::Idf.into()), ..SparseVectorParams::default() });
    }
    let scalar = ScalarQuantization {
        r#type: QuantizationType::Int8.into(),
        quantile: Some(0.99),
        always_ram: Some(true),
        ..ScalarQuantization::default()
    };
    CreateCollection {
        collection_name: name,
        vectors_config: Some(VectorsConfig { config: Some(vectors_config::Config::ParamsMap(VectorParamsMap { map: dense })) }),
        sparse_vectors_config: Some(SparseVectorConfig { map: words }),
        quantization_config: quantized.then_some(QuantizationConfig { quantization: Some(Quantized::Scalar(scalar)) }),
        on_disk_payload: Some(true),
        ..CreateCollection::default()
    }
}

/// Of a collection that is there.
pub(super) fn shape(info: &CollectionInfo) -> Shape {
    let params = info.config.as_ref().and_then(|config| config.params.as_ref());
    let dense = params.and_then(|params| params.vectors_config.as_ref()).and_then(|config| config.config.as_ref());
    let dimension = match dense {
        Some(vectors_config::Config::ParamsMap(map)) => map.map.get(DENSE).map_or(0, |params| params.size as u32),
        _ => 0,
    };
    let words = params.and_then(|params| params.sparse_vectors_config.as_ref());
    Shape { dimension, keyword: words.is_some_and(|words| words.map.contains_key(WORDS)) }
}

pub(super) fn search_params(quantized: bool) -> SearchParams {
    let quantization =
        QuantizationSearchParams { rescore: Some(true), oversampling: Some(OVERSAMPLING), ..QuantizationSearchParams::default() };
    SearchParams { quantization: quantized.then_some(quantization), ..SearchParams::default() }
}

pub(super) fn point(point: Point, shape: &Shape) -> PointStruct {
    let mut vectors = HashMap::new();
    if shape.dimension > 0 {
        let dense = vector::Vector::Dense(DenseVector { data: point.dense });
        vectors.insert(DENSE.to_owned(), Vector { vector: Some(dense), ..Vector::default() });
    }
    if shape.keyword && !point.words.indices.is_empty() {
        let words = vector::Vector::Sparse(SparseVector { indices: point.words.indices, values: point.words.values });
        vectors.insert(WORDS.to_owned(), Vector { vector: Some(words), ..Vector::default() });
    }
    PointStruct {
        id: Some(id(point.id)),
        payload: point.payload.into_iter().map(|(field, value)| (field, WireValue::from(value))).collect(),
        vectors: Some(Vectors { vectors_options: Some(VectorsOptions::Vectors(NamedVectors { vectors })) }),
    }
}

pub(super) fn id(id: Uuid) -> PointId {
    PointId { point_id_options: Some(PointIdOptions::Uuid(id.to_string())) }
}

pub(super) fn uuid(id: Option<PointId>) -> Uuid {
    match id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Uuid(id)) => id.parse().unwrap_or_default(),
        Some(PointIdOptions::Num(number)) => Uuid::from_u128(u128::from(number)),
        None => Uuid::nil(),
    }
}

pub(super) fn payload(fields: HashMap<String, WireValue>) -> Map<String, Value> {
    fields.into_iter().map(|(field, value)| (field, Value::from(value))).collect()
}

pub(super) fn query(query: Query) -> (WireQuery, &'static str) {
    let (variant, using) = match query {
        Query::Dense(data) => (vector_input::Variant::Dense(DenseVector { data }), DENSE),
        Query::Words(words) => (vector_input::Variant::Sparse(SparseVector { indices: words.indices, values: words.values }), WORDS),
    };
    (WireQuery { variant: Some(Variant::Nearest(VectorInput { variant: Some(variant) })) }, using)
}

pub(super) fn dense(vectors: Option<VectorsOutput>) -> Vec<f32> {
    let named = match vectors.and_then(|vectors| vectors.vectors_options) {
        Some(vectors_output::VectorsOptions::Vectors(mut named)) => named.vectors.remove(DENSE),
        Some(vectors_output::VectorsOptions::Vector(one)) => Some(one),
        None => None,
    };
    let Some(one) = named else { return Vec::new() };
    match one.vector {
        Some(vector_output::Vector::Dense(dense)) => dense.data,
        Some(_) => Vec::new(),
        // Of servers before 1.16.
        #[allow(deprecated, reason = "older servers say it only there")]
        None => one.data,
    }
}

pub(super) fn with_payload(fields: Option<&[&str]>) -> WithPayloadSelector {
    let options = match fields {
        None => with_payload_selector::SelectorOptions::Enable(true),
        Some(fields) => {
            let fields = fields.iter().map(|field| (*field).to_owned()).collect();
            with_payload_selector::SelectorOptions::Include(PayloadIncludeSelector { fields })
        }
    };
    WithPayloadSelector { selector_options: Some(options) }
}

/// All that there are: in a bank for words alone there is none of the name, and the server would refuse to look for it.
pub(super) fn with_vectors(wanted: bool) -> WithVectorsSelector {
    WithVectorsSelector { selector_options: Some(with_vectors_selector::SelectorOptions::Enable(wanted)) }
}

pub(super) fn filter(condition: &Condition) -> Filter {
    let each = |all: &[Condition]| all.iter().map(wire).collect();
    match condition {
        Condition::All(all) => Filter { must: each(all), ..Filter::default() },
        Condition::Any(any) => Filter { should: each(any), ..Filter::default() },
        Condition::Not(not) => Filter { must_not: vec![wire(not)], ..Filter::default() },
        one => Filter { must: vec![wire(one)], ..Filter::default() },
    }
}

fn wire(condition: &Condition) -> Wire {
    let field = |field: FieldCondition| ConditionOneOf::Field(field);
    let one = match condition {
        Condition::OneOf(key, values) => {
            let matched = match values.as_slice() {
                [one] => MatchValue::Keyword(one.clone()),
                many => MatchValue::Keywords(RepeatedStrings { strings: many.to_vec() }),
            };
            let matched = Some(Match { match_value: Some(matched) });
            field(FieldCondition { key: (*key).to_owned(), r#match: matched, ..FieldCondition::default() })
        }
        Condition::Order(key, operator, than) => {
            let than = |wanted: Operator| (*operator == wanted).then_some(*than);
            let range = Range { lt: than(Operator::Lt), gt: than(Operator::Gt), gte: than(Operator::Gte), lte: than(Operator::Lte) };
            field(FieldCondition { key: key.clone(), range: Some(range), ..FieldCondition::default() })
        }
        Condition::Points(ids) => ConditionOneOf::HasId(HasIdCondition { has_id: ids.iter().map(|point| id(*point)).collect() }),
        nested => ConditionOneOf::Filter(filter(nested)),
    };
    Wire { condition_one_of: Some(one) }
}

/// The server's own words go to the log.
pub(super) fn failed(bank: &BankKey, error: QdrantError) -> Error {
    let unavailable = || Error::unavailable("the qdrant server does not answer").with_reason("index_unavailable");
    let told = match &error {
        QdrantError::ResourceExhaustedError { retry_after_seconds, .. } => {
            let told = Error::new(Code::ResourceExhausted, "the qdrant server has too much to do: try again later");
            told.with_reason("index_busy").with_retry_after(Duration::from_secs(*retry_after_seconds))
        }
        QdrantError::ResponseError { status } => match status.code() {
            tonic::Code::NotFound => Error::not_found(format!("no bank {:?}", bank.bank_id)).with_reason("bank_not_found"),
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
                Error::failed_precondition("the qdrant server refuses the api_key of the manifest").with_reason("index_unusable")
            }
            tonic::Code::ResourceExhausted => {
                Error::new(Code::ResourceExhausted, "the qdrant server has too much to do").with_reason("index_busy")
            }
            tonic::Code::InvalidArgument | tonic::Code::Unimplemented | tonic::Code::FailedPrecondition => {
                Error::internal("the qdrant server refused what it was asked").with_reason("index_failed")
            }
            _ if is_untrusted(status) => {
                let message = "the certificate of the qdrant server is not accepted: it has expired, is of another name, or of an unknown \
                               authority, which ca_certificate adds";
                Error::unavailable(message).with_reason("index_untrusted")
            }
            _ => unavailable(),
        },
        QdrantError::ConversionError(_) => Error::internal("the qdrant server was asked wrongly").with_reason("index_failed"),
        _ => unavailable(),
    };
    tracing::warn!(cause = %error, "the qdrant server failed");
    told.with_source(error)
}

/// TLS says so somewhere below the failure to connect.
fn is_untrusted(status: &tonic::Status) -> bool {
    let first: &(dyn std::error::Error + 'static) = status;
    std::iter::successors(Some(first), |error| (*error).source()).any(|error| error.to_string().contains("invalid peer certificate"))
}
