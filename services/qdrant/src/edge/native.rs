//! Between the form that both engines are asked in and Qdrant Edge's own; and what its failures mean.

use std::collections::HashMap;

use llama_stack_core::{Error, Result};
use llama_stack_memory::index::Shape;
use llama_stack_proto::v1::filter::comparison::Operator;
use qdrant_edge::{
    AnyVariants, Condition as Native, CreateIndex, Distance, EdgeConfig, EdgeSparseVectorParams, EdgeVectorParams, FieldCondition,
    FieldIndexOperations, Filter, HasIdCondition, JsonPath, Match, MatchAny, Modifier, NamedQuery, OperationError, Payload,
    PayloadFieldSchema, PayloadSchemaType, PointId, PointInsertOperations, PointOperations, PointStructPersisted, QuantizationConfig,
    QuantizationSearchParams, QueryEnum, Range, ScalarQuantizationConfig, ScalarType, SearchParams, SparseVector, UpdateOperation,
    ValueVariants, VectorInternal, VectorPersisted, VectorStructInternal, VectorStructPersisted, WalOptions,
    external::ordered_float::OrderedFloat,
};
use uuid::Uuid;

use super::Settings;
use crate::{
    condition::Condition,
    engine::Query,
    point::{DENSE, Point, WORDS},
};

/// The engine's own log of changes is written in files of this size; it is not read again, see `shard.rs`.
const LOG_FILE: usize = 4 << 20;
/// The engine's own.
const INDEXING_THRESHOLD_KB: usize = 10_000;
/// How many more are looked at by their rounded vectors than are wanted, before the exact ones decide.
const OVERSAMPLING: f64 = 2.0;

pub(super) fn config(shape: &Shape, settings: &Settings) -> EdgeConfig {
    let mut config =
        EdgeConfig { wal_options: Some(WalOptions { segment_capacity: LOG_FILE, ..WalOptions::default() }), ..EdgeConfig::default() };
    if shape.dimension > 0 {
        // Rounded vectors are in memory, whole ones on the disk.
        let vectors = EdgeVectorParams::builder(shape.dimension as usize, Distance::Cosine).on_disk(settings.quantized).build();
        config.vectors.insert(DENSE.to_owned(), vectors);
    }
    if settings.quantized {
        let scalar = ScalarQuantizationConfig { r#type: ScalarType::Int8, quantile: Some(0.99), always_ram: Some(true) };
        config.quantization_config = Some(QuantizationConfig::from(scalar));
    }
    if shape.keyword {
        config.sparse_vectors.insert(WORDS.to_owned(), EdgeSparseVectorParams::builder().modifier(Modifier::Idf).build());
    }
    // What is deleted leaves the files when segments are rewritten: sooner than by default.
    config.optimizers.deleted_threshold = Some(0.1);
    config.optimizers.vacuum_min_vector_number = Some(100);
    // What is optimized in the midst of an insertion is large enough to be closed, also where vectors are short.
    let closed_kb = settings.optimize_after * shape.dimension as usize * size_of::<f32>() / 2 / 1_024;
    let by_size = (closed_kb > 0 && closed_kb < INDEXING_THRESHOLD_KB).then_some(closed_kb);
    config.optimizers.indexing_threshold = settings.index_above_kb.or(by_size);
    config
}

pub(super) fn search_params(settings: &Settings) -> SearchParams {
    let quantization =
        QuantizationSearchParams { rescore: Some(true), oversampling: Some(OVERSAMPLING), ..QuantizationSearchParams::default() };
    SearchParams { quantization: settings.quantized.then_some(quantization), ..SearchParams::default() }
}

pub(super) fn upsert(points: Vec<Point>, shape: &Shape) -> UpdateOperation {
    let points = points.into_iter().map(|point| persisted(point, shape)).collect();
    UpdateOperation::PointOperation(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)))
}

pub(super) fn delete(wanted: &Condition) -> Result<UpdateOperation> {
    Ok(UpdateOperation::PointOperation(PointOperations::DeletePointsByFilter(filter(wanted)?)))
}

/// An index of a field.
pub(super) fn index(field: &str, of_numbers: bool) -> Result<UpdateOperation> {
    let schema = if of_numbers { PayloadSchemaType::Float } else { PayloadSchemaType::Keyword };
    let create = CreateIndex { field_name: path(field)?, field_schema: Some(PayloadFieldSchema::FieldType(schema)) };
    Ok(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create)))
}

