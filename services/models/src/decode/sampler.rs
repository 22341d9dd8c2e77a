//! Which token comes next: pure, seeded, the same for every engine build.
//!
//! ```text
//! logits → bias → penalties → allowed tokens → temperature → top_k → top_p → min_p → draw
//! ```
//! Temperature 0 takes the likeliest allowed token; a tie goes to the lower id.

use std::{cmp::Ordering, collections::HashMap};

use llama_stack_proto::v1::SamplingParams;
use llguidance::toktrie::SimpleVob;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// How a generation draws, with every default filled in.
#[derive(Clone, Debug)]
pub struct Sampling {
    pub temperature: f32,
    pub top_p: f32,
    /// 0: all tokens.
    pub top_k: usize,
    pub min_p: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub repetition_penalty: f32,
    pub bias: Vec<(u32, f32)>,
    pub seed: u64,
}

/// What a model's own files say where a request says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defaults {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

/// Draws the tokens of one answer.
pub struct Sampler {
    sampling: Sampling,
    rng: StdRng,
    /// Tokens of the prompt, for the repetition penalty. Empty where there is none.
    prompt: HashMap<u32, u32>,
    generated: HashMap<u32, u32>,
}

/// Candidates that are sorted first; the whole vocabulary is sorted only where `top_p` reaches beyond them.
const HEAD: usize = 1_024;

/// As the OpenAI API has it: a bias of -100 is a ban.
const BAN: f32 = -100.0;

impl Sampling {
    /// Without a seed of its own a request gets a fresh one.
    pub fn new(params: &SamplingParams, defaults: Defaults) -> Self {
        Self {
            temperature: params.temperature.or(defaults.temperature).unwrap_or(1.0),
            top_p: params.top_p.or(defaults.top_p).unwrap_or(1.0),
            top_k: params.top_k.or(defaults.top_k).unwrap_or(0) as usize,
            min_p: params.min_p.or(defaults.min_p).unwrap_or(0.0),
            frequency_penalty: params.frequency_penalty.unwrap_or(0.0),
            presence_penalty: params.presence_penalty.unwrap_or(0.0),
            repetition_penalty: params.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
            bias: params.logit_bias.iter().map(|(id, bias)| (*id, *bias)).collect(),
            seed: params.seed.unwrap_or_else(rand::random),
        }
    }

    /// The `choice`th answer of a request draws differently from the others, and the same each time.
    #[must_use]
    pub fn for_choice(mut self, choice: u32) -> Self {
        self.seed = self.seed.wrapping_add(u64::from(choice));
        self
    }
}

impl Sampler {
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let mut seen = HashMap::new();
        if sampling.repetition_penalty != 1.0 {
            prompt.iter().for_each(|id| *seen.entry(*id).or_default() += 1);
        }
        Self { rng: StdRng::seed_from_u64(sampling.seed), sampling, prompt: seen, generated: HashMap::new() }
    }

    /// Chooses among the `allowed` tokens, or among all. `logits` are changed on the way.
    ///
    /// None where no token is left: every one is banned or not a number.
    pub fn choose(&mut self, logits: &mut [f32], allowed: Option<&SimpleVob>) -> Option<u32> {
        self.adjust(logits);
        if let Some(allowed) = allowed {
            for (id, logit) in logits.iter_mut().enumerate() {
                if id >= allowed.len() || !allowed.get(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let chosen = if self.sampling.temperature <= 0.0 { likeliest(logits) } else { self.draw(logits) }?;
        *self.generated.entry(chosen).or_default() += 1;
        Some(chosen)
    }

    /// Bias and penalties, on the few tokens that have any.
    fn adjust(&self, logits: &mut [f32]) {
        let sampling = &self.sampling;
        for (id, count) in &self.generated {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit -= *count as f32 * sampling.frequency_penalty + sampling.presence_penalty;
            }
        }
        if sampling.repetition_penalty != 1.0 {
            let fresh = self.generated.keys().filter(|id| !self.prompt.contains_key(id));
            for id in self.prompt.keys().chain(fresh) {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit = if *logit > 0.0 { *logit / sampling.repetition_penalty } else { *logit * sampling.repetition_penalty };
                }
            }
        }
        for (id, bias) in &sampling.bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = if *bias <= BAN { f32::NEG_INFINITY } else { *logit + bias };
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let Sampling { temperature, top_p, top_k, min_p, .. } = self.sampling;
        let highest = logits[likeliest(logits)? as usize];
        let weight = |logit: f32| f64::from((logit - highest) / temperature).exp();
        let mut candidates: Vec<(u32, f64)> = (0u32..)
            .zip(logits)
            .filter(|(_, logit)| logit.is_finite())
            .map(|(id, logit)| (id, weight(*logit)))
            .filter(|(_, weight)| *weight > 0.0 && *weight >= f64::from(min_p))
            .collect();
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, heavier);
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            nucleus(&mut candidates, f64::from(top_p));
        }
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut point = self.rng.random::<f64>() * total;
        for (id, weight) in &candidates {
            point -= weight;
            if point < 0.0 {
                return Some(*id);
            }
        }
        candidates.last().map(|(id, _)| *id)
    }
}

