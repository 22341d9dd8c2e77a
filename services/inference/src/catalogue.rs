//! Which provider has which model, as last heard from each.
//!
//! A known id is found without asking anybody. An unknown one makes the catalogue ask again, all providers at once, one
//! question per provider at a time. Who cannot be asked keeps the list that he gave before, and disturbs nobody else.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use indexmap::IndexMap;
use tokio::{sync::Mutex, time::Instant};

use llama_stack_core::{Code, Context, Error, Inference, Result, directory::Weight};
use llama_stack_proto::v1::{ErrorInfo, ListModelsRequest, Model};

/// A list older than this is asked for again, beside the call that notices it. The default.
const FRESH: Duration = Duration::from_secs(30);
/// An unknown id does not make us ask somebody who answered less than this ago.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for somebody who failed to answer.
const PATIENCE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long one provider may take to list its models.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A provider that has the model waits so long for those before it in the manifest, which may have it as well.
const PRECEDENCE: Duration = Duration::from_millis(300);
/// 100,000 models; somebody who goes on giving pages does not go on for ever.
const MAX_PAGES: usize = 100;

/// All that somebody lists, by id. On the stack's own behalf: what one caller's key may see is not for the others.
pub(crate) async fn all_models(inference: &dyn Inference) -> Result<IndexMap<String, Model>> {
    let (cx, mut models, mut weight, mut page_token) = (Context::system(), IndexMap::new(), Weight::default(), String::new());
    for _ in 0..MAX_PAGES {
        let page = inference.list_models(&cx, ListModelsRequest { page_token, ..Default::default() }).await?;
        weight.add(&page.models)?;
        models.extend(page.models.into_iter().map(|model| (model.id.clone(), model)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(models)
}

pub(crate) struct Catalogue {
    entries: Vec<Entry>,
    fresh: Duration,
}

/// One provider, and what is known of its models.
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) inference: Arc<dyn Inference>,
    /// In this process: asking costs nothing, and what it says of its models changes with each request.
    pub(crate) near: bool,
    heard: RwLock<Heard>,
    /// Held while the provider is asked: who waits for it takes the answer instead of asking again.
    asking: Mutex<()>,
}

#[derive(Clone, Default)]
struct Heard {
    /// By their ids at the provider, in its order.
    models: Arc<IndexMap<String, Model>>,
    asked: Option<Instant>,
    answered: Option<Instant>,
    /// Why the last question failed.
    failure: Option<ErrorInfo>,
}

/// Where a model is.
pub(crate) struct Found<'a> {
    pub(crate) entry: &'a Entry,
    /// The model's id there is the asked id without so many bytes at its beginning.
    pub(crate) skip: usize,
    /// What its provider has listed.
    models: Arc<IndexMap<String, Model>>,
}

impl Found<'_> {
    /// What is known of the model; nothing where it was named as `provider/model` and the provider has not listed it.
    pub(crate) fn model(&self, asked: &str) -> Option<&Model> {
        self.models.get(&asked[self.skip..])
    }
}

impl Catalogue {
    pub(crate) fn new(providers: Vec<(String, Arc<dyn Inference>)>) -> Self {
        let entry = |(id, inference)| Entry { id, inference, near: false, heard: RwLock::default(), asking: Mutex::default() };
        Self { entries: providers.into_iter().map(entry).collect(), fresh: FRESH }
    }

    pub(crate) fn fresh_for(self, fresh: Duration) -> Self {
        Self { fresh, ..self }
    }

    pub(crate) fn near(mut self, ids: &[&str]) -> Self {
        for entry in &mut self.entries {
            entry.near = ids.contains(&entry.id.as_str());
        }
        self
    }

