//! The scheduler with a model of its own: what it says depends on every cell of its sequence, so a cell that is shared,
//! kept or cut wrongly changes the answer.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use llama_stack_core::{Code, Error};

use super::{Answer, Backend, Cache, Entry, Job, Limits, Priority, Scheduler, Sequence};

const VOCABULARY: usize = 12;

struct Cell {
    position: u32,
    token: u32,
    sequences: BTreeSet<Sequence>,
}

/// Cells as an engine has them.
struct Fake {
    cells: Vec<Option<Cell>>,
    rows: Vec<Option<Vec<f32>>>,
    fails: bool,
}

impl Fake {
    fn new(cells: usize) -> Self {
        Self { cells: (0..cells).map(|_| None).collect(), rows: Vec::new(), fails: false }
    }

    fn used(&self) -> usize {
        self.cells.iter().flatten().count()
    }

    fn text(&self, sequence: Sequence) -> Vec<u32> {
        let mut own: Vec<(u32, u32)> =
            self.cells.iter().flatten().filter(|cell| cell.sequences.contains(&sequence)).map(|cell| (cell.position, cell.token)).collect();
        own.sort_unstable();
        assert!(own.iter().enumerate().all(|(n, (position, _))| n as u32 == *position), "a hole or a double in {own:?}");
        own.into_iter().map(|(_, token)| token).collect()
    }
}

/// What follows a text. Some texts repeat themselves, so that guesses are right now and then.
fn next_token(text: &[u32]) -> u32 {
    let mut hasher = DefaultHasher::new();
    text[text.len().saturating_sub(if text.len().is_multiple_of(3) { 2 } else { 40 })..].hash(&mut hasher);
    (hasher.finish() % VOCABULARY as u64) as u32
}

impl Backend for Fake {
    fn decode(&mut self, entries: &[Entry]) -> Result<(), Error> {
        if self.fails {
            return Err(Error::internal("the fake failed").with_reason("engine_error"));
        }
        self.rows.clear();
        for entry in entries {
            assert_eq!(self.text(entry.sequence).len() as u32, entry.position, "sequence {} does not go on where it ended", entry.sequence);
            let free = self.cells.iter().position(Option::is_none).expect("no cell is free");
            self.cells[free] = Some(Cell { position: entry.position, token: entry.token, sequences: [entry.sequence].into() });
            self.rows.push(entry.logits.then(|| {
                let chosen = next_token(&self.text(entry.sequence));
                (0..VOCABULARY as u32).map(|id| if id == chosen { 1.0 } else { 0.0 }).collect()
            }));
        }
        Ok(())
    }

    fn logits(&mut self, index: usize) -> &mut [f32] {
        self.rows[index].as_mut().expect("logits that were not asked for")
    }

    fn share(&mut self, from: Sequence, to: Sequence, length: u32) {
        assert!(self.text(to).is_empty(), "{to} is not empty");
        assert!(self.text(from).len() >= length as usize);
        for cell in self.cells.iter_mut().flatten() {
            if cell.sequences.contains(&from) && cell.position < length {
                cell.sequences.insert(to);
            }
        }
    }

    fn cut(&mut self, sequence: Sequence, length: u32) {
        for cell in &mut self.cells {
            if let Some(own) = cell.as_mut().filter(|own| own.position >= length) {
                own.sequences.remove(&sequence);
                if own.sequences.is_empty() {
                    *cell = None;
                }
            }
        }
    }

    /// Right for some tokens, then wrong; now and then it has nothing to say, or doubts.
    fn guess(&mut self, _tenant: &Arc<str>, tokens: &[u32], most: usize) -> Option<Vec<u32>> {
        let mut text = tokens.to_vec();
        let right = match text.len() % 7 {
            0 => return None,
            right => right - 1,
        };
        for n in 0..most {
            let next = next_token(&text);
            text.push(if n < right { next } else { (next + 1) % VOCABULARY as u32 });
        }
        if right == 0 {
            text.truncate(tokens.len());
        }
        Some(text.split_off(tokens.len()))
    }
}

/// How an answer went.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    said: Vec<u32>,
    cached: Option<u32>,
    failed: Option<Code>,
    over: bool,
}

#[derive(Clone)]
struct Speaker {
    told: Rc<RefCell<Told>>,
    left: usize,
    /// What it says first, whatever the model thinks, and how much of it was said.
    script: Vec<u32>,
    said: usize,
}

impl Answer for Speaker {
    fn begun(&mut self, cached: u32) {
        assert_eq!(self.told.borrow_mut().cached.replace(cached), None, "begun twice");
    }