/// Keeps the fewest candidates that together hold `share` of the weight.
fn nucleus(candidates: &mut Vec<(u32, f64)>, share: f64) {
    let wanted = share * candidates.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut sorted = candidates.len();
    if sorted > HEAD {
        candidates.select_nth_unstable_by(HEAD - 1, heavier);
        let head: f64 = candidates[..HEAD].iter().map(|(_, weight)| weight).sum();
        if head >= wanted {
            sorted = HEAD;
        }
    }
    candidates.truncate(sorted);
    candidates.sort_unstable_by(heavier);
    let mut sum = 0.0;
    let cut = candidates.iter().position(|(_, weight)| {
        sum += weight;
        sum >= wanted
    });
    candidates.truncate(cut.map_or(candidates.len(), |cut| cut + 1));
}

/// Heavier first, ties by id: the order is the same on every run.
fn heavier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, logit) in (0u32..).zip(logits) {
        if !logit.is_nan() && *logit > best.map_or(f32::NEG_INFINITY, |(_, best)| best) {
            best = Some((id, *logit));
        }
    }
    best.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(params: SamplingParams) -> Sampling {
        Sampling::new(&SamplingParams { seed: params.seed.or(Some(7)), ..params }, Defaults::default())
    }

    fn draws(params: SamplingParams, logits: &[f32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling(params), &[]);
        (0..times).filter_map(|_| sampler.choose(&mut logits.to_vec(), None)).collect()
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_lower_of_a_tie() {
        let greedy = SamplingParams { temperature: Some(0.0), ..SamplingParams::default() };
        assert_eq!(draws(greedy.clone(), &[1.0, 3.0, 3.0], 1), [1]);
        assert_eq!(draws(greedy, &[f32::NAN, -2.0, f32::NEG_INFINITY], 1), [1]);
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let logits: Vec<f32> = (0..50u8).map(|i| f32::from(i % 7)).collect();
        let with = |seed| SamplingParams { seed: Some(seed), ..SamplingParams::default() };
        assert_eq!(draws(with(1), &logits, 40), draws(with(1), &logits, 40));
        assert_ne!(draws(with(1), &logits, 40), draws(with(2), &logits, 40));
        let choices = [0, 1].map(|choice| Sampler::new(sampling(with(1)).for_choice(choice), &[]).choose(&mut logits.clone(), None));
        assert!(choices.iter().all(Option::is_some));
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0];
        let counts = draws(SamplingParams::default(), &logits, 30_000).into_iter().fold([0.0f64; 3], |mut counts, id| {
            counts[id as usize] += 1.0;
            counts
        });
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for (count, logit) in counts.iter().zip(logits) {
            assert!((count / 30_000.0 - f64::from(logit).exp() / total).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        let logits = [2.0f32, 1.0, 0.0, -1.0]; // shares .64 .24 .09 .03
        let only = |params: SamplingParams| {
            let mut ids = draws(params, &logits, 4_000);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(only(SamplingParams { top_k: Some(2), ..SamplingParams::default() }), [0, 1]);
        assert_eq!(only(SamplingParams { top_p: Some(0.9), ..SamplingParams::default() }), [0, 1, 2]);
        assert_eq!(only(SamplingParams { top_p: Some(0.5), ..SamplingParams::default() }), [0]);
        assert_eq!(only(SamplingParams { min_p: Some(0.2), ..SamplingParams::default() }), [0, 1]);
        assert_eq!(only(SamplingParams::default()), [0, 1, 2, 3]);
    }

    #[test]
    fn a_nucleus_beyond_the_head_keeps_the_tail() {
        let flat = vec![0.0f32; 4 * HEAD];
        let distinct: std::collections::HashSet<u32> =
            draws(SamplingParams { top_p: Some(0.99), ..SamplingParams::default() }, &flat, 20_000).into_iter().collect();
        assert!(distinct.len() > 2 * HEAD, "{}", distinct.len());
    }

    #[test]
    fn bias_bans_and_lifts() {
        let params = |id, bias| SamplingParams { temperature: Some(0.0), logit_bias: [(id, bias)].into(), ..SamplingParams::default() };
        assert_eq!(draws(params(0, -100.0), &[200.0, 1.0], 1), [1]);
        assert_eq!(draws(params(1, 5.0), &[2.0, 1.0], 1), [1]);
        assert_eq!(draws(params(9, 5.0), &[2.0, 1.0], 1), [0]);
        assert!(draws(params(0, -100.0), &[1.0], 1).is_empty());
    }

    #[test]
    fn penalties_push_repeated_tokens_back() {
        let greedy = SamplingParams { temperature: Some(0.0), ..SamplingParams::default() };
        let frequent = SamplingParams { frequency_penalty: Some(1.0), ..greedy.clone() };
        assert_eq!(draws(frequent, &[2.5, 1.0], 3), [0, 0, 1]);
        let present = SamplingParams { presence_penalty: Some(2.0), ..greedy.clone() };
        assert_eq!(draws(present, &[2.5, 1.0], 3), [0, 1, 0]);
        let mut repeated = Sampler::new(sampling(SamplingParams { repetition_penalty: Some(4.0), ..greedy }), &[0, 0]);
        assert_eq!(repeated.choose(&mut [2.5, 1.0], None), Some(1));
    }

    #[test]
    fn only_allowed_tokens_are_chosen() {
        let mut allowed = SimpleVob::alloc(2);
        allowed.allow_token(1);
        let mut sampler = Sampler::new(sampling(SamplingParams::default()), &[]);
        assert_eq!(sampler.choose(&mut [9.0, 0.0, 9.0], Some(&allowed)), Some(1));
        assert_eq!(sampler.choose(&mut [9.0, 0.0, 9.0], Some(&SimpleVob::alloc(3))), None);
    }
}
