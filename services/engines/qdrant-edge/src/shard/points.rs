//! Chunks to the engine's points and back, and searches in its words.

use std::collections::HashMap;

use llama_stack_core::{Error, Result};
use llama_stack_memory::{
    index::{BankKey, Hit, Shape},
    qdrant::{
        condition::{Condition, Range},
        order::Place,
        point::{self, DENSE, DOCUMENT, ID, INDEX, OWNER, SPARSE},
    },
};
use llama_stack_proto::v1::Chunk;
use qdrant_edge::{
    Filter, NamedQuery, Payload, PointId, PointInsertOperations, PointOperations, PointStructPersisted, QueryEnum, QueryRequest, Record,
    ScoringQuery, ScrollRequest, SearchParams, UpdateOperation, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted, WithPayloadInterface, WithVector,
    bm25_embed::{EdgeBm25, EdgeBm25Config},
};
use serde_json::{Value as Json, json};

use crate::{Config, Quantization, engine::Engine};

/// Points that one call reads.
const PAGE: usize = 10_000;

/// How one bank's chunks are points.
pub(crate) struct Points {
    bank: BankKey,
    owner: String,
    shape: Shape,
    words: Option<EdgeBm25>,
    candidates: usize,
    quantized: bool,
}

impl Points {
    pub(crate) fn new(bank: &BankKey, shape: &Shape, config: &Config) -> Result<Self> {
        let language = EdgeBm25Config { language: Some(config.language.clone()), ..EdgeBm25Config::default() };
        let words = || EdgeBm25::new(language).map_err(|error| Error::invalid("config.language", error.to_string()));
        Ok(Self {
            bank: bank.clone(),
            owner: point::owner(bank),
            shape: shape.clone(),
            words: shape.keyword.then(words).transpose()?,
            candidates: config.search_candidates,
            quantized: config.quantization == Quantization::Scalar,
        })
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// # Errors
    /// `InvalidArgument` for attributes that cannot be kept.
    pub(crate) fn of(&self, chunks: &[Chunk]) -> Result<Vec<PointStructPersisted>> {
        chunks.iter().map(|chunk| self.point(chunk)).collect()
    }

    fn point(&self, chunk: &Chunk) -> Result<PointStructPersisted> {
        let mut vectors = HashMap::new();
        if self.shape.dimension > 0 {
            vectors.insert(DENSE.to_owned(), VectorPersisted::Dense(chunk.vector.clone()));
        }
        if let Some(words) = &self.words {
            let words = words.embed_document(&chunk.text);
            if !words.indices.is_empty() {
                vectors.insert(SPARSE.to_owned(), VectorPersisted::Sparse(words));
            }
        }
        Ok(PointStructPersisted {
            id: PointId::Uuid(point::point_id(&self.bank, &chunk.id)),
            vector: VectorStructPersisted::Named(vectors),
            payload: Some(Payload(point::payload(&self.bank, chunk)?)),
        })
    }

    pub(crate) fn id(&self, chunk: &str) -> uuid::Uuid {
        point::point_id(&self.bank, chunk)
    }

    /// This bank's points for which `condition` holds as well.
    fn filter(&self, condition: Option<Json>) -> Result<Filter> {
        let own = json!({ "key": OWNER, "match": { "value": self.owner } });
        let must: Vec<Json> = std::iter::once(own).chain(condition).collect();
        serde_json::from_value(json!({ "must": must })).map_err(|error| Error::internal("a filter cannot be read").with_source(error))
    }

    pub(crate) fn by_vector(
        &self,
        engine: &Engine,
        vector: &[f32],
        condition: Option<&Condition>,
        limit: usize,
        exact: bool,
    ) -> Result<Vec<Hit>> {
        self.search(engine, VectorInternal::Dense(vector.to_vec()), DENSE, condition, limit, exact)
    }

    pub(crate) fn by_words(&self, engine: &Engine, text: &str, condition: Option<&Condition>, limit: usize) -> Result<Vec<Hit>> {
        let Some(words) = &self.words else { return Ok(Vec::new()) };
        let words = words.embed_query(text);
        if words.indices.is_empty() {
            return Ok(Vec::new());
        }
        self.search(engine, VectorInternal::Sparse(words), SPARSE, condition, limit, false)
    }

    fn search(
        &self,
        engine: &Engine,
        query: VectorInternal,
        using: &str,
        condition: Option<&Condition>,
        limit: usize,
        exact: bool,
    ) -> Result<Vec<Hit>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Quantized vectors find twice as many as are asked for, and the originals choose.
        let quantization = (self.quantized && !exact).then(|| json!({ "rescore": true, "oversampling": 2.0 }));
        let params = json!({ "exact": exact, "quantization": quantization, "hnsw_ef": (self.candidates > 0).then_some(self.candidates) });
        let params: SearchParams =
            serde_json::from_value(params).map_err(|error| Error::internal("a search cannot be written").with_source(error))?;
        let query = NamedQuery { query, using: Some(using.to_owned()) };
        let request = QueryRequest {
            prefetches: Vec::new(),
            query: Some(ScoringQuery::Vector(QueryEnum::Nearest(query))),
            filter: Some(self.filter(condition.map(json_of))?),
            score_threshold: None,
            limit,
            offset: 0,
            params: Some(params),
            with_vector: WithVector::Bool(false),
            with_payload: WithPayloadInterface::Bool(true),
        };
        let found = engine.call(|shard| shard.query(request))?;
        let hit =
            |found: qdrant_edge::ScoredPoint| Ok(Hit { chunk: point::chunk(&found.payload.unwrap_or_default().0)?, score: found.score });
        found.into_iter().map(hit).collect()
    }

