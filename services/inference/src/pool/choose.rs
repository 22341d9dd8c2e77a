//! Which of several upstreams is asked.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Balance {
    /// Who has the fewest requests under way for its weight.
    #[default]
    LeastOutstanding,
    /// In turn, each as often as its weight says, whatever they have under way.
    Weighted,
}

/// What requests of a kind have in common, so that they go to the same upstream where it has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Affinity {
    /// How a conversation begins: its instructions and first words, which its later requests repeat. An upstream that keeps
    /// prefixes has read them.
    #[default]
    PromptPrefix,
    None,
}

/// An upstream that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Among all of the pool.
    pub(super) index: usize,
    pub(super) weight: f64,
    pub(super) outstanding: u32,
}

/// What one that is preferred may have under way, in shares of what would be its part.
const CROWDED: f64 = 1.25;

pub(super) struct Chooser {
    balance: Balance,
    /// Of weighted turns: how far each is behind. Source: nginx's smooth weighted round robin.
    behind: Vec<f64>,
    /// Where several are equally good, each has its turn.
    turn: usize,
}

impl Chooser {
    pub(super) fn new(balance: Balance, upstreams: usize) -> Self {
        Self { balance, behind: vec![0.0; upstreams], turn: 0 }
    }

    /// One of `candidates`; `None` where there is none.
    pub(super) fn choose(&mut self, candidates: &[Candidate], preferred: Option<usize>) -> Option<usize> {
        if let Some(found) = preferred.and_then(|index| candidates.iter().find(|one| one.index == index))
            && has_room(found, candidates)
        {
            return Some(found.index);
        }
        match self.balance {
            Balance::LeastOutstanding => self.least(candidates),
            Balance::Weighted => self.in_turn(candidates),
        }
    }

    fn least(&mut self, candidates: &[Candidate]) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let (before, after) = candidates.split_at_checked(self.turn % candidates.len().max(1))?;
        let load = |one: &Candidate| f64::from(one.outstanding + 1) / one.weight;
        after.iter().chain(before).min_by(|a, b| load(a).total_cmp(&load(b))).map(|one| one.index)
    }

    fn in_turn(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let mut total = 0.0;
        for one in candidates {
            self.behind[one.index] += one.weight;
            total += one.weight;
        }
        let most = candidates.iter().max_by(|a, b| self.behind[a.index].total_cmp(&self.behind[b.index]))?;
        self.behind[most.index] -= total;
        Some(most.index)
    }
}

fn has_room(one: &Candidate, candidates: &[Candidate]) -> bool {
    let all: u32 = candidates.iter().map(|one| one.outstanding).sum();
    let weights: f64 = candidates.iter().map(|one| one.weight).sum();
    let part = f64::from(all + 1) * one.weight / weights;
    f64::from(one.outstanding + 1) <= (part * CROWDED).ceil()
}

/// Who is preferred for `key`, of all upstreams of the pool by name and weight. Each keeps its keys while others come and
/// go, and processes of the same build agree on it. Source: weighted rendezvous hashing.
pub(super) fn preferred<'a>(key: u64, upstreams: impl Iterator<Item = (&'a str, f64)>) -> Option<usize> {
    let score = |(name, weight): (&str, f64)| {
        let mut hasher = DefaultHasher::new();
        (key, name).hash(&mut hasher);
        // In the open interval from 0 to 1: 53 bits are what a float holds exactly.
        let part = ((hasher.finish() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -weight / part.ln()
    };
    let scored = upstreams.map(score).enumerate();
    scored.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(of: &[(f64, u32)]) -> Vec<Candidate> {
        of.iter().enumerate().map(|(index, &(weight, outstanding))| Candidate { index, weight, outstanding }).collect()
    }

    #[test]
    fn weighted_turns_are_exact() {
        let mut chooser = Chooser::new(Balance::Weighted, 3);
        let all = candidates(&[(5.0, 0), (2.0, 0), (1.0, 9)]);
        let mut counts = [0; 3];
        (0..80).for_each(|_| counts[chooser.choose(&all, None).unwrap()] += 1);
        assert_eq!(counts, [50, 20, 10]);
    }

    #[test]
    fn who_has_the_least_for_its_weight_is_next_and_equals_take_turns() {
        let mut chooser = Chooser::new(Balance::LeastOutstanding, 3);
        assert_eq!(chooser.choose(&candidates(&[(1.0, 3), (4.0, 6), (1.0, 2)]), None), Some(1));
        let equal = candidates(&[(1.0, 2), (1.0, 2), (1.0, 2)]);
        let mut seen: Vec<usize> = (0..3).map(|_| chooser.choose(&equal, None).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(chooser.choose(&[], None), None);
    }

    #[test]
    fn a_preference_holds_while_there_is_room() {
        let mut chooser = Chooser::new(Balance::LeastOutstanding, 2);
        assert_eq!(chooser.choose(&candidates(&[(1.0, 0), (1.0, 0)]), Some(1)), Some(1));
        assert_eq!(chooser.choose(&candidates(&[(1.0, 10), (1.0, 10)]), Some(1)), Some(1));
        assert_eq!(chooser.choose(&candidates(&[(1.0, 2), (1.0, 12)]), Some(1)), Some(0), "the preferred one is crowded");
        assert_eq!(chooser.choose(&candidates(&[(1.0, 0)]), Some(1)), Some(0), "the preferred one is not there");
    }

    #[test]
    fn keys_spread_by_weight_and_stay_when_another_leaves() {
        let three = [("a", 1.0), ("b", 1.0), ("c", 2.0)];
        let mut counts = [0; 3];
        for key in 0..4_000 {
            let index = preferred(key, three.into_iter()).unwrap();
            counts[index] += 1;
            if index < 2 {
                assert_eq!(preferred(key, three[..2].iter().copied()), Some(index));
            }
        }
        assert!((900..1_100).contains(&counts[0]) && (900..1_100).contains(&counts[1]), "{counts:?}");
    }
}
