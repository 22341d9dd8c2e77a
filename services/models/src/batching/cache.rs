//! What an engine's cache holds: the tokens of each sequence, which cells they share, and who may see them.
//!
//! ```text
//! row 0 (acme)  [ system prompt ······ ][ question A ][ answer A ]          segments: runs of cells with a count of rows
//! row 1 (acme)  [        shared        ][ question B ]                      together they are the tree of known prefixes
//! row 2 (zeta)  [ system prompt ······ ][ … ]                               never shared between tenants
//! ```

use std::sync::Arc;

use super::Sequence;

/// The books of a cache. Whoever changes them does the same to the engine.
#[derive(Debug)]
pub struct Cache {
    cells: usize,
    used: usize,
    /// By sequence number.
    rows: Vec<Option<Row>>,
    segments: Vec<Segment>,
    spare: Vec<usize>,
    clock: u64,
    /// Rows may share cells, and stay when their answer is done.
    keeps: bool,
}

#[derive(Debug)]
struct Row {
    tenant: Arc<str>,
    /// What its cells hold, in order.
    tokens: Vec<u32>,
    /// Segments that add up to `tokens`.
    runs: Vec<usize>,
    /// When it was let go; none while an answer uses it.
    idle_since: Option<u64>,
    /// It goes with its answer, and is kept for nobody.
    passing: bool,
}

/// Cells in a row that belong to the same rows.
#[derive(Clone, Copy, Debug)]
struct Segment {
    length: usize,
    rows: u32,
}

/// A sequence that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub sequence: Sequence,
    /// Tokens of the prompt that its cells hold already.
    pub cached: usize,
    /// The sequence to share them from, if it is another.
    pub from: Option<Sequence>,
}

impl Cache {
    /// `cells` tokens in all, in at most `sequences` rows. `keeps`: prefixes are shared, and a row whose answer is done is
    /// kept for whoever continues it, until its cells are needed.
    pub fn new(cells: usize, sequences: usize, keeps: bool) -> Self {
        Self { cells, used: 0, rows: (0..sequences).map(|_| None).collect(), segments: Vec::new(), spare: Vec::new(), clock: 0, keeps }
    }

    pub fn cells(&self) -> usize {
        self.cells
    }

    pub fn free(&self) -> usize {
        self.cells - self.used
    }

    /// The tokens that a row holds.
    pub fn length(&self, sequence: Sequence) -> usize {
        self.row(sequence).map_or(0, |row| row.tokens.len())
    }

    /// How many tokens of `prompt` a row of this tenant holds. The last token is never counted: what follows it is wanted.
    pub fn known(&self, tenant: &str, prompt: &[u32]) -> usize {
        self.best(tenant, prompt).map_or(0, |(_, length)| length)
    }

    /// How many cells a new row for `prompt` could have, known ones included, if every idle row were evicted.
    pub fn within_reach(&self, tenant: &str, prompt: &[u32]) -> usize {
        let in_use = || self.rows.iter().flatten().filter(|row| row.idle_since.is_none());
        let mut runs: Vec<usize> = in_use().flat_map(|row| row.runs.iter().copied()).collect();
        runs.sort_unstable();
        runs.dedup();
        let held: usize = runs.iter().map(|run| self.segments[*run].length).sum();
        let known = in_use().filter(|row| &*row.tenant == tenant).map(|row| shared(&row.tokens, prompt)).max();
        self.cells - held + known.unwrap_or_default().min(prompt.len().saturating_sub(1))
    }