    pub(crate) fn count(&self, engine: &Engine) -> Result<usize> {
        let filter = self.filter(None)?;
        engine.call(|shard| shard.count(qdrant_edge::CountRequest { filter: Some(filter), exact: true }))
    }

    /// The ids of the points of these documents.
    pub(crate) fn of_documents(&self, engine: &Engine, documents: &[String]) -> Result<Vec<PointId>> {
        let condition = json!({ "key": DOCUMENT, "match": { "any": documents } });
        let (mut ids, filter) = (Vec::new(), self.filter(Some(condition))?);
        self.walk(engine, filter, WithPayloadInterface::Bool(false), |record| ids.push(record.id))?;
        Ok(ids)
    }

    pub(crate) fn places(&self, engine: &Engine, document: Option<&str>) -> Result<Vec<Place>> {
        let condition = document.map(|document| json!({ "key": DOCUMENT, "match": { "value": document } }));
        let fields = json!([DOCUMENT, ID, INDEX]);
        let fields: WithPayloadInterface =
            serde_json::from_value(fields).map_err(|error| Error::internal("a listing cannot be written").with_source(error))?;
        let (mut places, filter) = (Vec::new(), self.filter(condition)?);
        self.walk(engine, filter, fields, |record| {
            if let PointId::Uuid(id) = record.id {
                places.push(Place::new(id, &record.payload.unwrap_or_default().0));
            }
        })?;
        Ok(places)
    }

    fn walk(&self, engine: &Engine, filter: Filter, with_payload: WithPayloadInterface, mut each: impl FnMut(Record)) -> Result<()> {
        let mut offset = None;
        loop {
            let request = ScrollRequest {
                offset,
                limit: Some(PAGE),
                filter: Some(filter.clone()),
                with_payload: Some(with_payload.clone()),
                with_vector: WithVector::Bool(false),
                order_by: None,
            };
            let (records, next) = engine.call(|shard| shard.scroll(request))?;
            records.into_iter().for_each(&mut each);
            match next {
                Some(next) => offset = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The chunks at these places, in their order; those that are gone meanwhile are left out.
    pub(crate) fn read(&self, engine: &Engine, places: &[Place], with_vectors: bool) -> Result<Vec<Chunk>> {
        let ids: Vec<PointId> = places.iter().map(|place| PointId::Uuid(place.point)).collect();
        let vectors = if with_vectors { WithVector::Selector(vec![DENSE.to_owned()]) } else { WithVector::Bool(false) };
        let records = engine.call(|shard| shard.retrieve(&ids, Some(WithPayloadInterface::Bool(true)), Some(vectors)))?;
        let mut found: HashMap<PointId, Record> = records.into_iter().map(|record| (record.id, record)).collect();
        let chunk = |record: Record| {
            let mut chunk = point::chunk(&record.payload.unwrap_or_default().0)?;
            if let Some(VectorStructInternal::Named(mut vectors)) = record.vector
                && let Some(VectorInternal::Dense(vector)) = vectors.remove(DENSE)
            {
                chunk.vector = vector;
            }
            Ok(chunk)
        };
        ids.iter().filter_map(|id| found.remove(id)).map(chunk).collect()
    }
}

pub(crate) fn upsert(points: Vec<PointStructPersisted>) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)))
}

pub(crate) fn delete(ids: Vec<PointId>) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::DeletePoints { ids })
}

/// A condition in Qdrant's own JSON, which both of its forms read.
fn json_of(condition: &Condition) -> Json {
    let all = |conditions: &[Condition]| conditions.iter().map(json_of).collect::<Vec<_>>();
    match condition {
        Condition::All(conditions) => json!({ "must": all(conditions) }),
        Condition::Any(conditions) => json!({ "should": all(conditions) }),
        Condition::Not(condition) => json!({ "must_not": [json_of(condition)] }),
        Condition::TextIn { key, values } => json!({ "key": key, "match": { "any": values } }),
        Condition::Boolean { key, value } => json!({ "key": key, "match": { "value": value } }),
        Condition::Number { key, range: Range { gt, gte, lt, lte } } => {
            json!({ "key": key, "range": { "gt": gt, "gte": gte, "lt": lt, "lte": lte } })
        }
    }
}
