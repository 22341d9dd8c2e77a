//! Clusters: what embeddings of documents look like from afar. Generated, the same in every run.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

pub(super) const DIMENSION: usize = 384;
pub(super) const CLUSTERS: usize = 1_000;
/// Values of the attribute that is filtered by: each holds one in a hundred.
pub(super) const BUCKETS: usize = 100;
/// Of a cluster, beside the distance of its centre from the others'.
const SPREAD: f32 = 0.35;

/// Vectors one after the other, so that a million need not be held.
pub(super) struct Stream {
    centres: Vec<Vec<f32>>,
    random: StdRng,
}

impl Stream {
    pub(super) fn new() -> Self {
        let mut random = StdRng::seed_from_u64(384);
        let centres = (0..CLUSTERS).map(|_| gauss(&mut random, 1.0)).collect();
        Self { centres, random }
    }

    pub(super) fn next(&mut self) -> Vec<f32> {
        let cluster = self.random.random_range(0..CLUSTERS);
        let spread = gauss(&mut self.random, SPREAD);
        self.centres[cluster].iter().zip(spread).map(|(centre, spread)| centre + spread).collect()
    }
}

/// Not of the data, but of its clusters.
pub(super) fn queries(count: usize) -> Vec<Vec<f32>> {
    let mut stream = Stream::new();
    stream.random = StdRng::seed_from_u64(7);
    (0..count).map(|_| stream.next()).collect()
}

pub(super) struct Data {
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) queries: Vec<Vec<f32>>,
}

impl Data {
    pub(super) fn new(count: usize) -> Self {
        let mut stream = Stream::new();
        Self { vectors: (0..count).map(|_| stream.next()).collect(), queries: queries(200) }
    }
}

/// Normal deviates, by the method of Box and Muller.
fn gauss(random: &mut StdRng, spread: f32) -> Vec<f32> {
    let mut deviates = Vec::with_capacity(DIMENSION);
    while deviates.len() < DIMENSION {
        let (one, two): (f32, f32) = (1.0 - random.random::<f32>(), random.random());
        let radius = (-2.0 * one.ln()).sqrt() * spread;
        let angle = std::f32::consts::TAU * two;
        deviates.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    deviates
}
