//! One shard of the engine, with all that a call of it may do caught: an error is typed, a panic becomes one.
//!
//! What is known of 0.7.2 and shielded here: `flush` panics where it fails, and `Drop` flushes; the write-ahead log is never
//! cut, so its closed parts are deleted here (it is kept on, since its numbers order the changes); the lock on it outlives a
//! process that was killed by a moment.

use std::{
    any::Any,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Result};
use llama_stack_memory::{
    index::Shape,
    qdrant::point::{BOOLEAN, DENSE, DOCUMENT, NUMBER, OWNER, SPARSE, TEXT},
};
use qdrant_edge::{
    CreateIndex, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations,
    JsonPath, Modifier, OperationError, OperationResult, PayloadFieldSchema, PayloadSchemaType, QuantizationConfig, ShardInfo,
    UpdateOperation, WalOptions,
};
use serde_json::json;

use crate::{Config, Quantization};

/// How long the lock of a process that is ending is waited for.
const LOCKED: Duration = Duration::from_secs(60);
/// Attributes beyond this many are filtered without an index.
const MAX_INDEXES: usize = 64;

pub(crate) struct Engine {
    shard: Option<EdgeShard>,
    path: PathBuf,
}

impl Engine {
    /// Makes a shard in an empty folder.
    pub(crate) fn create(path: &Path, shape: &Shape, config: &Config) -> Result<()> {
        let shard = guard(|| EdgeShard::new(path, edge_config(shape, config)?))?;
        let engine = Self { shard: Some(shard), path: path.to_owned() };
        engine.index_field(OWNER)?;
        engine.index_field(DOCUMENT)?;
        engine.flush()
    }

    /// # Errors
    /// `Unavailable` where another process holds it for long, or it cannot be read.
    pub(crate) fn open(path: &Path, shape: &Shape, config: &Config) -> Result<Self> {
        let (began, mut wait) = (Instant::now(), Duration::from_millis(5));
        loop {
            match guard(|| EdgeShard::load(path, Some(edge_config(shape, config)?))) {
                Ok(shard) => {
                    let engine = Self { shard: Some(shard), path: path.to_owned() };
                    engine.trim_log();
                    return Ok(engine);
                }
                Err(error) if began.elapsed() > LOCKED || !is_lock(&error) => {
                    return Err(error.context("the bank's vectors cannot be opened"));
                }
                Err(_) => thread::sleep(wait),
            }
            wait = (wait * 2).min(Duration::from_millis(500));
        }
    }

    pub(crate) fn call<T>(&self, call: impl FnOnce(&EdgeShard) -> OperationResult<T>) -> Result<T> {
        match &self.shard {
            Some(shard) => guard(|| call(shard)),
            None => Err(Error::unavailable("the bank's vectors are closed")),
        }
    }

    pub(crate) fn update(&self, operation: UpdateOperation) -> Result<()> {
        self.call(|shard| shard.update(operation))
    }

    /// All that was done so far is in the engine's files, durably. Not while an index is being built.
    pub(crate) fn flush(&self) -> Result<()> {
        self.call(|shard| {
            shard.flush();
            Ok(())
        })?;
        self.trim_log();
        Ok(())
    }

    /// Builds indexes until none is due. Takes as long as it takes; everything else may go on meanwhile, but for a flush.
    pub(crate) fn optimize(&self) -> Result<bool> {
        self.call(EdgeShard::optimize)
    }

    pub(crate) fn info(&self) -> Result<ShardInfo> {
        self.call(|shard| Ok(shard.info()))
    }

    /// The fields that have an index, where filters look first.
    pub(crate) fn indexed_fields(&self) -> Result<Vec<String>> {
        Ok(self.info()?.payload_schema.keys().map(ToString::to_string).collect())
    }

