//! Provider types and their factories. Registration is a list of `add` lines: nothing happens by linking.

use std::{collections::BTreeMap, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Code, Error, Inference, Memory, Result, Safety, Tools, manifest::Egress};

/// Every provider type that this build knows, by service.
#[derive(Default)]
pub struct Registry {
    pub inference: Table<dyn Inference>,
    pub safety: Table<dyn Safety>,
    pub memory: Table<dyn Memory>,
    pub tools: Table<dyn Tools>,
}

/// The provider types of one service.
pub struct Table<S: ?Sized>(BTreeMap<&'static str, Entry<S>>);

impl<S: ?Sized> Clone for Table<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

enum Entry<S: ?Sized> {
    Factory(Factory<S>),
    /// Why this build has none.
    Missing(&'static str),
}

type Built<S> = Pin<Box<dyn Future<Output = Result<Arc<S>>> + Send>>;
impl<S: ?Sized> Clone for Entry<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Factory(factory) => Self::Factory(factory.clone()),
            Self::Missing(sentence) => Self::Missing(sentence),
        }
    }
}

type Factory<S> = Arc<dyn Fn(Value, Deps) -> Built<S> + Send + Sync>;

impl<S: ?Sized> Default for Table<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: ?Sized + 'static> Table<S> {
    /// `build` gets the provider's `config`, read into its own type, and what lies to its left.
    pub fn add<C, B, F>(&mut self, name: &'static str, build: B)
    where
        C: DeserializeOwned + Send + 'static,
        B: Fn(C, Deps) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Arc<S>>> + Send + 'static,
    {
        let factory: Factory<S> = Arc::new(move |config, deps| {
            let build = build.clone();
            Box::pin(async move { build(read_config(config)?, deps).await })
        });
        self.0.insert(name, Entry::Factory(factory));
    }

    /// A type that this build leaves out, and the sentence that says so. Does not replace a factory.
    pub fn missing(&mut self, name: &'static str, sentence: &'static str) {
        self.0.entry(name).or_insert(Entry::Missing(sentence));
    }

    /// The types that can be built.
    pub fn types(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|(_, entry)| matches!(entry, Entry::Factory(_))).map(|(name, _)| *name)
    }

    /// # Errors
    /// `InvalidArgument` for an unknown type or a wrong configuration (`field` is the path below `config`) ·
    /// `Unimplemented` for a type that this build leaves out · whatever the factory finds.
    pub async fn build(&self, name: &str, config: Value, deps: Deps) -> Result<Arc<S>> {
        match self.0.get(name) {
            Some(Entry::Factory(factory)) => factory(config, deps).await,
            Some(Entry::Missing(sentence)) => Err(Error::new(Code::Unimplemented, format!("{name}: {sentence}")).with_field("type")),
            None => {
                let there: Vec<&str> = self.types().collect();
                Err(Error::invalid("type", format!("no provider type {name:?}; there is: {}", there.join(", "))))
            }
        }
    }
}

/// A provider without `config` gets an empty one, so that defaults and "missing field" work alike.
fn read_config<C: DeserializeOwned>(config: Value) -> Result<C> {
    let config = if config.is_null() { Value::Object(serde_json::Map::new()) } else { config };
    serde_path_to_error::deserialize(config).map_err(|error| {
        let path = crate::manifest::error_path(&error);
        let path = if path.is_empty() { "config".to_owned() } else { format!("config.{path}") };
        Error::invalid(path, crate::manifest::error_text(error.inner()))
    })
}

/// What a factory may use: its own place in the stack, and the services to its left.
#[derive(Clone)]
pub struct Deps {
    /// The provider's id in the manifest.
    pub provider_id: String,
    /// `LLAMA_STACK_HOME`: models, state, logs.
    pub home: PathBuf,
    /// The distribution's own folder below `home`: what its providers keep.
    pub folder: PathBuf,
    pub on_progress: OnProgress,
    /// What the server hands on that has its type on a floor above this one: the store.
    pub extensions: http::Extensions,
    /// Where tools may connect to: a provider that connects on a model's word does so through a client that keeps to it.
    pub egress: Egress,
    /// A caller asked for this provider while the stack runs, rather than whoever wrote the manifest: such a provider may
    /// reach servers, and neither start processes nor read files of this machine.
    pub at_run_time: bool,
    /// Cancelled when the stack shuts down.
    pub shutdown: CancellationToken,
    /// Background tasks belong here: shutdown waits for them.
    pub tasks: TaskTracker,
    pub inference: Option<Arc<dyn Inference>>,
    pub safety: Option<Arc<dyn Safety>>,
    pub memory: Option<Arc<dyn Memory>>,
}

impl Deps {
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Self {
            provider_id: String::new(),
            folder: home.clone(),
            home,
            extensions: http::Extensions::new(),
            on_progress: Arc::new(|_| {}),
            egress: Egress::default(),
            at_run_time: false,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            inference: None,
            safety: None,
            memory: None,
        }
    }

    /// The stack's inference router.
    ///
    /// # Errors
    /// `FailedPrecondition` in a stack without inference.
    pub fn inference(&self) -> Result<Arc<dyn Inference>> {
        self.inference
            .clone()
            .ok_or_else(|| Error::failed_precondition("this provider needs inference, and the manifest names no inference provider"))
    }
}

/// Told about work that takes long enough to be shown: downloads, loading.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being worked on, the same in all its reports.
    pub item: String,
    /// Bytes.
    pub done: u64,
    pub total: Option<u64>,
    /// The last report of this item.
    pub finished: bool,
}
