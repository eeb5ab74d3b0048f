//! The threads that serve requests.

use std::sync::atomic::Ordering;

use crate::fork;
use crate::protocol::Counts;
use crate::random::Random;
use crate::server::{NR_PLACES, Server};

/// More than CPUs, so that they are preempted and moved.
pub(crate) const NR_THREADS: usize = 4;

/// Serves requests until the server stops.
pub(crate) fn serve(server: &Server, seed: u64, thread: u64) {
    let mut random = Random::new(seed ^ (thread << 48));
    while !server.stop.load(Ordering::Relaxed) {
        let pass = server.gate.read().expect("nothing panics");
        let mut counts = Counts { requests: 1, ..Counts::default() };
        request(server, &mut random, &mut counts);
        server.note(&counts);
        drop(pass);
    }
}

fn request(server: &Server, random: &mut Random, counts: &mut Counts) {
    let nth = random.below(NR_PLACES);
    let place = &mut *server.place(nth);
    if place.tenant.is_none() {
        server.fill(place, random, counts);
    }
    let Some(tenant) = &mut place.tenant else { return };
    let objects = &mut place.objects;
    match random.below(1000) {
        0..=3 => fork::in_a_child(&tenant.group, objects, random, counts),
        4..=23 => tenant.work_on_a_thread(objects, random, counts),
        24..=63 => tenant.burst(objects, random, counts),
        64..=113 => tenant.change_limits(random),
        114..=213 => tenant.count(random, counts),
        214..=283 => {
            let nr_handed = random.below(objects.len() / 2 + 1);
            server.hand_on(objects, nr_handed, random);
        }
        284..=353 => {
            let nr_freed = random.below(60);
            tenant.group.scope(|| server.clear_estate(nr_freed, random));
        }
        354..=423 => {
            // Half of the objects outlive the tenant.
            let nr_survivors = objects.len() / 2;
            server.hand_on(objects, nr_survivors, random);
            objects.clear();
            if let Some(tenant) = place.tenant.take() {
                tenant.leave();
            }
            server.fill(place, random, counts);
        }
        _ => tenant.serve(objects, random, counts),
    }
}
