//! What the providers of a service list, as one list: name → provider.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::join_all;

use crate::{Code, Context, Error, Result, grpc::MAX_MESSAGE_BYTES};

/// A provider lists at most this many pages; one that never ends its list does not hold up the others.
const MAX_PAGES: usize = 100;

/// What a service lists: the tools of `Tools`, the shields of `Safety`.
#[async_trait::async_trait]
pub trait Listing: Send + Sync + 'static {
    /// What one item is called in messages, for example `tool`.
    const KIND: &'static str;
    type Service: ?Sized + Send + Sync;
    type Item: prost::Message;
    /// What is made of an item once, for every call to it.
    type Prepared: Send + Sync;

    /// One page, and the token of the next.
    async fn page(service: &Self::Service, cx: &Context, page_token: String) -> Result<(Vec<Self::Item>, String)>;

    /// Unique among all providers.
    fn name(item: &Self::Item) -> &str;

    /// # Errors
    /// What keeps an item from being offered.
    fn prepare(item: &Self::Item) -> Result<Self::Prepared>;

    /// Says in the item whose it is.
    fn label(item: &mut Self::Item, provider: &str);
}

/// The lists of all providers as one.
///
/// It asks the providers when it is asked for the list, and when a name is unknown. A provider that does not answer is
/// logged and left out of the list; what it listed before still leads to it.
pub struct Directory<L: Listing> {
    providers: Vec<(String, Arc<L::Service>)>,
    table: RwLock<Arc<Table<L>>>,
}

/// What the providers said last.
pub struct Table<L: Listing> {
    /// In the manifest's order.
    pub listed: Vec<L::Item>,
    /// Providers that did not answer.
    pub silent: Vec<String>,
    routes: HashMap<String, Arc<Route<L>>>,
}

/// Where an item's calls go.
pub struct Route<L: Listing> {
    pub service: Arc<L::Service>,
    pub prepared: L::Prepared,
    provider: usize,
}

impl<L: Listing> Directory<L> {
    /// Providers by id, in the manifest's order. Asks none of them yet; of two items of one name the first is served.
    pub fn new(providers: Vec<(String, Arc<L::Service>)>) -> Self {
        Self { providers, table: RwLock::default() }
    }

    /// As [`Directory::new`], and asks the providers at once, for two seconds at most. One that does not answer is
    /// logged: it may come up later.
    ///
    /// # Errors
    /// On `providers[<index>]`: `AlreadyExists` for an item that an earlier provider has too (names both) · what
    /// [`Listing::prepare`] finds.
    pub async fn build(providers: Vec<(String, Arc<L::Service>)>) -> Result<Self> {
        let directory = Self::new(providers);
        let (table, refused) = directory.ask(&Context::probing()).await;
        directory.keep(table);
        refused.into_iter().next().map_or(Ok(directory), Err)
    }

