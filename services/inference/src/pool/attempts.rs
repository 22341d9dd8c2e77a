//! One request's way through the pool: from upstream to upstream, until one begins to answer.
//!
//! ```text
//! next ─> ask ─┬─ the answer begins ─> from here on it is this upstream's, to the end
//!              └─ it fails ─> may another be asked? (untried, within `attempts`, within the budget) ─> next
//! ```

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::time::Instant;

use llama_stack_core::{Code, Error, EventStream, Inference, Result, service::no_such_model};

use super::{
    Shared,
    choose::{self, Candidate},
    upstream::Asked,
};

pub(super) struct Attempts {
    pool: Arc<Shared>,
    model: String,
    preferred: Option<usize>,
    /// Upstreams by index.
    tried: Vec<usize>,
    last: Option<Error>,
}

impl Attempts {
    /// `key`: what the request has in common with those that should go where it goes.
    pub(super) fn new(pool: Arc<Shared>, model: &str, key: Option<u64>) -> Self {
        let upstreams = pool.upstreams.iter().map(|upstream| (upstream.id.as_str(), upstream.weight));
        let preferred = key.and_then(|key| choose::preferred(key, upstreams));
        pool.budget().request(Instant::now());
        Self { pool, model: model.into(), preferred, tried: Vec::new(), last: None }
    }

    /// The next upstream, which the request counts for from now on.
    ///
    /// # Errors
    /// The last upstream's, where nobody is left · `NotFound` nobody has the model · `Unavailable` nobody can be asked now.
    fn next(&mut self) -> Result<Asked> {
        loop {
            let now = Instant::now();
            let chosen = self.pool.chooser().choose(&self.candidates(now), self.preferred);
            let Some(index) = chosen else { return Err(self.last.take().unwrap_or_else(|| self.nobody(now))) };
            self.tried.push(index);
            // Another request may have become the one trial of a half open breaker meanwhile.
            if let Some(asked) = self.pool.upstreams[index].ask(now) {
                return Ok(asked);
            }
        }
    }

    /// Whom the request may be given to.
    fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let (mut sound, mut doubtful) = (Vec::new(), Vec::new());
        for (index, upstream) in self.pool.upstreams.iter().enumerate() {
            let standing = upstream.now(now);
            if self.tried.contains(&index) || !standing.admits || !upstream.may_have(&self.model) {
                continue;
            }
            let candidate = Candidate { index, weight: upstream.weight, outstanding: standing.outstanding };
            if standing.sound { sound.push(candidate) } else { doubtful.push(candidate) }
        }
        // A probe may be wrong: where it finds fault with all, they are asked all the same.
        if sound.is_empty() { doubtful } else { sound }
    }

    fn nobody(&self, now: Instant) -> Error {
        let having: Vec<_> = self.pool.upstreams.iter().filter(|upstream| upstream.may_have(&self.model)).collect();
        if having.is_empty() {
            let models = self.pool.models();
            return no_such_model(&self.model, models.iter().map(|model| model.id.as_str()));
        }
        let soonest = having.iter().filter_map(|upstream| upstream.now(now).opens_at).min();
        let wait = soonest.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let message = format!("provider {:?}: none of the {} upstreams of {:?} answers", self.pool.id, having.len(), self.model);
        Error::unavailable(message).with_reason("no_upstream").with_retry_after(wait.max(Duration::from_secs(1)))
    }

    /// # Errors
    /// `error` itself, where nobody else is to be asked.
    fn failed(&mut self, asked: Asked, error: Error) -> Result<()> {
        let id = asked.upstream.id.clone();
        let verdict = asked.failed(&self.model, &error);
        let now = Instant::now();
        if !verdict.elsewhere() || self.tried.len() > self.pool.retries.attempts as usize || self.candidates(now).is_empty() {
            return Err(error);
        }
        if !self.pool.budget().retry(now) {
            self.pool.over_budget();
            tracing::warn!(pool = self.pool.id, "the budget of retries is used up");
            return Err(error);
        }
        self.pool.retried();
        tracing::debug!(upstream = id, error = error.message(), "another upstream is asked");
        self.last = Some(error);
        Ok(())
    }

    /// A whole answer.
    pub(super) async fn whole<T, F>(mut self, ask: impl Fn(Arc<dyn Inference>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            let asked = self.next()?;
            match ask(asked.upstream.inference.clone()).await {
                Ok(answer) => {
                    asked.answered();
                    return Ok(answer);
                }
                Err(error) => self.failed(asked, error)?,
            }
        }
    }

    /// A streamed answer. Once its first event is there, it is one upstream's: what breaks off then ends in an error, and is
    /// never gone on with elsewhere.
    pub(super) async fn stream<T: Send + 'static, A>(mut self, ask: A) -> Result<EventStream<T>>
    where
        A: Fn(Arc<dyn Inference>) -> Opening<T> + Send + Sync + 'static,
    {
        let (mut asked, mut events) = self.open(&ask).await?;
        Ok(Box::pin(async_stream::try_stream! {
            let first = loop {
                let error = match events.next().await {
                    Some(Ok(event)) => break event,
                    Some(Err(error)) => error,
                    None => empty(&asked),
                };
                self.failed(asked, error)?;
                (asked, events) = self.open(&ask).await?;
            };
            asked.began();
            yield first;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => yield event,
                    Err(error) => {
                        let error = broken(&asked, error);
                        asked.failed(&self.model, &error);
                        Err::<(), Error>(error)?;
                        return;
                    }
                }
            }
            asked.answered();
        }))
    }

    async fn open<T>(&mut self, ask: &(impl Fn(Arc<dyn Inference>) -> Opening<T> + Sync)) -> Result<(Asked, EventStream<T>)> {
        loop {
            let asked = self.next()?;
            match ask(asked.upstream.inference.clone()).await {
                Ok(events) => return Ok((asked, events)),
                Err(error) => self.failed(asked, error)?,
            }
        }
    }
}

/// A stream that is being opened.
pub(super) type Opening<T> = Pin<Box<dyn Future<Output = Result<EventStream<T>>> + Send>>;

fn empty(asked: &Asked) -> Error {
    let message = format!("upstream {:?} ended its answer before it had begun", asked.upstream.id);
    Error::unavailable(message).with_reason("upstream_malformed")
}

/// What ends a stream in the middle says so, in one stable word.
fn broken(asked: &Asked, error: Error) -> Error {
    match (error.code(), error.reason()) {
        (Code::Unavailable, None | Some("upstream_unreachable")) => {
            let message = format!("upstream {:?} broke off before its answer was done", asked.upstream.id);
            Error::unavailable(message).with_reason("stream_broken").with_source(error)
        }
        _ => error,
    }
}
