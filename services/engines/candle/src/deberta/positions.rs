//! Distances between tokens → rows of the relative positions.

use super::config::Config;

/// The row for each distance of a query from a key, the greatest first: so the keys of a query, in their order, are a slice.
pub(crate) struct Positions {
    rows: Vec<u32>,
    longest: usize,
}

impl Positions {
    pub(crate) fn new(config: &Config) -> Self {
        let longest = config.max_position_embeddings;
        let span = config.span() as i64;
        let row = |distance: i64| {
            let placed = match config.buckets() {
                Some(buckets) => bucket(distance, buckets as i64, config.max_distance() as i64),
                None => distance,
            };
            (placed + span).clamp(0, 2 * span - 1) as u32
        };
        let last = longest as i64 - 1;
        Self { rows: (-last..=last).rev().map(row).collect(), longest }
    }

    /// The rows for the keys 0 to `keys`, as the query at `query` sees them.
    pub(crate) fn of(&self, query: usize, keys: usize) -> &[u32] {
        &self.rows[self.longest - 1 - query..][..keys]
    }
}

/// Near distances have a bucket each, far ones share one the more the farther they are. As `make_log_bucket_position` of
/// `transformers`, with its rounding: all in 32 bits.
fn bucket(distance: i64, buckets: i64, max_distance: i64) -> i64 {
    let middle = buckets / 2;
    if distance.abs() <= middle {
        return distance;
    }
    let middle_f = middle as f32;
    let part = (distance.abs() as f32 / middle_f).ln() / ((max_distance - 1) as f32 / middle_f).ln();
    let placed = (part * (middle - 1) as f32).ceil() as i64 + middle;
    placed * distance.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_are_exact_and_far_ones_are_logarithmic() {
        // Taken from `transformers` with 256 buckets and 512 positions, and with 8 and 64.
        let cases = [(0, 0), (1, 1), (127, 127), (128, 128), (129, 129), (200, 169), (300, 207), (400, 233), (511, 255)];
        for (distance, placed) in cases {
            assert_eq!(bucket(distance, 256, 512), placed, "{distance}");
            assert_eq!(bucket(-distance, 256, 512), -placed, "-{distance}");
        }
        assert_eq!([3, 4, 5, 8, 20, 63].map(|distance| bucket(distance, 8, 64)), [3, 4, 5, 5, 6, 7]);
    }

    #[test]
    fn a_query_sees_its_keys_in_order() {
        let config = serde_json::json!({
            "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
            "max_position_embeddings": 4, "relative_attention": true, "pos_att_type": "c2p|p2c",
        });
        let positions = Positions::new(&Config::read(config.as_object().unwrap().clone()).unwrap());
        // Row 4 is distance 0; a key before the query is a greater distance.
        assert_eq!(positions.of(0, 4), [4, 3, 2, 1]);
        assert_eq!(positions.of(3, 4), [7, 6, 5, 4]);
        assert_eq!(positions.of(1, 2), [5, 4]);
    }
}
