//! `remote::qdrant`: banks in a Qdrant server or cluster, over gRPC.

mod client;
mod wire;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use llama_stack_core::{Deps, Error, Memory, Result, grpc::Address};
use llama_stack_memory::{
    Banks, BanksParts, banks,
    index::{BankKey, Index, Shape, Stats},
};
use qdrant_client::{
    QdrantError,
    qdrant::{
        CountPoints, CreateFieldIndexCollection, DeleteCollection, DeletePoints, FieldType, GetCollectionInfoRequest, GetPoints,
        PointsSelector, QueryPoints, ScrollPoints, UpsertPoints, points_selector::PointsSelectorOneOf,
    },
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use self::client::Client;
use crate::{
    Engine, QdrantIndex,
    condition::{Condition, DOCUMENT, KEYWORDS},
    edge::Quantization,
    engine::{Change, Found, Query, indexed_share},
    order::Place,
    point::{self, ID, INDEX, Point},
    words::Words,
};

/// Points of one message: the longest texts stay below what a server takes, 32 MiB.
const BATCH: usize = 64;
/// Fields of numbers that are indexed; others are compared one by one.
const MAX_NUMBERS: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of the gRPC port, such as `https://qdrant.example:6334`. With `https` the connection is encrypted, and the server's
    /// certificate checked.
    pub url: String,
    /// A PEM file of authorities whose certificates count beside those that are known everywhere.
    #[serde(default)]
    pub ca_certificate: PathBuf,
    #[serde(default)]
    pub api_key: Option<String>,
    /// Beginning of the names of the collections. Stacks that share a server have different ones.
    #[serde(default = "prefix")]
    pub collection_prefix: String,
    /// Of one request.
    #[serde(default = "timeout")]
    pub timeout_seconds: u64,
    #[serde(default)]
    pub quantization: Quantization,
    /// As `banks::Config` has it.
    #[serde(default)]
    pub embedding_model: String,
    #[serde(default)]
    pub contextual_model: String,
    #[serde(default)]
    pub max_document_bytes: Option<u64>,
    #[serde(default)]
    pub max_tenant_bytes: Option<u64>,
}

fn prefix() -> String {
    "llama-stack".to_owned()
}