    fn next(&mut self, logits: &mut [f32]) -> Option<u32> {
        let mut told = self.told.borrow_mut();
        assert!(!told.over);
        if let Some(token) = self.script.get(self.said) {
            self.said += 1;
            return Some(*token);
        }
        let chosen = logits.iter().position(|logit| *logit == 1.0).unwrap() as u32;
        told.said.push(chosen);
        self.left -= 1;
        told.over = self.left == 0;
        (!told.over).then_some(chosen)
    }

    fn ahead(&self) -> &[u32] {
        &self.script[self.said..]
    }

    fn is_over(&self) -> bool {
        self.told.borrow().over
    }

    fn fail(&mut self, error: Error) {
        let mut told = self.told.borrow_mut();
        (told.failed, told.over) = (Some(error.code()), true);
    }
}

struct World {
    scheduler: Scheduler<Speaker>,
    fake: Fake,
    now: Instant,
}

impl World {
    fn new(limits: Limits, cells: usize, rows: usize) -> Self {
        Self { scheduler: Scheduler::new(limits, Cache::new(cells, rows, true)), fake: Fake::new(cells), now: Instant::now() }
    }

    fn ask(&mut self, tenant: &str, prompt: &[u32], tokens: usize) -> Rc<RefCell<Told>> {
        self.ask_with(tenant, prompt, tokens, Priority::Interactive, None)
    }

