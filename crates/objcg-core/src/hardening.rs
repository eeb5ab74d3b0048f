//! Hardening by option: what is written behind an object's bytes and into free objects, and looked at later.
//!
//! While an option asks for it an object's slot is longer than what the user asked for:
//!
//! | bytes | content while live | while free, with `poison` |
//! |---|---|---|
//! | 0 … 8 | the user's | the mark of a free object |
//! | 8 … asked | the user's | `0x6b` |
//! | asked … track | red zone, `0xcc` | `0x6b` |
//! | the last ones: [`Track`] | size asked for, a check word, who allocated it | the same, the check word says free |
//!
//! `kmalloc` lays and reads this for what it hands out, `slab` when a free object comes back by the slow path, where every call
//! comes by while an option is on. A slab's memory is all zero when it is made then, so that no old track is taken for its own.

#![expect(unsafe_code, reason = "reads and writes what is behind the user's bytes")]

mod quarantine;

use core::fmt;
use core::ptr::NonNull;
use core::slice;

use crate::faults::mix;
use crate::options::{self, POISON, QUARANTINE, REDZONE, STACK};
use crate::os::{Caller, capture};
use crate::report::die;
use crate::sync::{AtomicU64, Ordering};

pub(crate) use quarantine::{hold_for_fork, put, release_after_fork, take_surplus};

const POISON_BYTE: u8 = 0x6b;
const RED_BYTE: u8 = 0xcc;
/// The shortest red zone.
const RED_BYTES: usize = 16;
/// Bytes of the mark in a free object, which is written before anybody looks at the red zone of a shorter one.
const MARK_BYTES: usize = 8;
const NR_CALLERS: usize = 8;

/// What is known of an object, in the last bytes of its slot.
#[repr(C)]
struct Track {
    nr_asked: usize,
    /// [`Track::check_of`] a live or a free object, or neither.
    check: u64,
}

/// In front of the track, if the option asks.
type Callers = [Caller; NR_CALLERS];

/// Whose place it is: a live or a free object's, or one that was never used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Free,
}

/// The whole place of an object. The bytes are the engine's to look at: in a free object, or behind what its user asked for.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    start: NonNull<u8>,
    nr_bytes: usize,
}

/// Whether objects have tracks.
#[inline]
pub(crate) fn has_tracks() -> bool {
    options::is_on(POISON | REDZONE | STACK | QUARANTINE)
}

/// Bytes that an object takes beside those that were asked for.
pub(crate) fn nr_extra_bytes() -> usize {
    if !has_tracks() {
        return 0;
    }
    let red_bytes = if options::is_on(REDZONE) { RED_BYTES } else { 0 };
    // The track lies at a multiple of 8 at the end of the slot.
    red_bytes + nr_track_bytes() + align_of::<Track>() - 1
}

fn nr_track_bytes() -> usize {
    size_of::<Track>() + if options::is_on(STACK) { size_of::<Callers>() } else { 0 }
}

impl Place {
    pub(crate) fn new(start: NonNull<u8>, nr_bytes: usize) -> Place {
        Place { start, nr_bytes }
    }

    /// Makes it the place of a live object.
    pub(crate) fn lay(self, nr_asked: usize) {
        if options::is_on(REDZONE) {
            self.red_zone(nr_asked).fill(RED_BYTE);
        }
        if options::is_on(STACK) {
            // SAFETY: the track's end of the slot has room for them, and is the engine's.
            unsafe { self.callers().write(capture()) };
        }
        self.set(nr_asked, State::Live);
    }

    /// Looks at a place that is taken for a new object: one that was freed must be as it was left.
    pub(crate) fn check_free(self) {
        if options::is_on(POISON) && self.state() == Some(State::Free) {
            let body = self.body();
            if let Some(at) = body.iter().position(|byte| *byte != POISON_BYTE) {
                self.report(format_args!("written to after it was freed, at byte {}", MARK_BYTES + at));
            }
        }
    }

