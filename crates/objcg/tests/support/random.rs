//! A small generator with a seed that can be given and is printed, so that a failing run can be run again.

/// Linear congruential; the high bits are good enough to pick operations.
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by `OBJCG_SEED`, else by the clock. Prints the seed; a failing test shows it.
    pub(crate) fn from_environment() -> Random {
        let clock =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_nanos());
        let seed = match std::env::var("OBJCG_SEED") {
            Ok(text) => text.parse().expect("OBJCG_SEED is a number"),
            Err(_) => clock as u64,
        };
        println!("OBJCG_SEED={seed}");
        Random::seeded(seed)
    }

    /// Always the same numbers for the same seed: for the threads of a test whose seed was printed.
    pub(crate) fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}
