//! Vectors in clusters, each made from its number alone: a million of them need not be kept to be compared.

/// Numbers of a vector, and clusters.
pub(super) const DIMENSION: usize = 384;
const CLUSTERS: u64 = 1_000;
/// How far a vector lies from the middle of its cluster, beside the middle's own length.
const SPREAD: f32 = 0.6;

pub(super) struct Data {
    middles: Vec<Vec<f32>>,
}

/// What is nearest to a query.
pub(super) type Nearest = Vec<(f32, u32)>;

impl Data {
    pub(super) fn new() -> Self {
        Self { middles: (0..CLUSTERS).map(|n| noise(n ^ (0xc1_u64 << 56))).collect() }
    }

    pub(super) fn vector(&self, n: usize) -> Vec<f32> {
        self.near(n as u64, n as u64)
    }

    pub(super) fn query(&self, n: usize) -> Vec<f32> {
        self.near(n as u64 * 37, n as u64 ^ (0x9e_u64 << 56))
    }

    fn near(&self, cluster: u64, seed: u64) -> Vec<f32> {
        let middle = &self.middles[(cluster % CLUSTERS) as usize];
        middle.iter().zip(noise(seed)).map(|(middle, noise)| middle + SPREAD * noise).collect()
    }

    /// For each query the nearest of all vectors that are meant for it, compared one by one.
    pub(super) fn truth(
        &self,
        count: usize,
        queries: &[Vec<f32>],
        most: usize,
        meant: impl Fn(usize, usize) -> bool + Sync,
    ) -> Vec<Nearest> {
        let units: Vec<Vec<f32>> = queries.iter().map(|query| unit(query)).collect();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (units, meant) = (&units, &meant);
        let part = move |thread: usize| {
            let mut nearest: Vec<Nearest> = vec![Vec::new(); units.len()];
            for n in (thread..count).step_by(threads) {
                let vector = unit(&self.vector(n));
                for (query, (unit, nearest)) in units.iter().zip(&mut nearest).enumerate() {
                    if meant(query, n) {
                        keep(nearest, (dot(unit, &vector), n as u32), most);
                    }
                }
            }
            nearest
        };
        let part = &part;
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
            let parts: Vec<Vec<Nearest>> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
            let merged = |query: usize| {
                let mut nearest = Vec::new();
                parts.iter().flat_map(|part| &part[query]).for_each(|one| keep(&mut nearest, *one, most));
                nearest
            };
            (0..units.len()).map(merged).collect()
        })
    }
}

fn keep(nearest: &mut Nearest, one: (f32, u32), most: usize) {
    if nearest.len() == most && nearest.last().is_some_and(|(least, _)| one.0 <= *least) {
        return;
    }
    let at = nearest.partition_point(|(score, _)| *score > one.0);
    nearest.insert(at, one);
    nearest.truncate(most);
}

fn noise(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    // The first ones of neighbouring seeds are alike.
    for _ in 0..8 {
        next();
    }
    (0..DIMENSION).map(|_| next()).collect()
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = dot(vector, vector).sqrt();
    vector.iter().map(|number| number / length).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (left, right) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let mut sums = [0.0_f32; 8];
    for (a, b) in left.iter().zip(right) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