fn timeout() -> u64 {
    30
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Memory>> {
    let banks = banks::Config {
        embedding_model: config.embedding_model.clone(),
        contextual_model: config.contextual_model.clone(),
        max_document_bytes: config.max_document_bytes,
        max_tenant_bytes: config.max_tenant_bytes,
    };
    let index = connect(config)?;
    Ok(Arc::new(Banks::new(BanksParts::new(index, banks, &deps)?).await?))
}

/// Connects at the first call and again after a break.
///
/// # Errors
/// `InvalidArgument` on the configuration's fields, and for a file of authorities that holds none.
pub fn connect(config: Config) -> Result<Arc<dyn Index>> {
    if !(config.url.starts_with("http://") || config.url.starts_with("https://")) {
        return Err(Error::invalid("url", "url must begin with http:// or https:// and name the gRPC port of qdrant, usually 6334"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if config.collection_prefix.is_empty() || config.collection_prefix.len() > 64 || !config.collection_prefix.chars().all(plain) {
        return Err(Error::invalid("collection_prefix", "collection_prefix must be 1 to 64 letters, digits, - and _"));
    }
    if config.timeout_seconds == 0 {
        return Err(Error::invalid("timeout_seconds", "timeout_seconds must be at least 1"));
    }
    let channel = Address { ca_certificate: config.ca_certificate, ..Address::new(config.url) }.channel()?;
    let client = Client::new(channel, config.api_key.as_deref(), Duration::from_secs(config.timeout_seconds))?;
    let words = Arc::new(Words::new()?);
    let remote = Remote {
        client,
        prefix: config.collection_prefix,
        quantized: config.quantization == Quantization::Scalar,
        words: words.clone(),
        known: Mutex::default(),
    };
    Ok(Arc::new(QdrantIndex::new(remote, words)))
}

/// What was learnt of a collection.
#[derive(Clone)]
struct Known {
    shape: Shape,
    /// Fields of numbers that have an index.
    numbers: HashSet<String>,
}

struct Remote {
    client: Client,
    prefix: String,
    quantized: bool,
    words: Arc<Words>,
    known: Mutex<HashMap<BankKey, Known>>,
}

impl Remote {
    fn collection(&self, bank: &BankKey) -> String {
        let hash = Sha256::new().chain_update((bank.tenant.len() as u64).to_le_bytes()).chain_update(&bank.tenant);
        format!("{}-{}", self.prefix, hex::encode(&hash.chain_update(&bank.bank_id).finalize()[..16]))
    }

    async fn known(&self, bank: &BankKey) -> Result<Known> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(bank) {
            return Ok(known.clone());
        }
        let request = GetCollectionInfoRequest { collection_name: self.collection(bank) };
        let info = self.client.collection_info(request).await.map_err(|error| self.failed(bank, error))?.result.unwrap_or_default();
        let known = Known { shape: wire::shape(&info), numbers: info.payload_schema.into_keys().collect() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(bank.clone(), known.clone());
        Ok(known)
    }

    fn forget(&self, bank: &BankKey) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(bank);
    }

    /// A collection that another has deleted is not known any more.
    fn failed(&self, bank: &BankKey, error: QdrantError) -> Error {
        let error = wire::failed(bank, error);
        if error.reason() == Some("bank_not_found") {
            self.forget(bank);
        }
        error
    }

    async fn index(&self, bank: &BankKey, field: &str, kind: FieldType) -> Result<()> {
        let request = CreateFieldIndexCollection {
            collection_name: self.collection(bank),
            wait: Some(true),
            field_name: field.to_owned(),
            field_type: Some(kind.into()),
            ..CreateFieldIndexCollection::default()
        };
        self.client.create_field_index(request).await.map(drop).map_err(|error| self.failed(bank, error))
    }

    async fn upsert(&self, bank: &BankKey, chunks: Vec<llama_stack_proto::v1::Chunk>) -> Result<()> {
        let mut known = self.known(bank).await?;
        let points: Vec<Point> = chunks.into_iter().map(|chunk| Point::new(bank, chunk, &self.words)).collect();
        let fields: HashSet<String> = points.iter().flat_map(Point::numbers).collect();
        for field in fields {
            if known.numbers.len() < MAX_NUMBERS && known.numbers.insert(field.clone()) {
                self.index(bank, &field, FieldType::Float).await?;
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(bank.clone(), known.clone());
            }
        }
        let mut points = points.into_iter().map(|point| wire::point(point, &known.shape)).peekable();
        while points.peek().is_some() {
            let request = UpsertPoints {
                collection_name: self.collection(bank),
                wait: Some(true),
                points: points.by_ref().take(BATCH).collect(),
                ..UpsertPoints::default()
            };
            self.client.upsert_points(request).await.map_err(|error| self.failed(bank, error))?;
        }
        Ok(())
    }

    async fn delete(&self, bank: &BankKey, wanted: Condition) -> Result<()> {
        let filter = wire::filter(&Condition::within(bank, Some(wanted)));
        let request = DeletePoints {
            collection_name: self.collection(bank),
            wait: Some(true),
            points: Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter)) }),
            ..DeletePoints::default()
        };
        self.client.delete_points(request).await.map(drop).map_err(|error| self.failed(bank, error))
    }
}

/// Nothing there is nothing to delete.
fn or_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.reason() == Some("bank_not_found") => Ok(()),
        result => result,
    }
}

#[async_trait::async_trait]
impl Engine for Remote {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()> {
        // A bank that keeps nothing here needs no collection.
        if *shape == (Shape { dimension: 0, keyword: false }) {
            return Ok(());
        }
        let name = self.collection(bank);
        if let Err(error) = self.client.create_collection(wire::collection(name, shape, self.quantized)).await {
            // Servers say in several ways that it is there already.
            let error = self.failed(bank, error);
            if self.known(bank).await.is_err() {
                return Err(error);
            }
        }
        for field in KEYWORDS {
            self.index(bank, field, FieldType::Keyword).await?;
        }
        Ok(())
    }

    async fn remove(&self, bank: &BankKey) -> Result<()> {
        let request = DeleteCollection { collection_name: self.collection(bank), ..DeleteCollection::default() };
        let removed = self.client.delete_collection(request).await.map(drop).map_err(|error| self.failed(bank, error));
        self.forget(bank);
        or_gone(removed)
    }

    async fn shape(&self, bank: &BankKey) -> Result<Shape> {
        Ok(self.known(bank).await?.shape)
    }

