//! Natural logarithms of the softmax over the whole vocabulary.

use std::cmp::Ordering;

/// A token with its logarithm, and the likeliest tokens of the same step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub logprob: f32,
    /// Likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl Scored {
    /// Of a prompt's first token, which follows nothing.
    pub(super) fn first() -> Self {
        Self { logprob: f32::NEG_INFINITY, top: Vec::new() }
    }
}

/// Scores `chosen` and the `top` likeliest of one step, from the raw logits.
pub fn score(logits: &[f32], chosen: u32, top: usize) -> Scored {
    let norm = log_sum_exp(logits);
    let log = |logit: f32| (f64::from(logit) - norm).min(0.0) as f32;
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|id| !logits[*id as usize].is_nan()).collect();
    let order = |a: &u32, b: &u32| -> Ordering { logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)) };
    let top = top.min(ids.len());
    if top > 0 {
        ids.select_nth_unstable_by(top - 1, order);
    }
    ids.truncate(top);
    ids.sort_unstable_by(order);
    Scored {
        logprob: logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |logit| log(*logit)),
        top: ids.into_iter().map(|id| (id, log(logits[id as usize]))).collect(),
    }
}

/// In f64: the sum of 150,000 small numbers loses digits in f32.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let highest = logits.iter().copied().filter(|logit| !logit.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return f64::from(highest);
    }
    let sum: f64 = logits.iter().filter(|logit| !logit.is_nan()).map(|logit| f64::from(logit - highest).exp()).sum();
    f64::from(highest) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_natural_and_sum_to_one() {
        let logits = [1.0f32, 2.0, 3.0, -4.0];
        let scored = score(&logits, 1, 4);
        assert_eq!(scored.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1, 0, 3]);
        let sum: f64 = scored.top.iter().map(|(_, log)| f64::from(*log).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(scored.logprob, scored.top[1].1);
        assert!((scored.top[0].1 - scored.top[1].1 - 1.0).abs() < 1e-6, "a step of 1 in the logit is a step of 1 in the logarithm");
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let scored = score(&[5_000.0, 4_999.0], 0, 1);
        assert!((scored.logprob - (-(1.0f32 + (-1.0f32).exp()).ln())).abs() < 1e-5);
    }
}
