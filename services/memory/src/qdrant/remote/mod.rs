//! A Qdrant server or cluster as an index, by its gRPC API.
//!
//! A collection for each bank: its words have their own frequencies, as they have in the embedded engine, so both give the
//! same results; a bank is removed whole; and a filter never decides alone whose text is found. Every point and every filter
//! carries the tenant and bank all the same. Words become vectors at the server (`qdrant/bm25`, since Qdrant 1.15.2).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use llama_stack_core::{Error, Result, context::Secret};
use llama_stack_proto::v1::Chunk;
use qdrant_client::{
    Payload, Qdrant,
    qdrant::{
        CollectionInfo, CountPointsBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, DeletePointsBuilder, Distance,
        FieldType, GetPointsBuilder, Modifier, PayloadIncludeSelector, PointStruct, Query, QueryPointsBuilder, ScrollPointsBuilder,
        SparseVectorParamsBuilder, SparseVectorsConfigBuilder, UpsertPointsBuilder, VectorInput, VectorParamsBuilder, VectorsConfigBuilder,
        point_id::PointIdOptions, vector_output, vectors_config,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{
    order::{Order, Place},
    plan::{Plan, check_vector},
    point::{self, BOOLEAN, DENSE, DOCUMENT, ID, INDEX, NUMBER, OWNER, SPARSE, TEXT},
};
use crate::index::{BankKey, Hit, Index, Search, Shape, Stats};

mod wire;

/// Points that one call of a listing reads.
const PAGE: u32 = 5_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of the gRPC API, for example `http://127.0.0.1:6334`.
    pub url: String,
    #[serde(default)]
    pub api_key: Secret,
    /// Names of collections begin with it, so that stacks can share a server.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// Whose stop words and word stems keyword search uses.
    #[serde(default = "default_language")]
    pub language: String,
    /// Copies of each bank in a cluster.
    #[serde(default)]
    pub replication_factor: Option<u32>,
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
}

fn default_prefix() -> String {
    "llama-stack".into()
}

fn default_language() -> String {
    "english".into()
}

fn default_timeout() -> u64 {
    30
}

/// A server's collections behind the contract of [`Index`].
pub struct QdrantIndex {
    client: Qdrant,
    config: Config,
    /// Shapes of banks, the fields of theirs that have an index, and the listing that was begun last.
    known: Mutex<HashMap<BankKey, Arc<Known>>>,
}

struct Known {
    shape: Shape,
    fields: Mutex<HashSet<String>>,
    order: Mutex<Option<Arc<Order>>>,
}

impl QdrantIndex {
    /// Connects at the first call, and again after a break.
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that is none.
    pub fn new(config: Config) -> Result<Self> {
        let key = Some(config.api_key.expose()).filter(|key| !key.is_empty()).map(str::to_owned);
        let client =
            Qdrant::from_url(&config.url).timeout(Duration::from_secs(config.timeout_seconds)).api_key(key).skip_compatibility_check();
        let client = client
            .build()
            .map_err(|error| Error::invalid("config.url", format!("{:?} is no URL of a server", config.url)).with_source(error))?;
        Ok(Self { client, config, known: Mutex::default() })
    }

    fn collection(&self, bank: &BankKey) -> String {
        format!("{}-{}", self.config.prefix, point::owner(bank))
    }

    async fn known(&self, bank: &BankKey) -> Result<Arc<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(bank).cloned();
        match known {
            Some(known) => Ok(known),
            None => {
                let info = self.client.collection_info(self.collection(bank)).await.map_err(wire::error)?.result.unwrap_or_default();
                let fields = Mutex::new(info.payload_schema.keys().cloned().collect());
                let known = Arc::new(Known { shape: shape(&info), fields, order: Mutex::default() });
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(bank.clone(), known.clone());
                Ok(known)
            }
        }
    }

    fn forget(&self, bank: &BankKey) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(bank);
    }

    async fn index_field(&self, bank: &BankKey, key: &str) -> Result<()> {
        let field_type = match key {
            key if key.starts_with(NUMBER) => FieldType::Float,
            key if key.starts_with(BOOLEAN) => FieldType::Bool,
            _ => FieldType::Keyword,
        };
        let request = CreateFieldIndexCollectionBuilder::new(self.collection(bank), key, field_type).wait(true);
        self.client.create_field_index(request).await.map_err(wire::error)?;
        Ok(())
    }

    async fn find(&self, bank: &BankKey, plan: &Plan, query: VectorInput, using: &str) -> Result<Vec<Hit>> {
        if plan.depth == 0 {
            return Ok(Vec::new());
        }
        let request = QueryPointsBuilder::new(self.collection(bank))
            .query(Query::new_nearest(query))
            .using(using)
            .filter(wire::filter(bank, plan.condition.as_ref().map(wire::condition)))
            .limit(plan.depth as u64)
            .with_payload(true);
        let found = self.client.query(request).await.map_err(wire::error)?.result;
        found.into_iter().map(|found| Ok(Hit { chunk: point::chunk(&json(found.payload))?, score: found.score })).collect()
    }

    async fn places(&self, bank: &BankKey, document: Option<&str>) -> Result<Vec<Place>> {
        let filter = wire::filter(bank, document.map(|document| wire::text_in(DOCUMENT, vec![document.to_owned()])));
        let fields = PayloadIncludeSelector { fields: [DOCUMENT, ID, INDEX].map(str::to_owned).to_vec() };
        let (mut places, mut offset) = (Vec::new(), None);
        loop {
            let mut request = ScrollPointsBuilder::new(self.collection(bank))
                .filter(filter.clone())
                .limit(PAGE)
                .with_payload(fields.clone())
                .with_vectors(false);
            if let Some(offset) = offset {
                request = request.offset::<qdrant_client::qdrant::PointId>(offset);
            }
            let page = self.client.scroll(request).await.map_err(wire::error)?;
            for found in page.result {
                places.push(Place::new(uuid_of(found.id)?, &json(found.payload)));
            }
            match page.next_page_offset {
                Some(next) => offset = Some(next),
                None => return Ok(places),
            }
        }
    }

    async fn read(&self, bank: &BankKey, places: &[Place], with_vectors: bool) -> Result<Vec<Chunk>> {
        let ids = places.iter().map(|place| place.point.to_string().into()).collect::<Vec<qdrant_client::qdrant::PointId>>();
        let request = GetPointsBuilder::new(self.collection(bank), ids).with_payload(true).with_vectors(with_vectors);
        let mut found = HashMap::new();
        for one in self.client.get_points(request).await.map_err(wire::error)?.result {
            let mut chunk = point::chunk(&json(one.payload))?;
            let dense = one.vectors.as_ref().and_then(|vectors| vectors.get_vector_by_name(DENSE));
            if let Some(vector_output::Vector::Dense(dense)) = dense {
                chunk.vector = dense.data;
            }
            found.insert(uuid_of(one.id)?, chunk);
        }
        Ok(places.iter().filter_map(|place| found.remove(&place.point)).collect())
    }
}

