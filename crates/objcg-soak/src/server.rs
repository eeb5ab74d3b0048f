//! The server: places for tenants, the estate of those that have gone, and the gate that stops all work.
//!
//! **Locking.** The gate is held for reading by a thread for each request, and for writing at a quiet point. Under it: one
//! place, then the estate or the counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock};

use objcg::Memcg;

use crate::object::{Object, draw_layout};
use crate::protocol::{Counts, Order};
use crate::random::Random;
use crate::tenant::{MAX_OBJECTS, Tenant};

pub(crate) const NR_PLACES: usize = 64;
/// Objects of the estate; one more pushes an old one out.
const MAX_ESTATE: usize = 3000;
/// Room for a tenant's objects, and for those of a burst.
const ROOM: usize = 4 * MAX_OBJECTS;
/// What all tenants together may use: bursts meet it.
const MAX_BYTES: u64 = 24 << 20;

/// The place of a tenant.
pub(crate) struct Place {
    pub(crate) tenant: Option<Tenant>,
    pub(crate) objects: Vec<Object>,
}

pub(crate) struct Server {
    pub(crate) group: Memcg,
    pub(crate) places: Vec<Mutex<Place>>,
    /// Objects that outlived their tenants, or were handed on by them: whoever comes by frees some.
    pub(crate) estate: Mutex<Vec<Object>>,
    pub(crate) gate: RwLock<()>,
    pub(crate) stop: AtomicBool,
    counts: Mutex<Counts>,
    next_name: AtomicU64,
    /// What [`Server::leak`] lost.
    lost: Mutex<Vec<Object>>,
}

impl Server {
    pub(crate) fn new(order: &Order) -> Server {
        let group = Memcg::root().create("soak").expect("a new name");
        group.set_max(Some(MAX_BYTES)).expect("alive");
        let place = |_| Mutex::new(Place { tenant: None, objects: Vec::with_capacity(ROOM) });
        let nr_lost = if order.leak_bytes > 0 { order.nr_seconds as usize } else { 0 };
        Server {
            group,
            places: (0..NR_PLACES).map(place).collect(),
            estate: Mutex::new(Vec::with_capacity(2 * MAX_ESTATE)),
            gate: RwLock::new(()),
            stop: AtomicBool::new(false),
            counts: Mutex::new(Counts::default()),
            next_name: AtomicU64::new(0),
            lost: Mutex::new(Vec::with_capacity(nr_lost)),
        }
    }

    /// Runs `work` while no request runs.
    pub(crate) fn paused<R>(&self, work: impl FnOnce() -> R) -> R {
        let _all = self.gate.write().expect("nothing panics");
        work()
    }

    pub(crate) fn place(&self, nth: usize) -> MutexGuard<'_, Place> {
        lock(&self.places[nth])
    }

    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Adds what a request did.
    pub(crate) fn note(&self, new: &Counts) {
        let mut counts = lock(&self.counts);
        counts.requests += new.requests;
        counts.allocations += new.allocations;
        counts.refusals += new.refusals;
        counts.tenants += new.tenants;
        counts.bursts += new.bursts;
        counts.forks += new.forks;
        counts.threads += new.threads;
        counts.compared += new.compared;
    }

    /// A new tenant for a place that has none.
    pub(crate) fn fill(&self, place: &mut Place, random: &mut Random, counts: &mut Counts) {
        let name = format!("tenant-{}", self.next_name.fetch_add(1, Ordering::Relaxed));
        place.tenant = Tenant::arrive(&self.group, &name, random);
        counts.tenants += u64::from(place.tenant.is_some());
        counts.refusals += u64::from(place.tenant.is_none());
    }

    /// Hands objects to the estate.
    pub(crate) fn hand_on(&self, objects: &mut Vec<Object>, nr_objects: usize, random: &mut Random) {
        let mut estate = lock(&self.estate);
        for object in objects.drain(objects.len() - nr_objects..) {
            if estate.len() == MAX_ESTATE {
                let nth = random.below(MAX_ESTATE);
                drop(estate.swap_remove(nth));
            }
            estate.push(object);
        }
    }

    /// Frees some of the estate, whoever they belong to.
    pub(crate) fn clear_estate(&self, nr_objects: usize, random: &mut Random) {
        let mut estate = lock(&self.estate);
        for _ in 0..nr_objects.min(estate.len()) {
            let nth = random.below(estate.len());
            drop(estate.swap_remove(nth));
        }
    }

    /// Keeps an object outside of every group that nobody counts, as a leak would.
    pub(crate) fn leak(&self, nr_bytes: usize) {
        if nr_bytes > 0 {
            let mut random = Random::new(0);
            let layout = draw_layout(&mut random).align_to(8).expect("a power of two");
            let layout = std::alloc::Layout::from_size_align(nr_bytes, layout.align()).expect("not so much a second");
            lock(&self.lost).extend(Object::alloc(layout, &mut random));
        }
    }

    /// Frees everything, and the groups.
    pub(crate) fn close(self) {
        let Server { group, places, estate, lost, .. } = self;
        for place in places {
            let Place { tenant, objects } = place.into_inner().expect("nothing panics");
            drop(objects);
            tenant.into_iter().for_each(Tenant::leave);
        }
        drop(estate);
        // A leak is there to the end: the check there has to find it as well.
        std::mem::forget(lost);
        group.drain();
        assert_eq!(group.stat(), objcg::MemcgStat::default(), "I1: what is left in the group when all is freed");
        assert_eq!(group.usage(), 0, "I1: usage when all is freed");
        group.delete().unwrap_or_else(|error| panic!("/soak: {error}"));
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics: the first one ends the process")
}
