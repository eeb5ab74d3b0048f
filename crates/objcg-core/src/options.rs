//! `OBJCG_OPTIONS`: checks that a program can be run with, without being built for them. `docs/options.md` has the table.
//!
//! The environment is read once, at the first allocation that no stack of free objects serves, which is the first of all,
//! without allocating. An option that asks to see every call (`are_any_on`) keeps sheaves off the CPUs' stacks: each call
//! then finds its stack empty and comes by the slow path, where the checks are. So the fast path does not know of options.

mod words;

use crate::faults::{self, Site};
use crate::os;
use crate::report::complain;
use crate::sync::{AtomicU32, AtomicUsize, Ordering};

pub use words::{Problem, parse};

/// What the environment asks for; nothing, if not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Free objects are filled with `0x6b`, and looked at before they are used again.
    pub poison: bool,
    /// Bytes behind what was asked for are filled with `0xcc`, and looked at by `free` and `realloc`.
    pub redzone: bool,
    /// Objects above 32 KiB lie between two pages that nobody may touch.
    pub guard_pages: bool,
    /// Free objects are handed out in random order.
    pub random: bool,
    /// Each object remembers who allocated it.
    pub stack: bool,
    /// So many bytes of freed objects wait before they are used again.
    pub quarantine_bytes: usize,
    /// The call of the operating system that fails, counted from 1; 0 for none.
    pub fail_os: u64,
    /// The charge that fails, counted from 1; 0 for none.
    pub fail_charge: u64,
    /// How many in a million calls of the operating system fail.
    pub fail_os_millionths: u32,
    /// How many in a million charges fail.
    pub fail_charge_millionths: u32,
    /// What the random numbers are made from.
    pub seed: u64,
}

impl Settings {
    /// Nothing is asked for.
    pub const NONE: Settings = Settings {
        poison: false,
        redzone: false,
        guard_pages: false,
        random: false,
        stack: false,
        quarantine_bytes: 0,
        fail_os: 0,
        fail_charge: 0,
        fail_os_millionths: 0,
        fail_charge_millionths: 0,
        seed: 0,
    };

    fn switches(&self) -> u32 {
        let switch = |is_on: bool, bit: u32| if is_on { bit } else { 0 };
        switch(self.poison, POISON)
            | switch(self.redzone, REDZONE)
            | switch(self.guard_pages, GUARD_PAGES)
            | switch(self.random, RANDOM)
            | switch(self.stack, STACK)
            | switch(self.quarantine_bytes > 0, QUARANTINE)
    }
}

/// Set once the environment was read.
const READ: u32 = 1;
pub(crate) const POISON: u32 = 1 << 1;
pub(crate) const REDZONE: u32 = 1 << 2;
pub(crate) const GUARD_PAGES: u32 = 1 << 3;
pub(crate) const RANDOM: u32 = 1 << 4;
pub(crate) const STACK: u32 = 1 << 5;
pub(crate) const QUARANTINE: u32 = 1 << 6;

static SWITCHES: AtomicU32 = AtomicU32::new(0);
static QUARANTINE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Whether one of these switches is on.
#[inline]
pub(crate) fn is_on(switches: u32) -> bool {
    (match SWITCHES.load(Ordering::Acquire) {
        0 => read(),
        known => known,
    }) & switches
        != 0
}

/// Whether an option asks to see every call.
#[inline]
pub(crate) fn are_any_on() -> bool {
    is_on(!READ)
}

/// The most bytes that wait in quarantine.
pub(crate) fn quarantine_bytes() -> usize {
    QUARANTINE_BYTES.load(Ordering::Relaxed)
}

/// Reads the environment, unless it was read.
pub(crate) fn init() {
    is_on(READ);
}

/// Every thread that gets here reads the same; one of them is the first, and acts on it.
#[cold]
#[inline(never)]
fn read() -> u32 {
    let text = os::option_text().unwrap_or_default();
    let settings = parse(text, |_, _| ());
    let switches = READ | settings.switches();
    QUARANTINE_BYTES.store(settings.quarantine_bytes, Ordering::Relaxed);
    // Release pairs with the Acquire in `is_on`: who sees the switch sees the size.
    let exchanged = SWITCHES.compare_exchange(0, switches, Ordering::Release, Ordering::Acquire);
    if exchanged.is_ok() {
        let _ = parse(text, |word, problem| {
            let word = word.escape_ascii();
            match problem {
                Problem::Unknown => complain!("OBJCG_OPTIONS: there is no option {word}; it is ignored"),
                Problem::Value => complain!("OBJCG_OPTIONS: {word}: not a value of this option; it is ignored"),
            }
        });
        let Settings { fail_os, fail_charge, fail_os_millionths, fail_charge_millionths, seed, .. } = settings;
        if fail_os > 0 || fail_os_millionths > 0 {
            faults::fail(Site::Os, fail_os, fail_os_millionths, seed);
        }
        if fail_charge > 0 || fail_charge_millionths > 0 {
            faults::fail(Site::Charge, fail_charge, fail_charge_millionths, seed);
        }
    }
    switches
}
