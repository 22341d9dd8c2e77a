//! Continuous batching: each step computes a token of every answer that is being written, and a chunk of the prompts
//! that are being read.
//!
//! * Answers that are being written are in every step, so a long prompt delays them by a chunk, never by its length.
//! * Prompts get what is left, the tenant first that had the least so far, so nobody waits for all of another's work. What an
//!   answer knows that it will say, such as a prompt that is scored, is one of them.
//! * When the cache is full, rows that nobody uses go first; then the newest answer gives up its cells, and reads its
//!   text again later. The oldest is never asked to, so every answer comes to its end.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Priority};

use super::{
    Answer, Backend, Entry, Sequence,
    cache::{Cache, shared},
    draft::Drafter,
};

/// An answer that is wanted.
pub struct Job<A> {
    pub tenant: Arc<str>,
    pub priority: Priority,
    /// Not empty, and with the answer no longer than the cache.
    pub prompt: Vec<u32>,
    pub deadline: Option<Instant>,
    pub answer: A,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Answers that are written or read at once.
    pub running: usize,
    /// Most tokens of one step.
    pub batch: usize,
    /// Most prompt tokens of one step: how long a cancellation, or another's next token, waits at most.
    pub chunk: usize,
    /// Guess at what comes next by what was said before.
    pub drafts: bool,
    /// Most tokens that a second model is asked to guess; 0 where there is none.
    pub guesses: usize,
    /// After this time a batch job is as urgent as any.
    pub patience: Duration,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Tokens computed; none where nothing was to be done.
    pub entries: usize,
    /// Of prompts.
    pub read: usize,
    /// Guesses, and how many of them were right.
    pub guessed: usize,
    pub right: usize,
}

/// Cells per answer under way that are kept free when another is let in.
const HEADROOM: usize = 32;

/// Most tokens that an answer says aloud in one step: each has logits of its own, half a megabyte of them for a large vocabulary, and
/// more at once are hardly read faster.
const ALOUD: usize = 128;

pub struct Scheduler<A> {
    limits: Limits,
    cache: Cache,
    queue: VecDeque<Waiting<A>>,
    running: Vec<Running<A>>,
    /// Tokens computed for each tenant that has work here; a newcomer begins with the least of them.
    served: HashMap<Arc<str>, u64>,
    next_number: u64,
}

struct Waiting<A> {
    job: Job<A>,
    since: Instant,
    number: u64,
    /// It was told that it has begun.
    begun: bool,
}

struct Running<A> {
    job: Job<A>,
    since: Instant,
    /// In order of arrival.
    number: u64,
    sequence: Sequence,
    /// The prompt and what was answered so far.
    tokens: Vec<u32>,
    /// Of `tokens`, those in the cache.
    read: usize,
    drafter: Option<Drafter>,
}

/// The part of one running answer in a step.
struct Share {
    running: usize,
    /// Of its entries in the batch.
    first: usize,
    count: usize,
    /// Guesses at the end of its entries, or what the answer knows that it will say.
    draft: Vec<u32>,
    /// The second of these.
    known: bool,
    /// Its entries come to the end of what is known: the next token can be chosen.
    complete: bool,
}

impl<A: Answer> Scheduler<A> {
    pub fn new(limits: Limits, cache: Cache) -> Self {
        Self { limits, cache, queue: VecDeque::new(), running: Vec::new(), served: HashMap::new(), next_number: 0 }
    }

    /// Queues a job. How many may wait is decided before it comes here.
    pub fn submit(&mut self, job: Job<A>, now: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push_back(Waiting { job, since: now, number, begun: false });
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }

    /// Answers that are read or written, and that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.queue.len())
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Lets go of what was read for a tenant and is kept for its next requests: how many prefixes it was. What its answers under
    /// way have read goes with them.
    pub fn forget(&mut self, backend: &mut impl Backend, tenant: &str) -> usize {
        let forgotten = self.cache.forget(tenant);
        forgotten.iter().for_each(|sequence| backend.cut(*sequence, 0));
        forgotten.len()
    }

    /// Most prompt tokens of the next steps.
    pub fn set_chunk(&mut self, chunk: usize) {
        self.limits.chunk = chunk.clamp(1, self.limits.batch);
    }

    /// Fails everything: the engine is gone, and with it the cache.
    pub fn abort(&mut self, error: &dyn Fn() -> Error) {
        self.queue.drain(..).for_each(|mut waiting| waiting.job.answer.fail(error()));
        self.running.drain(..).for_each(|mut running| running.job.answer.fail(error()));
    }

