//! The way to a server: opened when it is needed, and again after a break.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use llama_stack_core::{Code, Deps, Error, Result, context::Secret};
use rmcp::model::PaginatedRequestParams;

use super::{
    config::Endpoint,
    failure::Failure,
    listing::{Listed, Naming},
    session::{List, Session},
};
use crate::kept::Kept;

/// How long a server may take to start and to shake hands. Nobody waits that long for it: the attempt goes on by itself.
const OPEN: Duration = Duration::from_secs(60);
/// After a failure, and at most, between two attempts; doubled in between.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Pages of one list, and tools on them: a server that never ends does not hold us up.
const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 5_000;

pub(super) struct Connection {
    endpoint: Endpoint,
    naming: Arc<Naming>,
    deps: Deps,
    list: List,
    list_limit: Duration,
    list_age: Duration,
    state: Mutex<State>,
}

/// The outcome of an attempt. Errors are shared, since many may wait for one attempt.
type Opening = Shared<BoxFuture<'static, Result<Arc<Session>, Arc<Error>>>>;

enum State {
    /// `failures` in a row, the last of them at `since`.
    Closed {
        failures: u32,
        last: Option<(Instant, Arc<Error>)>,
    },
    Opening {
        opening: Opening,
        failures: u32,
    },
    Open {
        session: Arc<Session>,
    },
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint, naming: Arc<Naming>, deps: &Deps, list_limit: Duration, list_age: Duration) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            naming,
            deps: deps.clone(),
            list: Arc::new(Kept::new(list_limit, list_age)),
            list_limit,
            list_age,
            state: Mutex::new(State::Closed { failures: 0, last: None }),
        })
    }

    /// To the same server, under a caller's key.
    pub(super) fn with_key(&self, key: &Secret) -> Arc<Self> {
        let endpoint = match &self.endpoint {
            Endpoint::Http(server) => Endpoint::Http(server.with_token(key)),
            Endpoint::Stdio(program) => Endpoint::Stdio(program.clone()),
        };
        Self::new(endpoint, self.naming.clone(), &self.deps, self.list_limit, self.list_age)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The open session, or one that is opened now. Many may wait for one attempt, and none of them ends it by going away.
    ///
    /// # Errors
    /// See [`Failure::open`]; at once, where the last attempt failed a moment ago.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let opening = match self.begin()? {
            Ok(session) => return Ok(session),
            Err(opening) => opening,
        };
        let opened = opening.clone().await;
        self.settle(&opening, &opened);
        opened.map_err(|error| again(&error))
    }

    /// A session that failed is not used again.
    pub(super) fn broken(&self, session: &Arc<Session>) {
        let mut state = self.state();
        if matches!(&*state, State::Open { session: open } if Arc::ptr_eq(open, session)) {
            *state = State::Closed { failures: 0, last: None };
            drop(state);
            self.list.forget();
        }
    }

    /// What the server listed, until it is old or said to have changed.
    ///
    /// # Errors
    /// `Unavailable`, and those of [`Connection::session`].
    pub(super) async fn listed(&self) -> Result<Arc<Listed>> {
        self.list.get(self.ask()).await
    }

    pub(super) fn list_again(&self) {
        self.list.forget();
    }

    async fn ask(&self) -> Result<Arc<Listed>> {
        let session = self.session().await?;
        let (mut tools, mut cursor) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let page = session.peer().list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor))).await;
            let page = page.map_err(|error| {
                self.broken(&session);
                Failure::of(&self.endpoint, &self.deps.provider_id).call(error)
            })?;
            tools.extend(page.tools);
            cursor = page.next_cursor;
            if cursor.is_none() || tools.len() > MAX_TOOLS {
                break;
            }
        }
        if cursor.is_some() {
            tracing::warn!(
                provider = self.deps.provider_id,
                tools = tools.len(),
                "the MCP server's list does not end; the rest is left out"
            );
        }
        Ok(Arc::new(Listed::new(&self.naming, tools)))
    }

    fn begin(&self) -> Result<Result<Arc<Session>, Opening>> {
        let mut state = self.state();
        let failures = match &*state {
            State::Open { session } if session.is_open() => return Ok(Ok(session.clone())),
            State::Open { .. } => {
                self.list.forget();
                0
            }
            State::Opening { opening, .. } => return Ok(Err(opening.clone())),
            State::Closed { last: Some((since, error)), failures } if since.elapsed() < wait(*failures) => return Err(again(error)),
            State::Closed { failures, .. } => *failures,
        };
        let opening = self.open();
        *state = State::Opening { opening: opening.clone(), failures };
        Ok(Err(opening))
    }

    fn open(&self) -> Opening {
        let (endpoint, list, deps) = (self.endpoint.clone(), self.list.clone(), self.deps.clone());
        let attempt = self.deps.tasks.spawn(async move {
            let failure = Failure::of(&endpoint, &deps.provider_id);
            tokio::select! {
                opened = tokio::time::timeout(OPEN, Session::open(&endpoint, &list, &deps)) => {
                    opened.unwrap_or_else(|_| Err(failure.slow(OPEN))).map(Arc::new)
                }
                () = deps.shutdown.cancelled() => Err(Error::unavailable("the stack shuts down")),
            }
        });
        let opened = async {
            let opened =
                attempt.await.unwrap_or_else(|error| Err(Error::internal("connecting to an MCP server broke down").with_source(error)));
            opened.map_err(Arc::new)
        };
        opened.boxed().shared()
    }

    fn settle(&self, opening: &Opening, opened: &Result<Arc<Session>, Arc<Error>>) {
        let mut state = self.state();
        let State::Opening { opening: current, failures } = &*state else { return };
        if !current.ptr_eq(opening) {
            return;
        }
        *state = match opened {
            Ok(session) => State::Open { session: session.clone() },
            Err(error) => State::Closed { failures: failures.saturating_add(1), last: Some((Instant::now(), error.clone())) },
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(MAX_WAIT)
}

/// The same error for one more who waited.
fn again(error: &Arc<Error>) -> Error {
    let mut copy = Error::new(error.code(), error.message());
    if let Some(reason) = error.reason() {
        copy = copy.with_reason(reason);
    }
    if copy.code() == Code::Unavailable {
        copy = copy.with_retry_after(FIRST_WAIT);
    }
    copy.with_source(Said(error.clone()))
}

/// A shared error as a cause.
#[derive(Debug)]
struct Said(Arc<Error>);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::error::Error::source(&*self.0) {
            Some(cause) => std::fmt::Display::fmt(cause, f),
            None => std::fmt::Display::fmt(&self.0, f),
        }
    }
}

impl std::error::Error for Said {}