#[async_trait]
impl Index for QdrantIndex {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()> {
        let collection = self.collection(bank);
        if !self.client.collection_exists(&collection).await.map_err(wire::error)? {
            let mut request = CreateCollectionBuilder::new(&collection);
            if shape.dimension > 0 {
                let mut vectors = VectorsConfigBuilder::default();
                vectors.add_named_vector_params(DENSE, VectorParamsBuilder::new(u64::from(shape.dimension), Distance::Cosine));
                request = request.vectors_config(vectors);
            }
            if shape.keyword {
                let mut words = SparseVectorsConfigBuilder::default();
                words.add_named_vector_params(SPARSE, SparseVectorParamsBuilder::default().modifier(Modifier::Idf));
                request = request.sparse_vectors_config(words);
            }
            if let Some(copies) = self.config.replication_factor {
                request = request.replication_factor(copies);
            }
            self.client.create_collection(request).await.map_err(wire::error)?;
        }
        self.forget(bank);
        let known = self.known(bank).await?;
        if known.shape != *shape {
            let Shape { dimension, keyword } = known.shape;
            return Err(Error::failed_precondition(format!("the bank is there with {dimension} dimensions, keyword {keyword}")));
        }
        for field in [OWNER, DOCUMENT] {
            self.index_field(bank, field).await?;
        }
        Ok(())
    }

    async fn remove(&self, bank: &BankKey) -> Result<()> {
        self.forget(bank);
        let collection = self.collection(bank);
        if self.client.collection_exists(&collection).await.map_err(wire::error)? {
            self.client.delete_collection(collection).await.map_err(wire::error)?;
        }
        Ok(())
    }

