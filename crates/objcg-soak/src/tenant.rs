//! A tenant: its group, what it holds, and the requests on it.
//!
//! Whoever has the tenant's lock runs a request. The lists have their room from the start, outside of every group: what is
//! charged to a group are [`Object`]s and per-CPU memory, so that the server can count them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use objcg::{Memcg, PerCpu, PerCpuCounter};

use crate::object::{Object, draw_layout};
use crate::protocol::Counts;
use crate::random::Random;

pub(crate) const MAX_OBJECTS: usize = 200;
/// Objects of a burst, all alive at once.
const BURST_OBJECTS: usize = 400;
const MIN_MAX: usize = 64 << 10;
const MAX_MAX: usize = 3 << 20;

/// What a tenant has besides its objects.
pub(crate) struct Tenant {
    pub(crate) group: Memcg,
    /// A group below it, for half of its work.
    pub(crate) session: Option<Memcg>,
    counter: Option<PerCpuCounter>,
    nr_counted: i64,
    gauge: Option<PerCpu<AtomicU64>>,
    nr_gauged: u64,
}

impl Tenant {
    /// A new tenant with limits; `None` if there is no room for its group.
    pub(crate) fn arrive(server: &Memcg, name: &str, random: &mut Random) -> Option<Tenant> {
        let group = server.create(name).ok()?;
        set_limits(&group, random);
        let session = if random.once_in(2) { group.create("session").ok() } else { None };
        Some(Tenant { group, session, counter: None, nr_counted: 0, gauge: None, nr_gauged: 0 })
    }

    /// The group that the next work is charged to.
    fn some_group(&self, random: &mut Random) -> &Memcg {
        self.session.as_ref().filter(|_| random.once_in(2)).unwrap_or(&self.group)
    }

    /// Groups that it has.
    pub(crate) fn nr_groups(&self) -> usize {
        1 + usize::from(self.session.is_some())
    }

    /// Allocations of per-CPU memory that it has.
    pub(crate) fn nr_percpu(&self) -> u64 {
        u64::from(self.counter.is_some()) + u64::from(self.gauge.is_some())
    }

    /// Frees some objects, allocates others, resizes one; frees what of `strangers` there is.
    pub(crate) fn serve(&self, objects: &mut Vec<Object>, random: &mut Random, counts: &mut Counts) {
        let nr_freed = random.below(objects.len() / 4 + 1);
        for _ in 0..nr_freed {
            let nth = random.below(objects.len());
            drop(objects.swap_remove(nth));
        }
        let nr_new = random.below(MAX_OBJECTS / 4 + 1).min(MAX_OBJECTS - objects.len());
        self.add(nr_new, objects, random, counts);
        if !objects.is_empty() {
            let nth = random.below(objects.len());
            let nr_bytes = draw_layout(random).size();
            let group = self.some_group(random);
            counts.refusals += u64::from(!group.scope(|| objects[nth].resize(nr_bytes)));
        }
    }

    fn add(&self, nr_new: usize, objects: &mut Vec<Object>, random: &mut Random, counts: &mut Counts) {
        let group = self.some_group(random);
        for _ in 0..nr_new {
            let layout = draw_layout(random);
            match group.scope(|| Object::alloc(layout, random)) {
                Some(object) => objects.push(object),
                None => counts.refusals += 1,
            }
            counts.allocations += 1;
        }
    }

    /// Many objects at once, and all gone again.
    pub(crate) fn burst(&self, objects: &mut Vec<Object>, random: &mut Random, counts: &mut Counts) {
        let nr_before = objects.len();
        self.add(BURST_OBJECTS, objects, random, counts);
        while objects.len() > nr_before {
            let nth = nr_before + random.below(objects.len() - nr_before);
            drop(objects.swap_remove(nth));
        }
        counts.bursts += 1;
    }

    /// A thread that works in the group, leaves objects behind and ends.
    pub(crate) fn work_on_a_thread(&self, objects: &mut Vec<Object>, random: &mut Random, counts: &mut Counts) {
        let mut own = Random::new(random.next());
        let counted = &mut *counts;
        thread::scope(|scope| {
            scope.spawn(move || self.serve(objects, &mut own, counted));
        });
        counts.threads += 1;
    }

    /// Other limits, often below what the tenant uses.
    pub(crate) fn change_limits(&self, random: &mut Random) {
        set_limits(&self.group, random);
        if let Some(session) = &self.session {
            set_limits(session, random);
        }
    }

    /// Makes, uses, checks and now and then gives up per-CPU memory.
    pub(crate) fn count(&mut self, random: &mut Random, counts: &mut Counts) {
        if random.once_in(8) {
            (self.counter, self.nr_counted, self.gauge, self.nr_gauged) = (None, 0, None, 0);
        }
        if self.counter.is_none() {
            self.counter = self.group.scope(PerCpuCounter::new).ok();
            counts.refusals += u64::from(self.counter.is_none());
        }
        if self.gauge.is_none() {
            self.gauge = self.group.scope(PerCpu::new).ok();
            counts.refusals += u64::from(self.gauge.is_none());
        }
        for _ in 0..random.below(50) {
            let step = random.below(100) as i64 - 50;
            if let Some(counter) = &self.counter {
                counter.add(step);
                self.nr_counted += step;
            }
            if let Some(gauge) = &self.gauge {
                gauge.get().fetch_add(1, Ordering::Relaxed);
                self.nr_gauged += 1;
            }
        }
        self.check_counts();
    }

    /// Per-CPU memory has what was put there: nobody else has the tenant.
    pub(crate) fn check_counts(&self) {
        let path = self.group.path();
        if let Some(counter) = &self.counter {
            assert_eq!(counter.sum(), self.nr_counted, "the counter of {path}");
        }
        if let Some(gauge) = &self.gauge {
            assert_eq!(gauge.sum(), self.nr_gauged, "the gauge of {path}");
        }
    }

    /// Deletes the groups, though objects of theirs live on.
    pub(crate) fn leave(self) {
        self.check_counts();
        for group in self.session.iter().chain([&self.group]) {
            group.delete().unwrap_or_else(|error| panic!("{}: {error}", group.path()));
            assert_eq!(group.usage(), 0, "a deleted group has usage");
        }
    }
}

fn set_limits(group: &Memcg, random: &mut Random) {
    let max = (!random.once_in(8)).then(|| (MIN_MAX + random.below(MAX_MAX)) as u64);
    group.set_max(max).unwrap_or_else(|error| panic!("{}: {error}", group.path()));
    group.set_high(max.map(|max| max / 2)).unwrap_or_else(|error| panic!("{}: {error}", group.path()));
}
