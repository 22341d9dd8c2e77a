//! One loaded model and the thread that runs it. The context of llama.cpp never leaves that thread.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    time::Instant,
};

use llama_cpp_2::model::LlamaModel;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use llama_stack_core::{Error, Result};
use llama_stack_models::{
    admission::Permit,
    batching::{Answer, Cache, Job, Limits, Priority, Scheduler},
    decode::{Chooser, Lexicon, Making, broken},
};

use crate::{
    config::Kind,
    context::{Context, Shape},
    guesser::{self, Guesser, Guided},
    load::{self, Loaded, Source, Weights, caught, said, unusable},
    pace::Pace,
    vectors::{self, Texts},
    warm::Folder,
};

/// Rows of the cache that answers do not use: prefixes that are kept for the next.
const KEPT_ROWS: u32 = 24;

/// Several short texts go through an encoder in one call.
const LEAST_ENCODER_BATCH: u32 = 512;

/// Steps that may fail one after the other before the engine counts as broken.
const FAILURES: u32 = 3;

/// After so long a batch request is as urgent as any.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Handle of the thread; dropping it ends the thread with the step that is under way.
pub(crate) struct Engine {
    commands: Sender<Command>,
    alive: Arc<AtomicBool>,
    ended: CancellationToken,
    model: Arc<LlamaModel>,
    pub(crate) lexicon: Arc<Lexicon>,
    pub(crate) gauges: Arc<Gauges>,
}

/// What the thread says of itself, for lists and metrics.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) cells_used: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    /// Guesses, and those of them that were what the model said.
    pub(crate) draft_tokens: AtomicU64,
    pub(crate) draft_accepted_tokens: AtomicU64,
}

pub(crate) enum Command {
    Generate(Box<Generate>),
    /// Vectors or scores of whole texts.
    Vectors(Texts),
    /// Kept prefixes go to disk; the other end is told when they are there.
    Save(oneshot::Sender<()>),
    /// Kept prefixes of a tenant go; the other end is told how many they were.
    Forget(Arc<str>, oneshot::Sender<usize>),
}

/// The answers to one request.
pub(crate) struct Generate {
    pub(crate) making: Making,
    pub(crate) tenant: Arc<str>,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    pub(crate) permit: Permit,
}

impl Engine {
    /// Reads the weights and starts the thread.
    ///
    /// # Errors
    /// As [`load::load`].
    pub(crate) async fn start(source: Source) -> Result<Self> {
        let (started, ready) = oneshot::channel();
        let (commands, received) = channel();
        let alive = Arc::new(AtomicBool::new(true));
        let (gauges, ended) = (Arc::<Gauges>::default(), CancellationToken::new());
        let id = source.id.clone();
        let thread = Thread { commands: received, alive: alive.clone(), gauges: gauges.clone() };
        let end = ended.clone().drop_guard();
        std::thread::Builder::new()
            .name("llama-cpp".into())
            .spawn(move || {
                thread.run(source, started);
                // Its weights are gone from here on.
                drop(end);
            })
            .map_err(|error| Error::internal("no thread to run a model on").with_source(error))?;
        let (model, lexicon) = ready.await.map_err(|_| unusable(&id, "the loading thread ended"))??;
        Ok(Self { commands, alive, ended, model, lexicon, gauges })
    }

    /// Hands work to the thread. What it cannot take is dropped, and whoever waits for it finds out.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            self.alive.store(false, Ordering::Release);
        }
    }

    /// A query and a document as a reranker reads them.
    pub(crate) fn pair(&self, query: &str, document: &str) -> Vec<u32> {
        load::pair(&self.model, query, document)
    }

    /// Cancelled once the thread has ended and its cache is gone.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Whether the thread still takes work.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

/// What the thread has when it begins to take work.
type Ready = (Arc<LlamaModel>, Arc<Lexicon>);

/// What the thread owns from the start.
struct Thread {
    commands: Receiver<Command>,
    alive: Arc<AtomicBool>,
    gauges: Arc<Gauges>,
}

/// A chooser and the place of its request, which is given back with the last of its choices.
struct Voice {
    chooser: Chooser,
    gauges: Arc<Gauges>,
    _permit: Arc<Permit>,
}

