//! Quiet points: the heap against what the server knows, and the engine's figures against each other.

use std::time::Instant;

use objcg::Memcg;
use objcg_core::{kmalloc, percpu, stat};

use crate::object::Object;
use crate::protocol::{Counts, Sample};
use crate::resident;
use crate::server::{Server, lock};

/// Far more than there is: a counter below zero is about 2^48.
const ABSURD: u64 = 1 << 40;

/// What the server knows that it has.
#[derive(Default)]
struct Known {
    nr_objects: u64,
    object_bytes: u64,
    nr_groups: usize,
    nr_percpu: u64,
}

/// Checks all invariants; all work is paused. Panics with what is wrong.
pub(crate) fn check(server: &Server, second: u64) -> Sample {
    let start = Instant::now();
    let mut known = Known { nr_groups: 1, ..Known::default() };
    for nth in 0..server.places.len() {
        let place = server.place(nth);
        known.add(&place.objects);
        if let Some(tenant) = &place.tenant {
            known.nr_groups += tenant.nr_groups();
            known.nr_percpu += tenant.nr_percpu();
            tenant.check_counts();
        }
    }
    known.add(&lock(&server.estate));

    check_group(&Memcg::root());
    check_group(&server.group);
    // Looking at the whole heap for each group would take most of the time: a few in turn.
    for nth in (0..server.places.len()).filter(|nth| *nth as u64 % 16 == second % 16) {
        if let Some(tenant) = &server.place(nth).tenant {
            check_group(&tenant.group);
            tenant.session.iter().for_each(check_group);
        }
    }
    let stat = server.group.stat();
    assert_eq!(stat.slab_objects + stat.large_objects, known.nr_objects, "I1: objects found, and those that live");
    assert_eq!(stat.slab_bytes + stat.large_bytes, known.object_bytes, "I1: bytes found, and those of what lives");
    assert_eq!(stat.percpu_objects, known.nr_percpu, "I1: per-CPU memory found, and what lives");
    assert_eq!(objcg::nr_groups(), known.nr_groups, "I4: groups, and those that live");
    assert_eq!(objcg::nr_dying(), 0, "I4: dying groups");
    let nr_vessels = objcg::nr_vessels();
    let most = known.nr_groups + known.nr_objects as usize;
    assert!(nr_vessels <= most, "I4: {nr_vessels} vessels of {most} groups and objects");

    server.note(&Counts { compared: known.nr_objects, ..Counts::default() });
    let pause_us = start.elapsed().as_micros() as u64;
    Sample {
        second,
        resident: resident::now_bytes(),
        held: stat::heap().held_bytes() + percpu::stat().held_bytes() as u64,
        live: known.object_bytes,
        usage: server.group.usage(),
        vessels: nr_vessels as u64,
        pause_us,
        counts: server.counts(),
    }
}

impl Known {
    fn add(&mut self, objects: &[Object]) {
        for object in objects {
            object.check();
            self.nr_objects += 1;
            self.object_bytes += object.nr_usable();
        }
    }
}

/// The counter is what a walk over the heap finds, and within bounds.
fn check_group(group: &Memcg) {
    let found = group.stat().total_bytes();
    let (usage, peak) = (group.usage(), group.peak());
    assert_eq!(usage, found, "I1: usage of {}, and what the heap holds for it", group.path());
    assert!(usage < ABSURD && usage <= peak, "usage {usage} of {}, peak {peak}", group.path());
    let events = group.events();
    assert!(events.oom <= events.max, "more refusals than limits met: {events:?} of {}", group.path());
}

/// What there was before the work.
pub(crate) struct Baseline {
    nr_vessels: usize,
    live_bytes: u64,
    percpu_bytes: usize,
}

/// What the standard library may keep for itself once threads were started and lines printed.
const MAX_KEPT: u64 = 16 << 10;

impl Baseline {
    pub(crate) fn take() -> Baseline {
        Memcg::root().drain();
        kmalloc::trim();
        Baseline {
            nr_vessels: objcg::nr_vessels(),
            live_bytes: stat::heap().live_bytes(),
            percpu_bytes: percpu::stat().used_bytes,
        }
    }

    /// Everything is back to what it was; gives back what the engine still holds.
    pub(crate) fn check_nothing_left(&self) -> u64 {
        Memcg::root().drain();
        kmalloc::trim();
        percpu::trim();
        assert_eq!((objcg::nr_groups(), objcg::nr_dying()), (0, 0), "I4: groups left, and dying ones");
        assert_eq!(objcg::nr_vessels(), self.nr_vessels, "I4: vessels left");
        assert_eq!(percpu::stat().used_bytes, self.percpu_bytes, "per-CPU memory left");
        let heap = stat::heap();
        let most = self.live_bytes + MAX_KEPT;
        assert!(heap.live_bytes() <= most, "{} bytes live when all is freed, of {most}", heap.live_bytes());
        heap.held_bytes() + percpu::stat().held_bytes() as u64
    }
}
