//! Faults on order: calls of the operating system, and charges, that fail although they need not.
//!
//! A *point* is one call, or one charge, that can fail. [`fail_nth`] has one point fail, [`fail_often`] each with a
//! probability; `OBJCG_OPTIONS` orders the same from outside (`fail_os`, `fail_charge`). What fails is answered as the real
//! failure is: nothing above can tell. Unless something was ordered, a point pays one load.
//!
//! ```
//! use objcg_core::{faults, kmalloc, memcg::Memcg};
//!
//! let tenant = Memcg::root().create("tenant")?;
//! faults::fail_nth(faults::Site::Charge, 1);
//! let inside = tenant.enter();
//! assert!(kmalloc::alloc(100, 8).is_none());
//! drop(inside);
//! assert_eq!(faults::pass_all(faults::Site::Charge), 1);
//! # Ok::<(), objcg_core::memcg::CreateError>(())
//! ```

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Calls of the operating system that give, move or take memory back.
    Os,
    /// Charges to a group, and of a group's own memory to its parent.
    Charge,
}

/// Probabilities are in millionths.
pub const MILLION: u32 = 1_000_000;

/// What is ordered at one site. Relaxed throughout: each number stands by itself.
struct Order {
    /// 0 while nothing is ordered.
    armed: AtomicU32,
    nr_points: AtomicU64,
    /// The point that fails, counted from 1; 0 for none.
    nth: AtomicU64,
    millionths: AtomicU32,
    seed: AtomicU64,
}

static OS: Order = Order::NONE;
static CHARGE: Order = Order::NONE;

/// Has the `nth` point from now on fail, counted from 1; replaces what was ordered for the site before.
pub fn fail_nth(site: Site, nth: u64) {
    order(site).set(nth, 0, 0);
}

/// Has each point from now on fail with a probability of `millionths`; the same `seed` picks the same points. Replaces what was
/// ordered for the site before.
pub fn fail_often(site: Site, millionths: u32, seed: u64) {
    order(site).set(0, millionths, seed);
}

/// Lets all points of the site pass again; returns how many there were since the last order.
pub fn pass_all(site: Site) -> u64 {
    let order = order(site);
    order.armed.store(0, Ordering::Relaxed);
    order.nr_points.load(Ordering::Relaxed)
}

/// Orders both at once: the `nth` point (0 for none) and a probability.
pub(crate) fn fail(site: Site, nth: u64, millionths: u32, seed: u64) {
    order(site).set(nth, millionths, seed);
}

/// Whether this point is to fail.
#[inline]
pub(crate) fn strikes(site: Site) -> bool {
    let order = order(site);
    order.armed.load(Ordering::Relaxed) != 0 && order.strikes()
}

fn order(site: Site) -> &'static Order {
    match site {
        Site::Os => &OS,
        Site::Charge => &CHARGE,
    }
}

impl Order {
    #[expect(clippy::declare_interior_mutable_const, reason = "the initial value of two statics")]
    const NONE: Order = Order {
        armed: AtomicU32::new(0),
        nr_points: AtomicU64::new(0),
        nth: AtomicU64::new(0),
        millionths: AtomicU32::new(0),
        seed: AtomicU64::new(0),
    };

    fn set(&self, nth: u64, millionths: u32, seed: u64) {
        self.nr_points.store(0, Ordering::Relaxed);
        self.nth.store(nth, Ordering::Relaxed);
        self.millionths.store(millionths, Ordering::Relaxed);
        self.seed.store(seed, Ordering::Relaxed);
        self.armed.store(1, Ordering::Relaxed);
    }

    #[cold]
    fn strikes(&self) -> bool {
        let point = self.nr_points.fetch_add(1, Ordering::Relaxed) + 1;
        let millionths = u64::from(self.millionths.load(Ordering::Relaxed));
        point == self.nth.load(Ordering::Relaxed)
            || mix(self.seed.load(Ordering::Relaxed) ^ point) % u64::from(MILLION) < millionths
    }
}

/// Spreads a number's bits over all of them: the last step of splitmix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
