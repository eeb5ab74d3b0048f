//! Events of limits: whoever refuses has met its limit, whichever attempt of a charge it refuses.

use objcg::{Events, Memcg, Objcg, OomPolicy};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const KIB: usize = 1 << 10;

/// The first attempt meets the child's limit. When what CPUs hold ready for the child was given back, the child has room and
/// its parent has not.
#[test]
fn a_group_that_refuses_the_second_attempt_only_has_met_its_limit_too() {
    let parent = Memcg::root().create("events").expect("a new name");
    parent.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
    let sibling = parent.create("sibling").expect("a new name");
    let child = parent.create("child").expect("a new name");
    parent.set_max(Some(270 * KIB as u64)).expect("alive");
    child.set_max(Some(104 * KIB as u64)).expect("alive");

    let filler = sibling.scope(|| vec![0u8; 200 * KIB]);
    // Free objects keep their charge until the child is drained.
    child.scope(|| drop((0..16).map(|_| Box::new([0u8; 1000])).collect::<Vec<_>>()));
    assert!(child.usage() > 4 * KIB as u64, "nothing waits with its charge: {}", child.usage());

    let refused = child.scope(|| Vec::<u8>::new().try_reserve_exact(100 * KIB));
    assert!(refused.is_err());
    assert_eq!(
        child.events_local(),
        Events { max: 1, oom: 0, ..child.events_local() },
        "the child refused once, and then had room"
    );
    assert_eq!(
        parent.events_local(),
        Events { max: 1, oom: 1, ..parent.events_local() },
        "the parent refused in the end"
    );
    drop(filler);
}