    /// Computes what is next, if there is anything, and lets the answers choose their tokens.
    ///
    /// # Errors
    /// The backend's. The answers that were part of the step have been told; the others can go on.
    pub fn step(&mut self, backend: &mut impl Backend, now: Instant) -> Result<Worked, Error> {
        self.reap(backend, now);
        self.admit(backend, now);
        let (entries, shares) = loop {
            let (entries, shares) = self.compose(backend, now);
            if self.make_room(backend, entries.len()) {
                break (entries, shares);
            }
        };
        if entries.is_empty() {
            return Ok(Worked::default());
        }
        if let Err(error) = backend.decode(&entries) {
            self.drop_failed(backend, &shares, &error);
            return Err(error);
        }
        let read = shares.iter().map(|share| share.count - share.guesses()).filter(|count| *count > 1).sum();
        let guessed = shares.iter().map(Share::guesses).sum();
        let right = shares.iter().map(|share| self.advance(backend, &entries, share).min(share.guesses())).sum();
        self.running.retain_mut(|running| {
            let over = running.job.answer.is_over();
            if over && self.cache.finish(running.sequence) {
                backend.cut(running.sequence, 0);
            }
            !over
        });
        self.forget_tenants();
        Ok(Worked { entries: entries.len(), read, guessed, right })
    }

    /// Lets go of what nobody waits for any more.
    fn reap(&mut self, backend: &mut impl Backend, now: Instant) {
        let late = |job: &Job<A>| job.deadline.is_some_and(|deadline| deadline <= now);
        self.queue.retain_mut(|waiting| {
            if late(&waiting.job) && !waiting.job.answer.is_over() {
                waiting.job.answer.fail(too_late("the deadline passed while the request waited for the model"));
            }
            !waiting.job.answer.is_over()
        });
        self.running.retain_mut(|running| {
            if late(&running.job) && !running.job.answer.is_over() {
                running.job.answer.fail(too_late("the deadline passed before the answer was done"));
            }
            let over = running.job.answer.is_over();
            if over && self.cache.finish(running.sequence) {
                backend.cut(running.sequence, 0);
            }
            !over
        });
    }

    fn admit(&mut self, backend: &mut impl Backend, now: Instant) {
        while self.running.len() < self.limits.running {
            let Some(next) = self.next_waiting(now) else { return };
            let job = &self.queue[next].job;
            // Room for its prompt, and for some more of everybody: else it would soon have to give way again.
            let room = job.prompt.len() + job.answer.ahead().len() + 1 + HEADROOM * self.running.len();
            if !self.running.is_empty() && self.cache.within_reach(&job.tenant, &job.prompt) < room {
                return;
            }
            let Some(waiting) = self.queue.remove(next) else { return };
            let Some(begun) = self.begin(backend, &waiting.job) else {
                self.queue.insert(next, waiting);
                return;
            };
            let Waiting { mut job, since, number, begun: told } = waiting;
            if !told {
                job.answer.begun(u32::try_from(begun.cached).unwrap_or(u32::MAX));
            }
            let least = self.served.values().copied().min().unwrap_or_default();
            self.served.entry(job.tenant.clone()).or_insert(least);
            let tokens = std::mem::take(&mut job.prompt);
            let Limits { drafts, guesses, .. } = self.limits;
            let drafter = (drafts || guesses > 0).then(|| Drafter::new(drafts, guesses));
            self.running.push(Running { job, since, number, sequence: begun.sequence, tokens, read: begun.cached, drafter });
        }
    }

    fn begin(&mut self, backend: &mut impl Backend, job: &Job<A>) -> Option<super::Begun> {
        let begun = loop {
            match self.cache.begin(&job.tenant, &job.prompt) {
                Some(begun) => break begun,
                None if self.evict(backend) => {}
                None => return None,
            }
        };
        if let Some(from) = begun.from {
            backend.share(from, begun.sequence, u32::try_from(begun.cached).unwrap_or(u32::MAX));
        }
        Some(begun)
    }