fn persisted(point: Point, shape: &Shape) -> PointStructPersisted {
    let mut vectors: HashMap<String, VectorPersisted> = HashMap::new();
    if shape.dimension > 0 {
        vectors.insert(DENSE.to_owned(), VectorPersisted::Dense(point.dense));
    }
    if shape.keyword && !point.words.indices.is_empty() {
        let words = SparseVector { indices: point.words.indices, values: point.words.values };
        vectors.insert(WORDS.to_owned(), VectorPersisted::Sparse(words));
    }
    PointStructPersisted {
        id: PointId::Uuid(point.id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(Payload(point.payload)),
    }
}

pub(super) fn query(query: Query) -> QueryEnum {
    let (query, using) = match query {
        Query::Dense(vector) => (VectorInternal::Dense(vector), DENSE),
        Query::Words(words) => (VectorInternal::Sparse(SparseVector { indices: words.indices, values: words.values }), WORDS),
    };
    QueryEnum::Nearest(NamedQuery { query, using: Some(using.to_owned()) })
}

pub(super) fn dense(vectors: Option<VectorStructInternal>) -> Vec<f32> {
    match vectors {
        Some(VectorStructInternal::Named(mut named)) => match named.remove(DENSE) {
            Some(VectorInternal::Dense(vector)) => vector,
            _ => Vec::new(),
        },
        Some(VectorStructInternal::Single(vector)) => vector,
        _ => Vec::new(),
    }
}

pub(super) fn uuid(id: PointId) -> Uuid {
    match id {
        PointId::Uuid(id) => id,
        PointId::NumId(number) => Uuid::from_u128(u128::from(number)),
    }
}

pub(super) fn filter(condition: &Condition) -> Result<Filter> {
    let each = |all: &[Condition]| all.iter().map(native).collect::<Result<Vec<Native>>>().map(Some);
    let none = Filter { should: None, min_should: None, must: None, must_not: None };
    Ok(match condition {
        Condition::All(all) => Filter { must: each(all)?, ..none },
        Condition::Any(any) => Filter { should: each(any)?, ..none },
        Condition::Not(not) => Filter { must_not: each(std::slice::from_ref(not))?, ..none },
        one => Filter { must: each(std::slice::from_ref(one))?, ..none },
    })
}

fn native(condition: &Condition) -> Result<Native> {
    Ok(match condition {
        Condition::OneOf(field, values) => {
            let matched = match values.as_slice() {
                [one] => Match::new_value(ValueVariants::String(one.clone())),
                many => Match::Any(MatchAny { any: AnyVariants::Strings(many.iter().cloned().collect()) }),
            };
            Native::Field(FieldCondition::new_match(path(field)?, matched))
        }
        Condition::Order(field, operator, than) => {
            let than = |wanted: Operator| (*operator == wanted).then_some(OrderedFloat(*than));
            let range = Range { lt: than(Operator::Lt), gt: than(Operator::Gt), gte: than(Operator::Gte), lte: than(Operator::Lte) };
            Native::Field(FieldCondition::new_range(path(field)?, range))
        }
        Condition::Points(ids) => Native::HasId(ids.iter().map(|id| PointId::Uuid(*id)).collect::<HasIdCondition>()),
        nested => Native::Filter(filter(nested)?),
    })
}

pub(super) fn path(field: &str) -> Result<JsonPath> {
    field.parse().map_err(|()| Error::internal(format!("{field:?} is no field of a point")))
}

/// The engine's own words go to the log.
pub(super) fn failed(error: OperationError) -> Error {
    let told = match &error {
        OperationError::WrongVectorDimension { expected_dim, received_dim } => {
            let message = format!("a vector has {received_dim} numbers; those of this bank have {expected_dim}");
            Error::invalid("vector", message).with_reason("wrong_dimension")
        }
        OperationError::ServiceError { description, .. } if description.contains("No space left") => disk_full(),
        OperationError::OutOfMemory { .. } => Error::unavailable("the index has no memory left").with_reason("index_out_of_memory"),
        OperationError::Timeout { .. } | OperationError::Cancelled { .. } => {
            Error::unavailable("the index does not answer").with_reason("index_unavailable")
        }
        _ => Error::internal("the index refused what it was asked").with_reason("index_failed"),
    };
    tracing::warn!(cause = %error, "the index of a bank failed");
    told.with_source(error)
}

pub(super) fn disk_full() -> Error {
    Error::unavailable("the index's disk is full").with_reason("disk_full")
}

/// A failure of the folder.
pub(super) fn unusable(error: std::io::Error) -> Error {
    let told = match error.kind() {
        std::io::ErrorKind::StorageFull => disk_full(),
        // It was deleted meanwhile.
        std::io::ErrorKind::NotFound => Error::not_found("the bank is gone").with_reason("bank_not_found"),
        _ => Error::failed_precondition("the index cannot be opened or written").with_reason("index_unusable"),
    };
    tracing::warn!(cause = %error, "the folder of a bank failed");
    told.with_source(error)
}
