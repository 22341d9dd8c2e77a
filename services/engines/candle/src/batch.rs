//! Token-budget batching. Nothing is padded; the longest go first, so that what is left at the end is short.

/// Splits the texts, given by their lengths in tokens, into batches of indices, longest texts first.
///
/// The tokens of a batch stay within `budget`, except that a batch has at least one text.
/// Every index is in exactly one batch.
pub(crate) fn by_budget(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // Stable: equal requests are batched equally.
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for index in order {
        tokens += lengths[index];
        match batches.last_mut() {
            Some(batch) if tokens <= budget => batch.push(index),
            _ => {
                tokens = lengths[index];
                batches.push(vec![index]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_in_one_batch_and_no_batch_breaks_the_budget() {
        let lengths: Vec<usize> = (0..200).map(|n| 1 + (n * 37) % 97).collect();
        let batches = by_budget(&lengths, 256);
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
            assert!(tokens <= 256, "{batch:?}");
        }
    }

    #[test]
    fn the_longest_go_first() {
        assert_eq!(by_budget(&[2, 100, 3, 90], 193), [vec![1, 3, 2], vec![0]]);
    }

    #[test]
    fn a_text_over_the_budget_is_a_batch_of_its_own() {
        assert_eq!(by_budget(&[500, 500, 1], 256), [vec![0], vec![1], vec![2]]);
        assert!(by_budget(&[], 256).is_empty());
    }
}