    /// Several messages, where there is much: what fails in between can be sent again as a whole. A search in the middle of a
    /// replacement may find chunks of both versions.
    async fn change(&self, bank: &BankKey, change: Change) -> Result<()> {
        match change {
            Change::Upsert(chunks) => self.upsert(bank, chunks).await,
            Change::Delete(documents) => or_gone(self.delete(bank, Condition::of_documents(&documents)).await),
            Change::Replace(document, chunks) => {
                let ids = chunks.iter().map(|chunk| point::id(bank, &chunk.id)).collect();
                let others = Condition::Not(Box::new(Condition::Points(ids)));
                let old = Condition::All(vec![Condition::of_documents(&[document]), others]);
                if !chunks.is_empty() {
                    self.upsert(bank, chunks).await?;
                }
                or_gone(self.delete(bank, old).await)
            }
        }
    }

    async fn nearest(&self, bank: &BankKey, query: Query, wanted: Condition, limit: usize, with_vectors: bool) -> Result<Vec<Found>> {
        let (query, using) = wire::query(query);
        let request = QueryPoints {
            collection_name: self.collection(bank),
            query: Some(query),
            using: Some(using.to_owned()),
            filter: Some(wire::filter(&wanted)),
            params: Some(wire::search_params(self.quantized)),
            limit: Some(limit as u64),
            with_payload: Some(wire::with_payload(None)),
            with_vectors: Some(wire::with_vectors(with_vectors)),
            ..QueryPoints::default()
        };
        let found = self.client.query(request).await.map_err(|error| self.failed(bank, error))?.result;
        let found = found.into_iter().map(|point| Found {
            id: wire::uuid(point.id),
            payload: wire::payload(point.payload),
            vector: wire::dense(point.vectors),
            score: point.score,
        });
        Ok(found.collect())
    }

    async fn places(&self, bank: &BankKey, wanted: Condition, from: Option<Uuid>, limit: u32) -> Result<(Vec<Place>, Option<Uuid>)> {
        let request = ScrollPoints {
            collection_name: self.collection(bank),
            filter: Some(wire::filter(&wanted)),
            offset: from.map(wire::id),
            limit: Some(limit),
            with_payload: Some(wire::with_payload(Some(&[DOCUMENT, INDEX, ID]))),
            with_vectors: Some(wire::with_vectors(false)),
            ..ScrollPoints::default()
        };
        let page = self.client.scroll(request).await.map_err(|error| self.failed(bank, error))?;
        let places = page.result.into_iter().map(|point| Place::read(wire::uuid(point.id), &wire::payload(point.payload)));
        let next = page.next_page_offset.map(|next| wire::uuid(Some(next)));
        Ok((places.collect(), next))
    }

    async fn points(&self, bank: &BankKey, ids: Vec<Uuid>, with_vectors: bool) -> Result<Vec<Found>> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCH) {
            let request = GetPoints {
                collection_name: self.collection(bank),
                ids: ids.iter().map(|point| wire::id(*point)).collect(),
                with_payload: Some(wire::with_payload(None)),
                with_vectors: Some(wire::with_vectors(with_vectors)),
                ..GetPoints::default()
            };
            let points = self.client.get_points(request).await.map_err(|error| self.failed(bank, error))?.result;
            found.extend(points.into_iter().map(|point| Found {
                id: wire::uuid(point.id),
                payload: wire::payload(point.payload),
                vector: wire::dense(point.vectors),
                score: 0.0,
            }));
        }
        Ok(found)
    }

    /// A server does not say how many bytes it keeps: they are those of the vectors.
    async fn stats(&self, bank: &BankKey) -> Result<Stats> {
        let request = GetCollectionInfoRequest { collection_name: self.collection(bank) };
        let info = self.client.collection_info(request).await.map_err(|error| self.failed(bank, error))?.result.unwrap_or_default();
        let filter = Some(wire::filter(&Condition::within(bank, None)));
        let count = CountPoints { collection_name: self.collection(bank), filter, exact: Some(true), ..CountPoints::default() };
        let count = self.client.count(count).await.map_err(|error| self.failed(bank, error))?;
        let chunks = count.result.map_or(0, |result| result.count);
        let shape = wire::shape(&info);
        let indexed_share = indexed_share(&shape, info.indexed_vectors_count(), chunks);
        Ok(Stats { chunks, bytes: chunks * u64::from(shape.dimension) * 4, indexed_share })
    }

    async fn size(&self, bank: &BankKey) -> Result<u64> {
        let request = GetCollectionInfoRequest { collection_name: self.collection(bank) };
        let info = self.client.collection_info(request).await.map_err(|error| self.failed(bank, error))?.result;
        Ok(info.and_then(|info| info.points_count).unwrap_or_default())
    }
}