impl Answer for Voice {
    fn begun(&mut self, cached: u32) {
        self.gauges.cached_tokens.fetch_add(cached.into(), Ordering::Relaxed);
        self.chooser.begun(cached);
    }

    fn next(&mut self, logits: &mut [f32]) -> Option<u32> {
        self.chooser.next(logits)
    }

    fn ahead(&self) -> &[u32] {
        self.chooser.ahead()
    }

    fn is_over(&self) -> bool {
        self.chooser.is_over()
    }

    fn fail(&mut self, error: Error) {
        self.chooser.fail(error);
    }
}

impl Thread {
    fn run(self, source: Source, started: oneshot::Sender<Result<Ready>>) {
        let alive = self.alive.clone();
        let id = source.id.clone();
        // A panic here is a fault of ours or of the bindings; those who wait are told by their channels.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work(source, started)));
        alive.store(false, Ordering::Release);
        if let Err(panic) = outcome {
            tracing::error!(model = id, "the engine broke");
            // It may quote a text.
            tracing::debug!(model = id, said = said(&*panic), "what its panic said");
        }
    }

    fn work(self, source: Source, started: oneshot::Sender<Result<Ready>>) {
        let shape = shape(&source);
        let id = source.id.clone();
        let (lexicon, mut weights, mut second) = match caught(&id, || Loaded::new(source)) {
            Ok(Loaded { lexicon, weights, second }) => (lexicon, weights, second),
            // If nobody waits any more, nobody needs to know.
            Err(error) => return drop(started.send(Err(error))),
        };
        let (kind, reuse, folder) = (weights.source.kind, reuses(&weights), weights.source.folder.clone());
        let limits = Limits {
            running: weights.source.options.parallel.max(1) as usize,
            batch: shape.batch as usize,
            chunk: shape.batch as usize,
            drafts: weights.source.options.drafts && reuse,
            guesses: weights.source.options.draft.as_ref().map_or(0, |draft| draft.tokens as usize),
            patience: PATIENCE,
        };
        let keeps = weights.source.options.prefix_reuse && reuse;
        let model = weights.model.clone();
        let made = caught(&id, || {
            let guesser = second.as_mut().map(|(second, common)| {
                let shape = draft_shape(&second.source);
                Ok::<_, Error>(Guesser::new(Context::new(second, shape)?, shape.cells, shape.batch, *common))
            });
            Ok((Context::new(&mut weights, shape)?, guesser.transpose()?))
        });
        let (mut context, guesser) = match made {
            Ok(made) => made,
            Err(error) => return drop(started.send(Err(error))),
        };
        if started.send(Ok((model, lexicon.clone()))).is_err() {
            return;
        }
        match kind {
            Kind::Chat => {
                let mut cache = Cache::new(shape.cells as usize, shape.sequences as usize, keeps);
                if let Some(folder) = &folder {
                    let prefixes = folder.restore(&mut context, &mut cache);
                    tracing::info!(prefixes, "kept prefixes were read");
                }
                let scheduler = Scheduler::new(limits, cache);
                let (context, pace) = (Guided { context, guesser }, Pace::new(shape.batch as usize));
                Generating { context, scheduler, lexicon, pace, folder }.run(&self);
            }
            Kind::Embedding | Kind::Reranker => self.embed(context, shape),
        }
    }

    fn embed(self, mut context: Context<'_>, shape: Shape) {
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Vectors(texts) => vectors::compute(&mut context, shape, texts),
                // Nothing is kept; whoever waits for it is told by the channel's end.
                Command::Save(_) | Command::Forget(..) | Command::Generate(_) => {}
            }
        }
    }
}

/// A chat model at work.
struct Generating<'a> {
    context: Guided<'a>,
    scheduler: Scheduler<Voice>,
    lexicon: Arc<Lexicon>,
    pace: Pace,
    folder: Option<Folder>,
}