    /// An index for a field of the payload, where there are not too many yet.
    pub(crate) fn index_field(&self, key: &str) -> Result<bool> {
        if self.info()?.payload_schema.len() >= MAX_INDEXES {
            return Ok(false);
        }
        let schema = match key {
            key if key.starts_with(NUMBER) => PayloadSchemaType::Float,
            key if key.starts_with(BOOLEAN) => PayloadSchemaType::Bool,
            key if key.starts_with(TEXT) || key == OWNER || key == DOCUMENT => PayloadSchemaType::Keyword,
            _ => return Ok(false),
        };
        let field_name: JsonPath =
            key.parse().map_err(|()| Error::internal("an attribute's key is no path").with_source(key.to_owned()))?;
        let create = CreateIndex { field_name, field_schema: Some(PayloadFieldSchema::FieldType(schema)) };
        self.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create)))?;
        Ok(true)
    }

    /// The engine never reads its log again, but numbers on where it ends: the newest closed part stays for that.
    fn trim_log(&self) {
        let Ok(entries) = fs::read_dir(self.path.join("wal")) else { return };
        let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.strip_prefix("closed-")?.parse::<u64>().ok();
        let mut closed: Vec<(u64, PathBuf)> = entries.flatten().filter_map(|entry| Some((number(&entry)?, entry.path()))).collect();
        closed.sort_unstable();
        closed.pop();
        // From the oldest on: the parts that are left must follow each other without a gap.
        for (_, path) in closed {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a part of the vector engine's log cannot be deleted");
                return;
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let shard = self.shard.take();
        if let Err(error) = guard(|| {
            drop(shard);
            Ok(())
        }) {
            tracing::warn!(%error, path = %self.path.display(), "the vector engine did not flush at its end; the journal has what it missed");
        }
    }
}

fn edge_config(shape: &Shape, config: &Config) -> OperationResult<EdgeConfig> {
    let quantized = config.quantization == Quantization::Scalar;
    let mut builder = EdgeConfig::builder()
        .optimizers(EdgeOptimizersConfig {
            // Deleted text goes from the files when a segment is written anew.
            deleted_threshold: Some(0.1),
            vacuum_min_vector_number: Some(500),
            indexing_threshold: Some(config.index_above_kb),
            ..EdgeOptimizersConfig::default()
        })
        .wal_options(WalOptions { segment_capacity: 4 << 20, ..WalOptions::default() });
    if shape.dimension > 0 {
        let dense = EdgeVectorParams::builder(shape.dimension as usize, Distance::Cosine).on_disk(quantized).build();
        builder = builder.vector(DENSE, dense);
        if quantized {
            let scalar = json!({ "scalar": { "type": "int8", "quantile": 0.99, "always_ram": true } });
            let scalar: QuantizationConfig =
                serde_json::from_value(scalar).map_err(|error| OperationError::service_error(error.to_string()))?;
            builder = builder.quantization_config(scalar);
        }
    }
    if shape.keyword {
        builder = builder.sparse_vector(SPARSE, EdgeSparseVectorParams::builder().modifier(Modifier::Idf).build());
    }
    Ok(builder.build())
}

/// What the engine does in `call`, as this project's errors.
fn guard<T>(call: impl FnOnce() -> OperationResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(typed(error)),
        Err(panic) => Err(failed().with_source(said(panic.as_ref()))),
    }
}

fn failed() -> Error {
    Error::unavailable("the vector engine failed; the bank is opened anew")
        .with_reason("engine_failed")
        .with_retry_after(Duration::from_secs(1))
}

fn typed(error: OperationError) -> Error {
    match &error {
        OperationError::OutOfMemory { .. } => Error::new(Code::ResourceExhausted, "there is not enough memory for this"),
        OperationError::ValidationError { .. } | OperationError::WrongVectorDimension { .. } => {
            Error::new(Code::InvalidArgument, "the vector engine refuses this request")
        }
        _ => failed(),
    }
    .with_source(error.to_string())
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Whether somebody else has the shard open: what the lock's `EWOULDBLOCK` becomes in the engine's words.
fn is_lock(error: &Error) -> bool {
    let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    said.contains("WouldBlock") || said.contains("would block") || said.contains("temporarily unavailable")
}