    /// Who is next: the urgent, then of the tenant with the fewest answers under way and the least served, then the first
    /// to come. One whose prompt begins as another's that is being read waits until it can share it.
    fn next_waiting(&self, now: Instant) -> Option<usize> {
        let under_way = |tenant: &str| self.running.iter().filter(|running| &*running.job.tenant == tenant).count();
        let rank = |waiting: &Waiting<A>| {
            let urgency = self.urgency(waiting.job.priority, waiting.since, now);
            let tenant = &waiting.job.tenant;
            (urgency, under_way(tenant), self.served.get(tenant).copied().unwrap_or_default(), waiting.number)
        };
        let ready = self.queue.iter().enumerate().filter(|(_, waiting)| !self.could_share_soon(&waiting.job));
        ready.min_by_key(|(_, waiting)| rank(waiting)).map(|(place, _)| place)
    }

    fn could_share_soon(&self, job: &Job<A>) -> bool {
        let known = self.cache.known(&job.tenant, &job.prompt);
        self.running.iter().any(|running| {
            let common = shared(&running.tokens, &job.prompt).min(job.prompt.len().saturating_sub(1));
            running.job.tenant == job.tenant && common > running.read && common > known
        })
    }

    fn urgency(&self, priority: Priority, since: Instant, now: Instant) -> Priority {
        if now.saturating_duration_since(since) >= self.limits.patience { Priority::Interactive } else { priority }
    }

    /// The entries of the next step. The cache may have no room for them yet.
    fn compose(&mut self, backend: &mut impl Backend, now: Instant) -> (Vec<Entry>, Vec<Share>) {
        let (mut entries, mut shares) = (Vec::new(), Vec::new());
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        order.sort_by_key(|n| self.running[*n].number);
        let (writing, mut reading): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|n| self.running[*n].remaining() == 1);
        // What an answer knows that it will say is read as a prompt is: rows that nobody uses give way to it.
        let aloud: Vec<usize> = writing.iter().copied().filter(|n| !self.running[*n].job.answer.ahead().is_empty()).collect();
        let ahead: usize = aloud.iter().map(|n| self.running[*n].job.answer.ahead().len()).sum();
        let wanted = writing.len() + ahead.min(self.limits.chunk);
        while ahead > 0 && self.cache.free() < wanted && self.evict(backend) {}
        // Guesses pay while the engine has room in a step that it makes anyway.
        let guess = reading.is_empty() && aloud.is_empty() && writing.len() <= 2;
        // Nobody gives way to a guess.
        let mut spare = self.cache.free().saturating_sub(writing.len()).min(self.limits.batch.saturating_sub(writing.len()));
        reading.extend(aloud);
        let rank = |n: &usize| {
            let running = &self.running[*n];
            let served = self.served.get(&running.job.tenant).copied().unwrap_or_default();
            (self.urgency(running.job.priority, running.since, now), served, running.number)
        };
        reading.sort_by_key(rank);
        let mut room = self.limits.chunk.min(self.limits.batch.saturating_sub(writing.len()));
        // Of each: how much it may read, or say aloud.
        let mut granted = vec![0; self.running.len()];
        for n in &reading {
            let running = &self.running[*n];
            let aloud = running.remaining() == 1;
            let wanted = if aloud { running.job.answer.ahead().len().min(ALOUD).min(spare) } else { running.remaining() };
            granted[*n] = wanted.min(room);
            room -= granted[*n];
            if aloud {
                spare -= granted[*n];
            }
        }
        for n in writing {
            let running = &mut self.running[n];
            let ahead = running.job.answer.ahead();
            let known = !ahead.is_empty();
            let mut draft = match &mut running.drafter {
                // No guess.
                _ if known => ahead[..granted[n]].to_vec(),
                Some(drafter) if guess && spare > 0 => {
                    let (tenant, tokens) = (&running.job.tenant, running.tokens.as_slice());
                    drafter.draft(tokens, |most| backend.guess(tenant, tokens, most.min(spare)))
                }
                _ => Vec::new(),
            };
            if !known {
                draft.truncate(spare);
                spare -= draft.len();
            }
            add(&mut entries, &mut shares, n, running, 1, draft, known);
        }
        for n in reading {
            let running = &self.running[n];
            if running.remaining() > 1 && granted[n] > 0 {
                add(&mut entries, &mut shares, n, running, granted[n], Vec::new(), false);
            }
        }
        (entries, shares)
    }

    /// Whether the cache has room for a step of `needed` tokens. False: somebody gave up their cells, and the step is
    /// another. One alone always finds room: with its answer it is no longer than the cache.
    fn make_room(&mut self, backend: &mut impl Backend, needed: usize) -> bool {
        while self.cache.free() < needed {
            if self.evict(backend) {
                continue;
            }
            if self.running.len() < 2 {
                return true;
            }
            self.give_way(backend);
            return false;
        }
        true
    }

    /// The newest of the least urgent answers waits again, and reads its text anew when there is room.
    fn give_way(&mut self, backend: &mut impl Backend) {
        let newest = (0..self.running.len()).max_by_key(|n| (self.running[*n].job.priority, self.running[*n].number));
        let Some(newest) = newest else { return };
        let Running { mut job, since, number, sequence, tokens, .. } = self.running.swap_remove(newest);
        self.cache.remove(sequence);
        backend.cut(sequence, 0);
        job.prompt = tokens;
        let place = self.queue.iter().position(|waiting| waiting.number > number).unwrap_or(self.queue.len());
        self.queue.insert(place, Waiting { job, since, number, begun: true });
    }

    fn evict(&mut self, backend: &mut impl Backend) -> bool {
        match self.cache.evict() {
            Some(sequence) => {
                backend.cut(sequence, 0);
                true
            }
            None => false,
        }
    }

    /// Books what was computed for one answer, and lets it choose. How many guesses were right.
    fn advance(&mut self, backend: &mut impl Backend, entries: &[Entry], share: &Share) -> usize {
        let Some(running) = self.running.get_mut(share.running) else { return 0 };
        let own = &entries[share.first..share.first + share.count];
        let tokens: Vec<u32> = own.iter().map(|entry| entry.token).collect();
        self.cache.append(running.sequence, &tokens);
        running.read += share.count - share.draft.len();
        if let Some(served) = self.served.get_mut(&running.job.tenant) {
            *served += share.count as u64;
        }
        if !share.complete {
            return 0;
        }
        let first = share.first + share.count - share.draft.len() - 1;
        let mut right = 0;
        while let Some(token) = running.job.answer.next(backend.logits(first + right)) {
            running.tokens.push(token);
            if share.draft.get(right) != Some(&token) {
                break;
            }
            right += 1;
            running.read += 1;
        }
        if right < share.draft.len() {
            self.cache.truncate(running.sequence, running.read);
            backend.cut(running.sequence, u32::try_from(running.read).unwrap_or(u32::MAX));
        }
        if let Some(drafter) = running.drafter.as_mut().filter(|_| share.guesses() > 0) {
            drafter.judged(share.guesses(), right);
        }
        right
    }

    /// The answers of a step that could not be computed.
    fn drop_failed(&mut self, backend: &mut impl Backend, shares: &[Share], error: &Error) {
        let mut failed: Vec<usize> = shares.iter().map(|share| share.running).collect();
        failed.sort_unstable();
        for n in failed.into_iter().rev() {
            let mut running = self.running.swap_remove(n);
            running.job.answer.fail(same(error));
            self.cache.remove(running.sequence);
            backend.cut(running.sequence, 0);
        }
    }

    fn forget_tenants(&mut self) {
        let (running, queue) = (&self.running, &self.queue);
        self.served.retain(|tenant, _| {
            running.iter().any(|running| running.job.tenant == *tenant) || queue.iter().any(|waiting| waiting.job.tenant == *tenant)
        });
    }
}

