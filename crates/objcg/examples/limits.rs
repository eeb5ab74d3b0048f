//! What limits cost: `cargo run --release -p objcg --example limits`.
//!
//! Times what a server does between two requests (entering a group, asking whether it was marked, asking whether it is over
//! `high`), and what happens at a limit, here and now: the median of some rounds.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Instant;

use objcg::{Memcg, Objcg, OomPolicy, checkpoint};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_ROUNDS: usize = 11;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Memcg::root().create("server")?;
    let tenant = server.create("tenant")?;
    time("enter and leave a group", 2_000_000, || drop(black_box(tenant.enter())));
    time("checkpoint outside every group", 2_000_000, || {
        let _alive = black_box(checkpoint());
    });
    {
        let _inside = tenant.enter();
        time("checkpoint, two levels below the root", 2_000_000, || {
            let _alive = black_box(checkpoint());
        });
    }
    time("throttle_delay, not over high", 2_000_000, || {
        let _delay = black_box(tenant.throttle_delay());
    });
    let mut killed = pin!(tenant.killed());
    let mut context = Context::from_waker(Waker::noop());
    time("polling killed() again", 2_000_000, || {
        let _pending = black_box(killed.as_mut().poll(&mut context));
    });
    let mut charge = tenant.charge_external(0)?;
    time("an external charge that grows and shrinks", 500_000, || {
        let _fits = charge.resize(1000).and_then(|()| charge.resize(0));
    });
    let (mut object, other) = (tenant.scope(|| Box::new([0u8; 100])), server.create("other")?);
    time("an object adopted there and back", 500_000, || {
        let _fits = other.adopt(&mut object).and_then(|()| tenant.adopt(&mut object));
    });
    tenant.set_oom_policy(Some(OomPolicy::Fail))?;
    tenant.set_max(Some(0))?;
    time("an allocation that is refused", 2_000, || {
        let _refused = tenant.scope(|| Vec::<u8>::new().try_reserve_exact(100));
    });
    Ok(())
}

fn time(what: &str, nr_calls: u32, mut call: impl FnMut()) {
    let mut rounds = [0.0; NR_ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        (0..nr_calls).for_each(|_| call());
        *round = start.elapsed().as_nanos() as f64 / f64::from(nr_calls);
    }
    rounds.sort_unstable_by(f64::total_cmp);
    println!("{what:<45} {:>9.1} ns", rounds[NR_ROUNDS / 2]);
}