    async fn upsert(&self, bank: &BankKey, chunks: Vec<Chunk>) -> Result<()> {
        let known = self.known(bank).await?;
        let mut points = Vec::with_capacity(chunks.len());
        let mut new = HashSet::new();
        for (at, chunk) in chunks.into_iter().enumerate() {
            check_vector(&known.shape, &chunk.vector, &format!("chunks[{at}].vector"))?;
            let payload = point::payload(bank, &chunk)?;
            let attributes = payload.keys().filter(|key| [TEXT, NUMBER, BOOLEAN].iter().any(|prefix| key.starts_with(prefix)));
            new.extend(attributes.cloned());
            let id = point::point_id(bank, &chunk.id).to_string();
            points.push(PointStruct::new(id, wire::vectors(&known.shape, chunk, &self.config.language), Payload::from(payload)));
        }
        if points.is_empty() {
            return Ok(());
        }
        {
            let fields = known.fields.lock().unwrap_or_else(PoisonError::into_inner);
            new.retain(|key| !fields.contains(key));
        }
        for key in new {
            self.index_field(bank, &key).await?;
            known.fields.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        let request = UpsertPointsBuilder::new(self.collection(bank), points).wait(true);
        self.client.upsert_points(request).await.map_err(wire::error)?;
        Ok(())
    }

    async fn delete_documents(&self, bank: &BankKey, documents: &[String]) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        let filter = wire::filter(bank, Some(wire::text_in(DOCUMENT, documents.to_vec())));
        let request = DeletePointsBuilder::new(self.collection(bank)).points(filter).wait(true);
        self.client.delete_points(request).await.map_err(wire::error)?;
        Ok(())
    }

    async fn search(&self, bank: &BankKey, search: &Search) -> Result<Vec<Hit>> {
        let plan = Plan::new(&self.known(bank).await?.shape, search)?;
        let vector = async {
            match &plan.vector {
                Some(vector) => self.find(bank, &plan, VectorInput::new_dense(vector.clone()), DENSE).await,
                None => Ok(Vec::new()),
            }
        };
        let words = async {
            match &plan.words {
                Some(words) => self.find(bank, &plan, wire::words(words, &self.config.language), SPARSE).await,
                None => Ok(Vec::new()),
            }
        };
        let (vector, words) = tokio::try_join!(vector, words)?;
        plan.answer(vector, words)
    }

    async fn scroll(
        &self,
        bank: &BankKey,
        document: Option<&str>,
        after: Option<&str>,
        limit: u32,
        with_vectors: bool,
    ) -> Result<Vec<Chunk>> {
        let known = self.known(bank).await?;
        let kept = || known.order.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|order| order.is_fresh());
        let order = match (document, after) {
            (None, Some(_)) => kept(),
            _ => None,
        };
        let order = match order {
            Some(order) => order,
            None => {
                let order = Arc::new(Order::new(self.places(bank, document).await?));
                if document.is_none() {
                    *known.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order.clone());
                }
                order
            }
        };
        let after = after.map(|id| (id, point::point_id(bank, id)));
        self.read(bank, order.page(after, limit as usize)?, with_vectors).await
    }

    /// The server does not say how much space a bank takes: `bytes` is that of its vectors.
    async fn stats(&self, bank: &BankKey) -> Result<Stats> {
        let shape = self.known(bank).await?.shape.clone();
        let request = CountPointsBuilder::new(self.collection(bank)).filter(wire::filter(bank, None)).exact(true);
        let chunks = self.client.count(request).await.map_err(wire::error)?.result.unwrap_or_default().count;
        let info = self.client.collection_info(self.collection(bank)).await.map_err(wire::error)?.result.unwrap_or_default();
        let points = info.points_count();
        let words = if shape.keyword { points } else { 0 };
        let indexed = info.indexed_vectors_count().saturating_sub(words);
        let indexed_share = if points == 0 || shape.dimension == 0 { 1.0 } else { (indexed as f32 / points as f32).min(1.0) };
        Ok(Stats { chunks, bytes: chunks * u64::from(shape.dimension) * 4, indexed_share })
    }
}

fn shape(info: &CollectionInfo) -> Shape {
    let params = info.config.as_ref().and_then(|config| config.params.as_ref());
    let dense = params.and_then(|params| params.vectors_config.as_ref()).and_then(|vectors| match &vectors.config {
        Some(vectors_config::Config::ParamsMap(map)) => map.map.get(DENSE),
        _ => None,
    });
    let words = params.and_then(|params| params.sparse_vectors_config.as_ref()).is_some_and(|words| words.map.contains_key(SPARSE));
    Shape { dimension: dense.and_then(|dense| u32::try_from(dense.size).ok()).unwrap_or_default(), keyword: words }
}

fn json(payload: HashMap<String, qdrant_client::qdrant::Value>) -> Map<String, Json> {
    payload.into_iter().map(|(key, value)| (key, value.into())).collect()
}

fn uuid_of(id: Option<qdrant_client::qdrant::PointId>) -> Result<uuid::Uuid> {
    let Some(PointIdOptions::Uuid(id)) = id.and_then(|id| id.point_id_options) else {
        return Err(Error::internal("a point of the bank is not this program's").with_source("its id is no UUID"));
    };
    id.parse().map_err(|error| Error::internal("a point of the bank is not this program's").with_source(error))
}
