//! Numbers that look random and are the same for every rival, on every machine: the logarithms are not the C library's.

use crate::pages::Pages;

/// xorshift64*: a nanosecond a number.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // SplitMix64 of the seed: neighbouring seeds give streams that have nothing in common.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((mixed ^ (mixed >> 31)) | 1)
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which fits 32 bits.
    #[inline(always)]
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }

    /// A number of the normal distribution.
    fn normal(&mut self) -> f64 {
        let mut unit = || (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let (a, b) = (1.0 - unit(), unit());
        (-2.0 * libm::log(a)).sqrt() * libm::cos(std::f64::consts::TAU * b)
    }
}

/// Sizes of objects, drawn before the clock runs.
pub(crate) struct Sizes(Pages<u32>);

impl Sizes {
    const NR_DRAWN: usize = 4096;

    /// Sizes whose logarithm is normal, about `median`, as objects of servers are; cut to `min..=max`.
    pub(crate) fn log_normal(median: f64, sigma: f64, min: u32, max: u32) -> Sizes {
        let mut random = Random::new(0);
        Sizes(Pages::new(Sizes::NR_DRAWN, |_| {
            let size = median * libm::exp(sigma * random.normal());
            (size as u32).clamp(min, max)
        }))
    }

    /// What most objects of a server are like: 16 to 2,048 bytes, half of them below 128.
    pub(crate) fn of_a_server() -> Sizes {
        Sizes::log_normal(128.0, 1.0, 16, 2048)
    }

    #[inline(always)]
    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        self.0[random.below(Sizes::NR_DRAWN)] as usize
    }
}