    /// The provider of `id`.
    ///
    /// # Errors
    /// `NotFound`, with the ids that there are · `Unavailable` and the like where the model may be at a provider that could
    /// never be asked.
    pub(crate) async fn find(&self, id: &str) -> Result<Found<'_>> {
        if let Some(found) = self.named(id).or_else(|| self.first_with(id)) {
            return Ok(found);
        }
        self.ask_for(id).await;
        self.first_with(id).ok_or_else(|| self.unknown(id))
    }

    /// `provider/model`. A provider's id in front always means that provider, whatever it has listed.
    fn named<'a>(&'a self, id: &str) -> Option<Found<'a>> {
        let (provider, rest) = id.split_once('/')?;
        let entry = self.entries.iter().find(|entry| entry.id == provider)?;
        let models = entry.models();
        // Some name their models after themselves: `openrouter/auto` of the provider `openrouter` is called just that there.
        let skip = if !models.contains_key(rest) && models.contains_key(id) { 0 } else { provider.len() + 1 };
        Some(Found { entry, skip, models })
    }

    /// A plain id: the first provider in the manifest's order that has it.
    fn first_with<'a>(&'a self, id: &str) -> Option<Found<'a>> {
        let found = |entry: &'a Entry| Some(Found { entry, skip: 0, models: entry.models() });
        self.entries.iter().filter_map(found).find(|found| found.model(id).is_some())
    }

    /// Asks everybody whose answer is not recent, until it is clear who has `id`.
    async fn ask_for(&self, id: &str) {
        let ask = |index: usize| async move {
            self.entries[index].ask(PATIENCE).await;
            index
        };
        let mut asked: FuturesUnordered<_> = (0..self.entries.len()).map(ask).collect();
        let mut done = vec![false; self.entries.len()];
        let mut give_up: Option<Instant> = None;
        loop {
            let next = match give_up {
                Some(at) => tokio::time::timeout_at(at, asked.next()).await.unwrap_or_default(),
                None => asked.next().await,
            };
            let Some(index) = next else { return };
            done[index] = true;
            if let Some(first) = self.entries.iter().position(|entry| entry.models().contains_key(id)) {
                if done[..first].iter().all(|done| *done) {
                    return;
                }
                give_up.get_or_insert_with(|| Instant::now() + PRECEDENCE);
            }
        }
    }

    /// Asks everybody whose list has aged, and those of this process in any case.
    pub(crate) async fn refresh(&self) {
        let age = |entry: &Entry| if entry.near { Duration::ZERO } else { self.fresh };
        futures::future::join_all(self.entries.iter().map(|entry| entry.ask(age(entry)))).await;
    }

    /// The question that is due, if any: to be waited for beside other work. Never two to the same provider.
    pub(crate) fn due(&self) -> Option<impl Future<Output = ()> + Send + '_> {
        let due = |entry: &&Entry| entry.heard(|heard| heard.asked.is_none_or(|at| at.elapsed() >= self.fresh));
        let entry = self.entries.iter().find(due)?;
        Some(async move {
            if let Ok(_asking) = entry.asking.try_lock() {
                entry.list().await;
            }
        })
    }

    /// Every model under the id by which [`Catalogue::find`] finds it, which makes the ids unique.
    pub(crate) fn models(&self) -> Vec<Model> {
        let mut all: IndexMap<String, Model> = IndexMap::new();
        for entry in &self.entries {
            for (id, model) in entry.models().iter() {
                let plain = !all.contains_key(id) && self.named(id).is_none();
                let id = if plain { id.clone() } else { format!("{}/{id}", entry.id) };
                all.entry(id.clone()).or_insert_with(|| entry.present(id, model.clone()));
            }
        }
        all.into_values().collect()
    }

    fn unknown(&self, id: &str) -> Error {
        let silent = |entry: &Entry| entry.heard(|heard| heard.failure.clone().filter(|_| heard.answered.is_none()));
        let silent: Vec<(&str, ErrorInfo)> = self.entries.iter().filter_map(|entry| Some((entry.id.as_str(), silent(entry)?))).collect();
        let may_come_back =
            |info: &ErrorInfo| matches!(Code::from_name(&info.code), Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted);
        if let Some((_, info)) = silent.iter().find(|(_, info)| may_come_back(info)) {
            return Error::from(info).context(format_args!("the model {id:?} may be at a provider that could not be asked"));
        }
        let models = self.models();
        let there: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        no_such_model(id, &there, &silent)
    }
}

/// Enough ids to see what is meant; some hosts have hundreds.
const NAMED: usize = 50;

fn no_such_model(id: &str, there: &[&str], silent: &[(&str, ErrorInfo)]) -> Error {
    let rest = there.len().saturating_sub(NAMED);
    let rest = (rest > 0).then(|| format!("and {rest} more"));
    let silent: Vec<String> = silent.iter().map(|(id, info)| format!("(nothing from {id:?}: {})", info.message)).collect();
    let names = there.iter().take(NAMED).copied().chain(rest.as_deref()).chain(silent.iter().map(String::as_str));
    llama_stack_core::service::no_such_model(id, names)
}

impl Entry {
    fn heard<T>(&self, read: impl FnOnce(&Heard) -> T) -> T {
        read(&self.heard.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn edit(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn models(&self) -> Arc<IndexMap<String, Model>> {
        self.heard(|heard| heard.models.clone())
    }

    /// Of a model's vectors, as the provider has listed it under its own id; 0 where it does not say.
    pub(crate) fn dimension(&self, id: &str) -> u32 {
        self.heard(|heard| heard.models.get(id).map_or(0, |model| model.embedding_dimension))
    }

    /// The provider said that it has no such model, so its list is out of date.
    pub(crate) fn doubt(&self) {
        self.edit(|heard| heard.asked = None);
    }

    /// A model as callers see it.
    pub(crate) fn present(&self, id: String, mut model: Model) -> Model {
        if model.provider_model_id.is_empty() {
            model.provider_model_id = model.id;
        }
        Model { id, provider_id: self.id.clone(), ..model }
    }

    /// Asks, unless the last answer is younger than `age`.
    async fn ask(&self, age: Duration) {
        let recent = |heard: &Heard| match (heard.asked, heard.answered, &heard.failure) {
            (Some(asked), _, Some(_)) => asked.elapsed() < PATIENCE_AFTER_FAILURE,
            (Some(_), Some(answered), None) => answered.elapsed() < age,
            _ => false,
        };
        if self.heard(recent) {
            return;
        }
        let _asking = self.asking.lock().await;
        if !self.heard(recent) {
            self.list().await;
        }
    }

    async fn list(&self) {
        self.edit(|heard| heard.asked = Some(Instant::now()));
        let late = || {
            let message = format!("provider {:?} did not list its models within {} s", self.id, ANSWER_WITHIN.as_secs());
            Error::new(Code::Unavailable, message).with_reason("upstream_timeout")
        };
        let listed = tokio::time::timeout(ANSWER_WITHIN, all_models(self.inference.as_ref())).await.unwrap_or_else(|_| Err(late()));
        match listed {
            Ok(models) => self.edit(|heard| {
                heard.models = Arc::new(models);
                heard.answered = Some(Instant::now());
                heard.failure = None;
            }),
            Err(error) => {
                tracing::warn!(provider = self.id, error = error.message(), "provider did not list its models");
                self.edit(|heard| heard.failure = Some(error.to_info()));
            }
        }
    }
}