    /// The size that was asked for, of an object that is live and whole.
    pub(crate) fn nr_asked(self) -> usize {
        match self.state() {
            Some(State::Live) => {}
            Some(State::Free) => self.report(format_args!("double free")),
            None => die!("{:p}: written past its end: what is behind an object is overwritten", self.start),
        }
        let nr_asked = self.track().nr_asked;
        if options::is_on(REDZONE) {
            let from = nr_asked.max(MARK_BYTES);
            if let Some(at) = self.red_zone(from).iter().position(|byte| *byte != RED_BYTE) {
                self.report(format_args!("written {} bytes past its end", from + at - nr_asked + 1));
            }
        }
        nr_asked
    }

    /// Makes it the place of a free object; aborts if it is no live and whole one's.
    pub(crate) fn bury(self) {
        let nr_asked = self.nr_asked();
        self.set(nr_asked, State::Free);
        if options::is_on(POISON) {
            self.body().fill(POISON_BYTE);
        }
    }

    #[cold]
    fn report(self, what: fmt::Arguments<'_>) -> ! {
        let nr_asked = self.track().nr_asked;
        let callers = if options::is_on(STACK) { &self.read_callers() } else { &[Caller(0); NR_CALLERS] };
        die!("{:p}: {what}: an object of {nr_asked} bytes{}", self.start, AllocatedBy(callers));
    }

    /// The offset of the track, or of the callers in front of it.
    fn track_start(self) -> usize {
        // Sizes of slots and runs are multiples of 8.
        self.nr_bytes - nr_track_bytes()
    }

    fn red_zone<'a>(self, from: usize) -> &'a mut [u8] {
        self.bytes(from.min(self.track_start()))
    }

    fn body<'a>(self) -> &'a mut [u8] {
        self.bytes(MARK_BYTES)
    }

    /// The bytes from an offset to the track.
    fn bytes<'a>(self, from: usize) -> &'a mut [u8] {
        // SAFETY: the offset is inside the slot.
        let first = unsafe { self.start.add(from) };
        // SAFETY: inside the slot up to the track, and the engine's (see `Place`): no reference of the user's is there.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), self.track_start() - from) }
    }

    fn track_place(self) -> NonNull<Track> {
        // SAFETY: the slot ends with the track.
        unsafe { self.start.add(self.nr_bytes - size_of::<Track>()) }.cast()
    }

    fn track(self) -> Track {
        // SAFETY: initialised memory of the slot, of integers, aligned to 8.
        unsafe { self.track_place().read() }
    }

    fn callers(self) -> NonNull<Callers> {
        // SAFETY: with the option on the callers lie in front of the track.
        unsafe { self.start.add(self.track_start()) }.cast()
    }

    fn read_callers(self) -> Callers {
        // SAFETY: initialised memory of the slot, of integers, aligned to 8.
        unsafe { self.callers().read() }
    }

    fn set(self, nr_asked: usize, state: State) {
        let track = Track { nr_asked, check: self.check_of(nr_asked, state) };
        // SAFETY: the end of the slot, which is the engine's.
        unsafe { self.track_place().write(track) };
    }

    /// `None` if the track is not one: never used, or overwritten.
    fn state(self) -> Option<State> {
        let Track { nr_asked, check } = self.track();
        [State::Live, State::Free].into_iter().find(|state| check == self.check_of(nr_asked, *state))
    }

    fn check_of(self, nr_asked: usize, state: State) -> u64 {
        mix(self.start.as_ptr() as u64 ^ mix(nr_asked as u64) ^ state as u64)
    }
}

struct AllocatedBy<'a>(&'a [Caller]);

impl fmt::Display for AllocatedBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, caller) in self.0.iter().take_while(|caller| caller.0 != 0).enumerate() {
            f.write_str(if nth == 0 { ", allocated by " } else { " " })?;
            caller.fmt(f)?;
        }
        Ok(())
    }
}

/// A number below `bound`, which is not 0. Good enough to make an order hard to foresee.
pub(crate) fn random_below(bound: u32) -> u32 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    // The address of a static differs from run to run.
    let bits = mix(nth ^ (&raw const NEXT).addr() as u64);
    ((u128::from(bits) * u128::from(bound)) >> 64) as u32
}