impl Generating<'_> {
    /// Until the handle is gone, or the engine is broken.
    fn run(mut self, thread: &Thread) {
        let mut failures = 0;
        loop {
            if self.scheduler.is_idle() {
                let Ok(command) = thread.commands.recv() else { return };
                self.take(thread, command);
            }
            loop {
                match thread.commands.try_recv() {
                    Ok(command) => self.take(thread, command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        let gone = || Error::unavailable("the model is being unloaded: try once more").with_reason("engine_unloaded");
                        return self.scheduler.abort(&gone);
                    }
                }
            }
            match self.step(&thread.gauges) {
                Ok(()) => failures = 0,
                Err(error) => {
                    tracing::error!(error = ?error, "a step failed");
                    failures += 1;
                    if failures == FAILURES {
                        return self.scheduler.abort(&broken);
                    }
                }
            }
            let used = self.scheduler.cache().cells() - self.scheduler.cache().free();
            thread.gauges.cells_used.store(used as u64, Ordering::Relaxed);
        }
    }

    fn step(&mut self, gauges: &Gauges) -> Result<()> {
        let (running, waiting) = self.scheduler.load();
        self.scheduler.set_chunk(self.pace.chunk(running + waiting < 2));
        let begun = Instant::now();
        let worked = self.scheduler.step(&mut self.context, begun)?;
        self.pace.took(worked.read, begun.elapsed());
        gauges.draft_tokens.fetch_add(worked.guessed as u64, Ordering::Relaxed);
        gauges.draft_accepted_tokens.fetch_add(worked.right as u64, Ordering::Relaxed);
        Ok(())
    }

    fn take(&mut self, thread: &Thread, command: Command) {
        match command {
            Command::Generate(generate) => self.begin(thread, *generate),
            Command::Save(done) => {
                self.save();
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
            Command::Forget(tenant, done) => {
                let count = self.scheduler.forget(&mut self.context, &tenant);
                if let Some(guesser) = &mut self.context.guesser {
                    guesser.forget(&tenant);
                }
                let _ = done.send(count);
            }
            // The provider asks a chat model for no vectors.
            Command::Vectors(_) => {}
        }
    }

    fn begin(&mut self, thread: &Thread, generate: Generate) {
        let Generate { mut making, tenant, priority, deadline, permit } = generate;
        let (now, permit) = (Instant::now(), Arc::new(permit));
        thread.gauges.prompt_tokens.fetch_add(making.plan.prompt.len() as u64, Ordering::Relaxed);
        let choosers: Vec<Chooser> = (0..making.plan.choices).map(|choice| making.chooser(choice, &self.lexicon)).collect();
        let mut prompt = std::mem::take(&mut making.plan.prompt);
        if making.plan.score_prompt {
            // The choosers say the rest.
            prompt.truncate(1);
        }
        let last = choosers.len().saturating_sub(1);
        for (choice, chooser) in choosers.into_iter().enumerate() {
            let prompt = if choice == last { std::mem::take(&mut prompt) } else { prompt.clone() };
            let answer = Voice { chooser, gauges: thread.gauges.clone(), _permit: permit.clone() };
            self.scheduler.submit(Job { tenant: tenant.clone(), priority, prompt, deadline, answer }, now);
        }
    }

    fn save(&self) {
        let Some(folder) = &self.folder else { return };
        match folder.save(&self.context.context, self.scheduler.cache()) {
            Ok(prefixes) => tracing::info!(prefixes, "kept prefixes were written"),
            Err(error) => tracing::error!(error = ?error, "kept prefixes could not be written"),
        }
    }
}

/// Recurrent models cannot give up part of a sequence.
fn reuses(weights: &Weights) -> bool {
    !weights.model.is_recurrent() && !weights.model.is_hybrid()
}

/// How large a context a model gets that guesses for another.
pub(crate) fn draft_shape(source: &Source) -> Shape {
    Shape { cells: source.context_length, sequences: guesser::ROWS, batch: source.options.batch.clamp(1, 512) }
}

/// How large a context a model gets.
pub(crate) fn shape(source: &Source) -> Shape {
    let options = &source.options;
    match source.kind {
        Kind::Chat => Shape {
            cells: options.cache_tokens.unwrap_or_default().max(source.context_length),
            sequences: options.parallel.max(1) + KEPT_ROWS,
            batch: options.batch.clamp(1, 512),
        },
        // Attention of an encoder spans the text: all of it is in one call.
        Kind::Embedding | Kind::Reranker => {
            let batch = source.context_length.max(LEAST_ENCODER_BATCH);
            Shape { cells: batch, sequences: vectors::TEXTS, batch }
        }
    }
}