impl<A> Running<A> {
    /// Known tokens that are not in the cache.
    fn remaining(&self) -> usize {
        self.tokens.len() - self.read
    }
}

impl Share {
    fn guesses(&self) -> usize {
        if self.known { 0 } else { self.draft.len() }
    }
}

fn add<A>(
    entries: &mut Vec<Entry>,
    shares: &mut Vec<Share>,
    n: usize,
    running: &Running<A>,
    count: usize,
    draft: Vec<u32>,
    known_draft: bool,
) {
    let first = entries.len();
    let complete = running.remaining() == count;
    let known = &running.tokens[running.read..running.read + count];
    for (offset, token) in known.iter().chain(&draft).enumerate() {
        let position = u32::try_from(running.read + offset).unwrap_or(u32::MAX);
        let logits = complete && offset + 1 >= count;
        entries.push(Entry { sequence: running.sequence, position, token: *token, logits });
    }
    shares.push(Share { running: n, first, count: count + draft.len(), draft, known: known_draft, complete });
}

fn too_late(message: &str) -> Error {
    Error::new(Code::DeadlineExceeded, message)
}

/// An error for each of several who have to be told.
fn same(error: &Error) -> Error {
    let copy = Error::new(error.code(), error.message());
    match error.reason() {
        Some(reason) => copy.with_reason(reason),
        None => copy,
    }
}