    /// A row for `prompt` that shares the longest known prefix. None where every row is in use: with idle rows there is
    /// always one, so evict and ask again.
    pub fn begin(&mut self, tenant: &Arc<str>, prompt: &[u32]) -> Option<Begun> {
        let best = self.best(tenant, prompt).filter(|(_, length)| *length > 0);
        if let Some((sequence, length)) = best {
            let whole = self.row(sequence).is_some_and(|row| row.idle_since.is_some() && row.tokens.len() == length);
            if whole {
                self.row_mut(sequence)?.idle_since = None;
                return Some(Begun { sequence, cached: length, from: None });
            }
        }
        let free = self.rows.iter().position(Option::is_none)?;
        let sequence = u32::try_from(free).ok()?;
        let mut row = Row { tenant: tenant.clone(), tokens: Vec::new(), runs: Vec::new(), idle_since: None, passing: false };
        let (mut cached, mut from) = (0, None);
        if let Some((source, length)) = best {
            let runs = self.cover(source, length);
            runs.iter().for_each(|run| self.segments[*run].rows += 1);
            row.tokens = prompt[..length].to_vec();
            row.runs = runs;
            (cached, from) = (length, Some(source));
            self.touch(source);
        }
        self.rows[free] = Some(row);
        Some(Begun { sequence, cached, from })
    }

    /// `tokens` were computed and follow what the row holds.
    pub fn append(&mut self, sequence: Sequence, tokens: &[u32]) {
        let Some(row) = self.rows.get_mut(sequence as usize).and_then(Option::as_mut) else { return };
        row.tokens.extend_from_slice(tokens);
        self.used += tokens.len();
        match row.runs.last() {
            Some(last) if self.segments[*last].rows == 1 => self.segments[*last].length += tokens.len(),
            _ => {
                let segment = Segment { length: tokens.len(), rows: 1 };
                let run = store(&mut self.segments, &mut self.spare, segment);
                row.runs.push(run);
            }
        }
    }

    /// The row holds only its first `length` tokens from now on.
    pub fn truncate(&mut self, sequence: Sequence, length: usize) {
        if self.length(sequence) <= length {
            return;
        }
        let kept = self.cover(sequence, length).len();
        let Some(row) = self.row_mut(sequence) else { return };
        row.tokens.truncate(length);
        let dropped = row.runs.split_off(kept);
        self.release(&dropped);
    }

    /// Its answer is done. True: the row is gone, and the engine's sequence is to be emptied.
    pub fn finish(&mut self, sequence: Sequence) -> bool {
        self.clock += 1;
        let clock = self.clock;
        let keeps = self.keeps;
        match self.row_mut(sequence) {
            Some(row) if keeps && !row.tokens.is_empty() && !row.passing => {
                row.idle_since = Some(clock);
                false
            }
            _ => {
                self.remove(sequence);
                true
            }
        }
    }

    /// Forgets a row.
    pub fn remove(&mut self, sequence: Sequence) {
        let Some(row) = self.rows.get_mut(sequence as usize).and_then(Option::take) else { return };
        self.release(&row.runs);
    }

    /// Forgets the idle row that was not used for the longest time, and says which it was.
    pub fn evict(&mut self) -> Option<Sequence> {
        let idle = (0..self.rows.len()).filter_map(|n| Some((self.rows[n].as_ref()?.idle_since?, n)));
        let (_, oldest) = idle.min()?;
        let sequence = u32::try_from(oldest).ok()?;
        self.remove(sequence);
        Some(sequence)
    }

    /// Forgets the idle rows of a tenant, and says which they were. Those that answers use go when these are done.
    pub fn forget(&mut self, tenant: &str) -> Vec<Sequence> {
        let mut idle = Vec::new();
        for (sequence, row) in (0u32..).zip(&mut self.rows) {
            if let Some(row) = row.as_mut().filter(|row| &*row.tenant == tenant) {
                row.passing = true;
                idle.extend(row.idle_since.map(|_| sequence));
            }
        }
        idle.iter().for_each(|sequence| self.remove(*sequence));
        idle
    }

    /// The rows that no answer uses, the newest first: number, tenant, tokens.
    pub fn kept(&self) -> Vec<(Sequence, Arc<str>, &[u32])> {
        let rows = (0u32..).zip(&self.rows).filter_map(|(sequence, row)| Some((sequence, row.as_ref()?)));
        let mut kept: Vec<_> = rows.filter_map(|(sequence, row)| Some((row.idle_since?, sequence, row))).collect();
        kept.sort_unstable_by_key(|(since, sequence, _)| (std::cmp::Reverse(*since), *sequence));
        kept.into_iter().map(|(_, sequence, row)| (sequence, row.tenant.clone(), row.tokens.as_slice())).collect()
    }

