//! Names of groups: every length and many scripts, each refusal its own error, free again after a delete (I4).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use objcg::{CreateError, Memcg, MemcgStat, NameError, Objcg};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// A group with its name in its slot, and one whose name has a slot of its own.
const SHORT_BYTES: u64 = 288;
const LONG_BYTES: u64 = 552;

#[test]
fn names_of_every_length_come_back_and_cost_what_is_said() {
    let parent = Memcg::root().create("lengths").expect("a new name");
    for round in 0..2 {
        let groups: Vec<Memcg> =
            (1..=255).map(|len| parent.create(&"n".repeat(len)).unwrap_or_else(|e| panic!("{len}: {e}"))).collect();
        for (group, len) in groups.iter().zip(1..) {
            assert_eq!(group.name(), "n".repeat(len), "round {round}");
            assert_eq!(parent.child(&"n".repeat(len)).as_ref(), Some(group));
        }
        parent.drain();
        assert_eq!(parent.usage(), 56 * SHORT_BYTES + 199 * LONG_BYTES);
        assert_eq!(parent.usage(), parent.stat().total_bytes());
        // Half by name, half by handle; every second one first, so that chains of the index lose members in the middle.
        let (odd, even): (Vec<Memcg>, Vec<Memcg>) = groups.into_iter().partition(|group| group.name().len() % 2 == 1);
        odd.iter().for_each(|group| group.delete().expect("alive, and without children"));
        assert!(even.iter().all(|group| parent.child(&group.name()).as_ref() == Some(group)));
        assert!(odd.iter().all(|group| parent.child(&group.name()).is_none()));
        drop((odd, even));
        parent.drain();
        assert_eq!((parent.usage(), parent.stat()), (0, MemcgStat::default()));
    }
}

#[test]
fn lengths_are_counted_in_bytes() {
    let parent = Memcg::root().create("bytes").expect("a new name");
    // 3 bytes each.
    let fits = parent.create(&"語".repeat(85)).expect("255 bytes");
    assert_eq!(fits.name().chars().count(), 85);
    for name in ["語".repeat(86), "n".repeat(256), "n".repeat(1 << 20)] {
        assert_eq!(parent.create(&name).expect_err("too long"), CreateError::Name(NameError::TooLong));
        assert_eq!(parent.child(&name), None);
    }
    assert_eq!(parent.children(), [fits]);
}

#[test]
fn a_slash_anywhere_is_refused_and_nothing_else_is() {
    let parent = Memcg::root().create("characters").expect("a new name");
    for name in ["/", "/a", "a/", "a/b", "//", "é/"] {
        assert_eq!(parent.create(name).expect_err("a slash"), CreateError::Name(NameError::Slash), "{name:?}");
    }
    for name in [".", "..", " ", "\0", "\n", "\\", "(deleted)", "ß", "\u{1f980}", "\u{202e}"] {
        let group = parent.create(name).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!((group.name().as_str(), group.path()), (name, format!("/characters/{name}")));
        assert_eq!(parent.create(name).expect_err("taken"), CreateError::Exists);
    }
}

#[test]
fn a_name_is_taken_among_siblings_only() {
    let parents = ["a", "b"].map(|name| Memcg::root().create(name).expect("a new name"));
    let children = parents.each_ref().map(|parent| parent.create("same").expect("another parent"));
    let nested = children[0].create("same").expect("another parent");
    assert_eq!(nested.path(), "/a/same/same");
    assert_ne!(children[0], children[1]);
    assert_eq!(parents.each_ref().map(|parent| parent.child("same")), children.each_ref().map(|c| Some(c.clone())));
}

#[test]
fn a_refused_name_costs_nothing() {
    let parent = Memcg::root().create("refusing").expect("a new name");
    let _taken = parent.create("taken").expect("a new name");
    parent.drain();
    let before = (parent.usage(), parent.peak(), parent.stat(), objcg::nr_dying());
    for _ in 0..1000 {
        assert!(["", "/", "taken"].iter().all(|name| parent.create(name).is_err()));
    }
    parent.drain();
    assert_eq!((parent.usage(), parent.peak(), parent.stat()), (before.0, before.1, before.2));
}

#[test]
fn i4_the_path_of_a_group_that_dies_is_whole_or_marked() {
    const NR_ROUNDS: usize = 100_000;
    let top = Memcg::root().create("top").expect("a new name");
    let current = Mutex::new(top.clone());
    let get = || current.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let stop = AtomicBool::new(false);
    let wrong = thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut wrong = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let path = get().path();
                if !["/top", "/top/a", "/top/a/b", "(deleted)/a", "(deleted)/b"].contains(&path.as_str()) {
                    wrong.push(path);
                }
            }
            wrong
        });
        for _ in 0..NR_ROUNDS {
            let Ok(a) = top.create("a") else { continue };
            let b = a.create("b").expect("a new name");
            *current.lock().unwrap_or_else(PoisonError::into_inner) = b.clone();
            b.delete().expect("alive, and without children");
            a.delete().expect("alive, and without children");
        }
        stop.store(true, Ordering::Relaxed);
        asker.join().expect("the asker ends well")
    });
    assert!(wrong.is_empty(), "{} wrong paths, the first {:?}", wrong.len(), wrong[0]);
}
