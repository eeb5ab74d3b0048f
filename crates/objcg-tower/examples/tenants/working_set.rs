//! What a good request works with: a tenant's objects, as the benchmark `tenants` of `objcg-bench-worker` defines them.
//!
//! 20 to 400 live objects of 16 to 2,048 bytes, the logarithms of their sizes normal about 128. The request allocates and fills them, frees 4
//! to 28 of them at random and allocates as many of other sizes, which is what a request is there; then it reads all of them and frees
//! them.

use std::sync::LazyLock;

use fastrand::Rng;

const MIN_OBJECTS: usize = 20;
const MAX_OBJECTS: usize = 400;
const MIN_REPLACED: usize = 4;
const MAX_REPLACED: usize = 28;
const MEDIAN: f64 = 128.0;
const SIGMA: f64 = 1.0;
const MIN_BYTES: f64 = 16.0;
const MAX_BYTES: f64 = 2048.0;

/// Drawn before; in no memory that a tenant is charged.
static SIZES: LazyLock<[u16; 4096]> = LazyLock::new(|| {
    let mut random = Rng::with_seed(0);
    std::array::from_fn(|_| (MEDIAN * (SIGMA * normal(&mut random)).exp()).clamp(MIN_BYTES, MAX_BYTES) as u16)
});

/// Does the work of one request; returns the sum of all bytes of its objects.
pub(crate) fn work(seed: u64) -> u64 {
    let mut random = Rng::with_seed(seed);
    let nr_objects = MIN_OBJECTS + random.usize(..=MAX_OBJECTS - MIN_OBJECTS);
    let mut objects = Vec::with_capacity(nr_objects);
    objects.extend((0..nr_objects).map(|_| new_object(&mut random)));
    let nr_replaced = MIN_REPLACED + random.usize(..=(nr_objects / 2).min(MAX_REPLACED) - MIN_REPLACED);
    for _ in 0..nr_replaced {
        objects.swap_remove(random.usize(..objects.len()));
    }
    objects.extend((0..nr_replaced).map(|_| new_object(&mut random)));
    objects.iter().flatten().map(|byte| u64::from(*byte)).sum()
}

fn new_object(random: &mut Rng) -> Vec<u8> {
    let size = SIZES[random.usize(..SIZES.len())];
    vec![size as u8 | 1; usize::from(size)]
}

/// A number of the normal distribution (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::{SIZES, work};

    #[test]
    fn objects_are_those_of_the_benchmark() {
        let nr_below = SIZES.iter().filter(|size| **size < 128).count();
        assert!((45..=55).contains(&(nr_below * 100 / SIZES.len())), "half of them: {nr_below}");
        assert_eq!((SIZES.iter().min(), SIZES.iter().max()), (Some(&16), Some(&2048)));
    }

    #[test]
    fn requests_do_other_work_each_and_the_same_again() {
        assert_eq!(work(1), work(1));
        assert_ne!(work(1), work(2));
    }
}