    /// A free row, for text that comes from elsewhere: it is read into the engine, then [`Cache::adopt`]ed. None where
    /// there is no row, or no room for `length` tokens.
    pub fn vacancy(&self, length: usize) -> Option<Sequence> {
        let free = self.rows.iter().position(Option::is_none).filter(|_| self.keeps && length <= self.free())?;
        u32::try_from(free).ok()
    }

    /// The engine's sequence holds `tokens` now, for the tenant who wrote them.
    pub fn adopt(&mut self, sequence: Sequence, tenant: Arc<str>, tokens: Vec<u32>) {
        let Some(row) = self.rows.get_mut(sequence as usize).filter(|row| row.is_none()) else { return };
        self.clock += 1;
        *row = Some(Row { tenant, tokens: Vec::new(), runs: Vec::new(), idle_since: Some(self.clock), passing: false });
        self.append(sequence, &tokens);
    }

    /// The row of the tenant that holds the longest beginning of `prompt`, and how long that is. Of equals the idle one
    /// that is continued whole.
    fn best(&self, tenant: &str, prompt: &[u32]) -> Option<(Sequence, usize)> {
        if !self.keeps {
            return None;
        }
        let most = prompt.len().checked_sub(1)?;
        let rows = self.rows.iter().enumerate().filter_map(|(n, row)| Some((n, row.as_ref()?)));
        let candidates = rows.filter(|(_, row)| &*row.tenant == tenant).map(|(n, row)| {
            let length = shared(&row.tokens, prompt).min(most);
            (length, row.idle_since.is_some() && row.tokens.len() == length, n)
        });
        let (length, _, n) = candidates.max()?;
        Some((u32::try_from(n).ok()?, length))
    }

    /// The segments of a row's first `length` tokens; one that reaches beyond is split.
    fn cover(&mut self, sequence: Sequence, length: usize) -> Vec<usize> {
        let runs = self.row(sequence).map(|row| row.runs.clone()).unwrap_or_default();
        let (mut covered, mut at) = (Vec::new(), 0);
        for run in runs {
            if at == length {
                break;
            }
            let whole = self.segments[run].length;
            if at + whole > length {
                self.split(run, length - at);
            }
            at += self.segments[run].length;
            covered.push(run);
        }
        covered
    }

    /// Cuts a segment in two, in every row that has it.
    fn split(&mut self, run: usize, at: usize) {
        let Segment { length, rows } = self.segments[run];
        self.segments[run].length = at;
        let rest = store(&mut self.segments, &mut self.spare, Segment { length: length - at, rows });
        for row in self.rows.iter_mut().flatten() {
            if let Some(place) = row.runs.iter().position(|one| *one == run) {
                row.runs.insert(place + 1, rest);
            }
        }
    }

    fn release(&mut self, runs: &[usize]) {
        for run in runs {
            let segment = &mut self.segments[*run];
            segment.rows -= 1;
            if segment.rows == 0 {
                self.used -= segment.length;
                self.spare.push(*run);
            }
        }
    }

    /// It was of use to somebody: it is not the next to go.
    fn touch(&mut self, sequence: Sequence) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(since) = self.row_mut(sequence).and_then(|row| row.idle_since.as_mut()) {
            *since = clock;
        }
    }

    fn row(&self, sequence: Sequence) -> Option<&Row> {
        self.rows.get(sequence as usize)?.as_ref()
    }

    fn row_mut(&mut self, sequence: Sequence) -> Option<&mut Row> {
        self.rows.get_mut(sequence as usize)?.as_mut()
    }
}

fn store(segments: &mut Vec<Segment>, spare: &mut Vec<usize>, segment: Segment) -> usize {
    match spare.pop() {
        Some(place) => {
            segments[place] = segment;
            place
        }
        None => {
            segments.push(segment);
            segments.len() - 1
        }
    }
}

/// How many tokens two texts begin with alike.
pub(super) fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