    /// The providers' ids, in order.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(|(id, _)| id.as_str())
    }

    /// Asks all providers, at the same time.
    ///
    /// # Errors
    /// `DeadlineExceeded`.
    pub async fn refresh(&self, cx: &Context) -> Result<Arc<Table<L>>> {
        let (table, _) = cx.within(async { Ok(self.ask(cx).await) }).await?;
        Ok(self.keep(table))
    }

    pub fn table(&self) -> Arc<Table<L>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where calls to this item go; asks the providers once where the name is new.
    ///
    /// # Errors
    /// `DeadlineExceeded`.
    pub async fn route(&self, cx: &Context, name: &str) -> Result<Option<Arc<Route<L>>>> {
        if let Some(route) = self.table().routes.get(name) {
            return Ok(Some(route.clone()));
        }
        Ok(self.refresh(cx).await?.routes.get(name).cloned())
    }

    /// Their lists, and what of them cannot be offered.
    async fn ask(&self, cx: &Context) -> (Table<L>, Vec<Error>) {
        let asked: Vec<_> = self.providers.iter().map(|(_, service)| cx.within(every_item::<L>(service, cx))).collect();
        let answers = join_all(asked).await;
        let (before, mut table, mut refused) = (self.table(), Table::default(), Vec::new());
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(items) => refused.extend(items.into_iter().filter_map(|item| self.enter(&mut table, index, item).err())),
                Err(error) => {
                    let (provider, cause) = (&self.providers[index].0, std::error::Error::source(&error).map(ToString::to_string));
                    tracing::warn!(%provider, kind = L::KIND, error = error.message(), ?cause, "provider does not list what it has");
                    table.silent.push(provider.clone());
                }
            }
        }
        for (name, route) in &before.routes {
            if table.silent.contains(&self.providers[route.provider].0) {
                table.routes.entry(name.clone()).or_insert_with(|| route.clone());
            }
        }
        (table, refused)
    }

    fn keep(&self, table: Table<L>) -> Arc<Table<L>> {
        let table = Arc::new(table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }

    fn enter(&self, table: &mut Table<L>, provider: usize, mut item: L::Item) -> Result<()> {
        let (id, service) = &self.providers[provider];
        let name = L::name(&item).to_owned();
        let prepared = match table.routes.get(&name) {
            Some(there) => Err(duplicate::<L>(&name, &self.providers[there.provider].0, id)),
            None => L::prepare(&item).map_err(|error| error.context(format_args!("provider {id:?}"))),
        };
        let prepared = prepared.map_err(|error| {
            tracing::warn!(provider = %id, kind = L::KIND, name, error = error.message(), "left out of the list");
            error.with_field(format!("providers[{provider}]"))
        })?;
        L::label(&mut item, id);
        table.routes.insert(name, Arc::new(Route { service: service.clone(), prepared, provider }));
        table.listed.push(item);
        Ok(())
    }
}

impl<L: Listing> Table<L> {
    pub fn contains(&self, name: &str) -> bool {
        self.routes.contains_key(name)
    }

    /// What there is, for messages.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.listed.iter().map(L::name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl<L: Listing> Default for Table<L> {
    fn default() -> Self {
        Self { listed: Vec::new(), silent: Vec::new(), routes: HashMap::new() }
    }
}

fn duplicate<L: Listing>(name: &str, first: &str, second: &str) -> Error {
    let kind = L::KIND;
    let message = if first == second {
        format!("provider {first:?} lists {kind} {name:?} twice")
    } else {
        format!("{kind} {name:?} comes from two providers, {first:?} and {second:?}: only one may have it")
    };
    Error::new(Code::AlreadyExists, message).with_reason(format!("duplicate_{kind}"))
}

/// What the pages of a list weigh in memory: together no more than one message may.
#[derive(Default)]
pub struct Weight(usize);

impl Weight {
    /// # Errors
    /// `Unavailable` (`upstream_malformed`) where it becomes too much.
    pub fn add<T: prost::Message>(&mut self, page: &[T]) -> Result<()> {
        self.0 += page.iter().map(|item| size_of::<T>() + item.encoded_len()).sum::<usize>();
        if self.0 > MAX_MESSAGE_BYTES {
            let message = format!("the provider's list is larger than {} MiB", MAX_MESSAGE_BYTES >> 20);
            return Err(Error::unavailable(message).with_reason("upstream_malformed"));
        }
        Ok(())
    }
}

/// All pages of a provider's list.
///
/// # Errors
/// The provider's · as [`Weight::add`].
pub async fn every_item<L: Listing>(service: &L::Service, cx: &Context) -> Result<Vec<L::Item>> {
    let (mut items, mut weight, mut token) = (Vec::new(), Weight::default(), String::new());
    for _ in 0..MAX_PAGES {
        let (page, next) = L::page(service, cx, token).await?;
        weight.add(&page)?;
        items.extend(page);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    Ok(items)
}