    fn ask_with(
        &mut self,
        tenant: &str,
        prompt: &[u32],
        tokens: usize,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Rc<RefCell<Told>> {
        let told = Rc::<RefCell<Told>>::default();
        let answer = Speaker { told: told.clone(), left: tokens, script: Vec::new(), said: 0 };
        self.scheduler.submit(Job { tenant: tenant.into(), priority, prompt: prompt.to_vec(), deadline, answer }, self.now);
        told
    }

    /// An answer that says all of the text but its first token itself, and then goes on.
    fn ask_aloud(&mut self, tenant: &str, text: &[u32], tokens: usize) -> Rc<RefCell<Told>> {
        let told = Rc::<RefCell<Told>>::default();
        let answer = Speaker { told: told.clone(), left: tokens, script: text[1..].to_vec(), said: 0 };
        let (priority, prompt) = (Priority::Interactive, text[..1].to_vec());
        self.scheduler.submit(Job { tenant: tenant.into(), priority, prompt, deadline: None, answer }, self.now);
        told
    }

    /// One step, and that the books agree with the cells.
    fn step(&mut self) -> usize {
        self.now += Duration::from_millis(1);
        let worked = self.scheduler.step(&mut self.fake, self.now).unwrap();
        assert_eq!(self.scheduler.cache().cells() - self.scheduler.cache().free(), self.fake.used(), "the books are wrong");
        worked.entries
    }

    fn run(&mut self) -> usize {
        for steps in 0..100_000 {
            if self.step() == 0 {
                assert!(self.scheduler.is_idle(), "work is left, and nothing is done");
                return steps;
            }
        }
        panic!("it does not come to an end");
    }
}

fn limits(running: usize, batch: usize, chunk: usize, drafts: bool) -> Limits {
    Limits { running, batch, chunk, drafts, guesses: 0, patience: Duration::from_secs(30) }
}

fn alone(prompt: &[u32], tokens: usize) -> Vec<u32> {
    let mut text = prompt.to_vec();
    for _ in 0..tokens {
        text.push(next_token(&text));
    }
    text.split_off(prompt.len())
}

#[derive(Clone, Debug)]
struct Wish {
    at: usize,
    tenant: u8,
    prompt: Vec<u32>,
    tokens: usize,
    batch: bool,
    cancelled_at: Option<usize>,
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    // Prompts are cut from three texts, so that beginnings are shared.
    let prompt = (0u32..3, 1usize..40, prop::collection::vec(0u32..4, 0..4)).prop_map(|(text, length, end)| {
        let mut prompt: Vec<u32> = (0..length as u32).map(|n| (n * (text + 3) + n / 5) % VOCABULARY as u32).collect();
        prompt.extend(end);
        prompt
    });
    let wish = (0usize..60, 0u8..3, prompt, 1usize..20, any::<bool>(), prop::option::weighted(0.2, 0usize..90))
        .prop_map(|(at, tenant, prompt, tokens, batch, cancelled_at)| Wish { at, tenant, prompt, tokens, batch, cancelled_at });
    prop::collection::vec(wish, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whoever else is there, and however the steps are cut: each answer is what it is alone, comes to its end, and the
    /// cells are those that the books say.
    #[test]
    fn answers_are_what_they_are_alone(
        wishes in wishes(),
        running in 1usize..6,
        chunk in 1usize..24,
        cells in 64usize..160,
        rows in 6usize..12,
        drafts in any::<bool>(),
        guesses in 0usize..6,
    ) {
        let mut world = World::new(Limits { guesses, ..limits(running, 32, chunk, drafts) }, cells, rows);
        let mut told: BTreeMap<usize, Rc<RefCell<Told>>> = BTreeMap::new();
        for step in 0..100 {
            for (n, wish) in wishes.iter().enumerate().filter(|(_, wish)| wish.at == step) {
                let priority = if wish.batch { Priority::Batch } else { Priority::Interactive };
                told.insert(n, world.ask_with(&wish.tenant.to_string(), &wish.prompt, wish.tokens, priority, None));
            }
            for (n, _) in wishes.iter().enumerate().filter(|(_, wish)| wish.cancelled_at == Some(step)) {
                if let Some(told) = told.get(&n) {
                    told.borrow_mut().over = true;
                }
            }
            world.step();
        }
        world.run();
        for (n, wish) in wishes.iter().enumerate() {
            let (told, whole) = (told[&n].borrow(), alone(&wish.prompt, wish.tokens));
            prop_assert!(told.over && told.failed.is_none());
            if wish.cancelled_at.is_some() {
                prop_assert!(whole.starts_with(&told.said));
            } else {
                prop_assert_eq!(&told.said, &whole);
            }
        }
    }

    /// An answer that is being written gets a token in every step, however much there is to read.
    #[test]
    fn nobody_who_writes_waits(prompts in prop::collection::vec(1usize..200, 1..8), chunk in 1usize..32) {
        let mut world = World::new(limits(16, 64, chunk, false), 4_000, 32);
        let first = world.ask("a", &[1, 2], 50);
        while first.borrow().said.is_empty() {
            world.step();
        }
        for (n, length) in prompts.iter().enumerate() {
            world.ask("b", &vec![n as u32 % 12; *length], 3);
        }
        for said in 2..=50 {
            world.step();
            prop_assert_eq!(first.borrow().said.len(), said);
        }
    }
}

#[test]
fn a_tenant_with_much_does_not_hold_up_one_with_little() {
    let mut world = World::new(limits(2, 64, 10, false), 4_000, 32);
    for n in 0..20 {
        world.ask("much", &vec![n % 12; 200], 2);
    }
    world.step();
    let little = world.ask("little", &[1; 30], 1);
    let mut steps = 0;
    while !little.borrow().over {
        world.step();
        steps += 1;
    }
    // One of the two that run has to end (40 chunks at most, shared with another); then it is little's turn.
    assert!(steps <= 60, "{steps}");
    world.run();
}

#[test]
fn the_urgent_goes_first_and_the_patient_is_not_forgotten() {
    let mut world = World::new(limits(1, 64, 64, false), 1_000, 8);
    let slow = world.ask_with("a", &[1; 20], 5, Priority::Batch, None);
    let quick = world.ask("a", &[2; 20], 5);
    while !quick.borrow().over {
        world.step();
    }
    assert!(slow.borrow().said.is_empty(), "the batch job was taken first");
    world.now += Duration::from_secs(31);
    let another = world.ask("a", &[3; 20], 5);
    while !slow.borrow().over {
        world.step();
    }
    assert!(another.borrow().said.is_empty(), "it waited long enough to go first");
    world.run();
}

#[test]
fn a_known_beginning_is_not_read_again() {
    let mut world = World::new(limits(4, 64, 64, false), 1_000, 8);
    let prompt: Vec<u32> = (0..50).map(|n| n % 11).collect();
    let first = world.ask("a", &prompt, 10);
    world.run();
    assert_eq!(first.borrow().cached, Some(0));

    let mut longer = prompt.clone();
    longer.extend(&first.borrow().said);
    longer.extend([5, 5, 5]);
    let second = world.ask("a", &longer, 4);
    // The last token that was said was never computed.
    let read = world.step();
    assert_eq!((second.borrow().cached, read), (Some(59), 4));
    world.run();

    let third = world.ask("a", &prompt, 3);
    world.run();
    assert_eq!(third.borrow().cached, Some(49), "what follows the last token is wanted");
    assert_eq!(third.borrow().said, first.borrow().said[..3]);

    let other = world.ask("b", &longer, 4);
    world.run();
    assert_eq!(other.borrow().cached, Some(0), "another tenant's text is not known to it");
    assert_eq!(other.borrow().said, second.borrow().said);
}

#[test]
fn what_a_tenant_had_is_forgotten_and_nobody_elses() {
    let mut world = World::new(limits(4, 64, 64, false), 1_000, 8);
    let prompt: Vec<u32> = (0..50).map(|n| n % 11).collect();
    let cached = |world: &mut World, tenant: &str| {
        let told = world.ask(tenant, &prompt, 3);
        world.run();
        told.borrow().cached
    };
    assert_eq!((cached(&mut world, "a"), cached(&mut world, "b")), (Some(0), Some(0)));
    // Of one that is under way nothing is kept either.
    let under_way = world.ask("a", &[7; 40], 6);
    world.step();
    assert_eq!(world.scheduler.forget(&mut world.fake, "a"), 1);
    world.run();
    assert_eq!(under_way.borrow().said, alone(&[7; 40], 6));
    let again = world.ask("a", &[7; 41], 1);
    world.run();
    assert_eq!(again.borrow().cached, Some(0));
    assert_eq!((cached(&mut world, "a"), cached(&mut world, "b")), (Some(0), Some(49)));
}

#[test]
fn the_same_prompt_at_once_is_read_once() {
    let mut world = World::new(limits(8, 256, 16, false), 1_000, 16);
    let prompt: Vec<u32> = (0..100).map(|n| n % 11).collect();
    let told: Vec<_> = (0..4).map(|_| world.ask("a", &prompt, 5)).collect();
    let mut computed = 0;
    while !world.scheduler.is_idle() {
        computed += world.step();
    }
    assert_eq!(computed, 100 + 3 + 4 * 4, "the others read only the last token");
    assert!(told.iter().all(|told| told.borrow().said == alone(&prompt, 5)));
}

#[test]
fn a_full_cache_lets_go_of_what_was_not_used_for_longest() {
    let mut world = World::new(limits(1, 64, 64, false), 100, 8);
    let texts: Vec<Vec<u32>> = (0..3).map(|n| vec![n; 30]).collect();
    for text in &texts {
        world.ask("a", text, 1);
        world.run();
    }
    world.ask("a", &texts[0], 1);
    world.run();
    world.ask("a", &[9; 35], 1);
    world.run();
    let cached = |world: &mut World, text: &[u32]| {
        let told = world.ask("a", text, 1);
        world.run();
        told.borrow().cached
    };
    assert_eq!(cached(&mut world, &texts[0]), Some(29), "it was used again");
    assert_eq!(cached(&mut world, &texts[1]), Some(0), "it was the oldest");
}

#[test]
fn whoever_comes_last_gives_way_and_still_ends() {
    let mut world = World::new(limits(4, 64, 64, false), 80, 8);
    let told: Vec<_> = (0..4).map(|n| world.ask("a", &[n; 10], 50)).collect();
    world.run();
    for (n, told) in told.iter().enumerate() {
        assert_eq!(told.borrow().said, alone(&[n as u32; 10], 50));
    }
}

#[test]
fn who_is_late_is_told_and_leaves() {
    let mut world = World::new(limits(1, 64, 64, false), 200, 4);
    let deadline = Some(world.now + Duration::from_millis(5));
    let running = world.ask_with("a", &[1; 5], 100, Priority::Interactive, deadline);
    let waiting = world.ask_with("a", &[2; 5], 100, Priority::Interactive, deadline);
    world.run();
    assert_eq!(running.borrow().failed, Some(Code::DeadlineExceeded));
    assert!(!running.borrow().said.is_empty() && waiting.borrow().said.is_empty());
    assert_eq!(waiting.borrow().failed, Some(Code::DeadlineExceeded));
}

#[test]
fn who_cancels_is_gone_with_the_next_step() {
    let mut world = World::new(limits(1, 64, 4, false), 200, 4);
    let first = world.ask("a", &[1; 100], 10);
    let second = world.ask("a", &[2; 3], 1);
    world.step();
    first.borrow_mut().over = true;
    world.step();
    assert!(second.borrow().over, "the place was not free with the next step");
}

#[test]
fn a_step_that_fails_takes_only_its_own_with_it() {
    let mut world = World::new(limits(1, 64, 64, false), 200, 4);
    let first = world.ask("a", &[1; 5], 3);
    let second = world.ask("a", &[2; 5], 3);
    world.fake.fails = true;
    assert_eq!(world.scheduler.step(&mut world.fake, world.now).unwrap_err().reason(), Some("engine_error"));
    assert_eq!(first.borrow().failed, Some(Code::Internal));
    world.fake.fails = false;
    world.run();
    assert_eq!(second.borrow().said, alone(&[2; 5], 3));
}

#[test]
fn guesses_save_steps_where_a_text_repeats_itself() {
    let steps = |drafts| {
        let mut world = World::new(limits(1, 64, 64, drafts), 2_000, 4);
        let told = world.ask("a", &[1, 2, 3], 400);
        let steps = world.run();
        assert_eq!(told.borrow().said, alone(&[1, 2, 3], 400));
        steps
    };
    assert!(steps(true) <= steps(false));
}

#[test]
fn what_an_answer_knows_that_it_will_say_is_read_in_chunks_and_is_no_guess() {
    let text: Vec<u32> = (0..100).map(|n| n % 11).collect();
    for (drafts, guesses) in [(false, 0), (true, 4)] {
        let mut world = World::new(Limits { guesses, ..limits(2, 64, 16, drafts) }, 1_000, 8);
        let aloud = world.ask_aloud("a", &text, 5);
        let beside = world.ask("b", &text, 5);
        world.now += Duration::from_millis(1);
        let worked = world.scheduler.step(&mut world.fake, world.now).unwrap();
        assert_eq!((worked.guessed, worked.right, worked.read), (0, 0, 17), "one chunk, of the first to come");
        world.now += Duration::from_millis(1);
        let worked = world.scheduler.step(&mut world.fake, world.now).unwrap();
        assert_eq!((worked.entries, worked.read), (17, 16), "then of the tenant that had less");
        let steps = world.run();
        assert!(steps < 20, "{steps} steps");
        assert_eq!(aloud.borrow().said, alone(&text, 5));
        assert_eq!(beside.borrow().said, alone(&text, 5));
    }
    // Where the cache is full of what was read for others, too.
    let mut world = World::new(limits(1, 64, 16, false), 110, 8);
    world.ask("a", &[9; 90], 1);
    world.run();
    let aloud = world.ask_aloud("a", &text, 2);
    let steps = world.run();
    assert!(steps < 12, "{steps} steps");
    assert_eq!(aloud.borrow().said, alone(&text, 2));
}

#[test]
fn what_an_answer_will_say_is_counted_when_it_is_let_in() {
    let mut world = World::new(limits(4, 64, 16, false), 100, 8);
    let told: Vec<_> = (0..2)
        .map(|n| {
            let told = world.ask_aloud("a", &[n; 60], 5);
            world.step();
            told
        })
        .collect();
    assert_eq!(world.scheduler.load(), (1, 1), "there is no room for both");
    world.run();
    for (n, told) in told.iter().enumerate() {
        assert_eq!(told.borrow().said, alone(&[n as u32; 60], 5));
    }
}

#[test]
fn what_is_said_aloud_waits_for_what_is_urgent() {
    let mut world = World::new(limits(4, 64, 16, false), 1_000, 8);
    let (told, text) = (Rc::<RefCell<Told>>::default(), vec![3; 60]);
    let answer = Speaker { told: told.clone(), left: 1, script: text[1..].to_vec(), said: 0 };
    let job = Job { tenant: "a".into(), priority: Priority::Batch, prompt: text[..1].to_vec(), deadline: None, answer };
    world.scheduler.submit(job, world.now);
    let urgent = world.ask("b", &[5; 48], 1);
    for _ in 0..3 {
        assert_eq!(world.step(), 17, "a chunk of the urgent, and a token of the other");
    }
    assert_eq!(urgent.borrow().said, alone(&[5; 48], 1));
    world.run();
    assert_eq!(told.borrow().said, alone(&text, 1));
}

#[test]
fn who_gives_way_goes_on_with_what_it_knows() {
    let mut world = World::new(limits(4, 64, 8, true), 80, 8);
    let told: Vec<_> = (0..4).map(|n| world.ask_aloud("a", &[n; 30], 20)).collect();
    world.run();
    for (n, told) in told.iter().enumerate() {
        assert_eq!(told.borrow().said, alone(&[n as u32; 30], 20));
    }
}

#[test]
fn the_guesses_of_a_second_model_save_steps_and_change_nothing() {
    let count = |guesses| {
        let mut world = World::new(Limits { guesses, ..limits(1, 64, 64, false) }, 2_000, 4);
        let told = world.ask("a", &[1, 2, 3], 400);
        let steps = world.run();
        assert_eq!(told.borrow().said, alone(&[1, 2, 3], 400));
        steps
    };
    let (with, without) = (count(4), count(0));
    assert!(with * 5 < without * 4, "{with} steps with guesses, {without} without");
}
