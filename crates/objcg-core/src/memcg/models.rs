//! Models of what the parts of a group promise each other: counter and limit, pin and slot, stock and vessel, users and tree.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::objcg::{Owed, VESSEL_BYTES, Vessels};
use super::page_counter::PageCounter;
use super::pin::Pin;
use super::stock::StockSlot;
use crate::sync::Lock;

/// A limit is lowered while somebody charges: once usage was seen below the new limit, no charge that had looked at the old one
/// takes it over.
#[test]
fn loom_i3_no_charge_lands_under_a_limit_that_is_gone() {
    loom::model(|| {
        let counter = Arc::new(PageCounter::default());
        counter.set_max(100);
        let other = Arc::clone(&counter);
        let charger = thread::spawn(move || other.try_charge(60));
        counter.set_max(50);
        let was_within = counter.usage() <= 50;
        let charged = charger.join().unwrap();
        assert!(!(was_within && charged), "over the limit after it was set");
        assert_eq!(counter.usage(), if charged { 60 } else { 0 });
    });
}

/// A slot: what a life of it holds, and whether it was released.
#[derive(Default)]
struct Slot {
    pin: Pin,
    contents: UnsafeCell<u32>,
}

impl Slot {
    #[expect(unsafe_code, reason = "loom checks who reads while somebody writes")]
    fn read(&self) -> u32 {
        // SAFETY: loom ends the model if somebody writes at the same time.
        self.contents.with(|contents| unsafe { *contents })
    }

    #[expect(unsafe_code, reason = "loom checks who writes while somebody reads")]
    fn write(&self, value: u32) {
        // SAFETY: loom ends the model if somebody reads or writes at the same time.
        self.contents.with_mut(|contents| unsafe { *contents = value });
    }
}

/// A ticket is tried while its slot is filled in: whoever gets the pin sees all of it.
#[test]
fn loom_i4_who_pins_a_slot_sees_it_filled_in() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let other = Arc::clone(&slot);
        let reader = thread::spawn(move || {
            if other.pin.try_get(1) {
                assert_eq!(other.read(), 7);
                assert!(!other.pin.put(), "the group's own pin is left");
            }
        });
        slot.write(7);
        assert_eq!(slot.pin.revive(), 1);
        reader.join().unwrap();
    });
}

/// Two holders let go: the one that is told to release the slot sees what the other did to it, and may write.
#[test]
fn loom_i4_the_last_holder_sees_what_the_others_did() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        slot.write(7);
        slot.pin.revive();
        slot.pin.get();
        let let_go = |slot: &Slot| {
            assert_eq!(slot.read(), 7);
            let last = slot.pin.put();
            if last {
                slot.write(0);
            }
            last
        };
        let other = Arc::clone(&slot);
        let holder = thread::spawn(move || let_go(&other));
        let mine = let_go(&slot);
        assert!(mine != holder.join().unwrap(), "exactly one is the last");
    });
}

/// A batch is charged and put into a stock while another CPU drains it: whoever has the bytes sees that the vessel was charged.
#[test]
fn loom_i3_drained_bytes_were_charged_before() {
    loom::model(|| {
        let vessels = Arc::new(Vessels::new());
        let vessel = vessels.attach(0, 1).expect("the table is empty");
        let stock = Arc::new(StockSlot::default());
        let (other, other_stock) = (Arc::clone(&vessels), Arc::clone(&stock));
        let drainer = thread::spawn(move || {
            let drained = other_stock.drain_if(|id| id == vessel);
            let nr_bytes = drained.map_or(0, |residue| u64::from(residue.nr_bytes));
            assert!(other.charged(vessel) >= nr_bytes, "bytes from nowhere");
        });
        vessels.note_charge(vessel, 10);
        assert_eq!(stock.refill(vessel, 10, 100), None);
        drainer.join().unwrap();
    });
}

/// The last bytes of a dead group come back while its slot still has the vessel: no other group gets the vessel before the slot
/// has let go of it.
#[test]
fn loom_i4_a_vessel_stays_while_its_slot_has_it() {
    loom::model(|| {
        let vessels = Arc::new(Vessels::new());
        let root = vessels.attach(0, 1).expect("the table is empty");
        let dead = vessels.attach(1, 1).expect("there is room");
        vessels.note_charge(root, VESSEL_BYTES);
        vessels.note_charge(dead, 100);
        let return_all = |vessels: &Vessels, mut owed: Option<Owed>| {
            while let Some(Owed { vessel, nr_bytes }) = owed {
                owed = vessels.note_return(vessel, nr_bytes);
            }
        };
        let other = Arc::clone(&vessels);
        let freer = thread::spawn(move || return_all(&other, other.note_return(dead, 100)));
        vessels.forward(dead, root);
        let next = vessels.attach(2, 1).expect("there is room");
        assert_ne!(next, dead);
        return_all(&vessels, vessels.detach(dead));
        freer.join().unwrap();
        assert_eq!((vessels.nr_used(), vessels.charged(root)), (2, 0));
    });
}

/// A group's slot as `tree` sees it, and its steps in `tree`'s order: that file needs the statics of the whole engine. What it
/// takes from other files (pin word, lock) is theirs.
struct Group {
    pin: Pin,
    nr_users: AtomicU32,
    users_pin: AtomicU32,
    tree: Lock<u32>,
    nr_releases: AtomicU32,
}

impl Group {
    fn with_one_user() -> Group {
        let pin = Pin::default();
        pin.revive();
        let [nr_users, users_pin, nr_releases] = [1, 1, 0].map(AtomicU32::new);
        Group { pin, nr_users, users_pin, tree: Lock::new(0), nr_releases }
    }

    fn try_add_user(&self) -> bool {
        let one_more = |nr_users| (nr_users > 0).then(|| nr_users + 1);
        if self.nr_users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return false;
        }
        if self.pin.generation() == 1 && !self.pin.is_dead() {
            return true;
        }
        self.drop_user();
        false
    }

    fn drop_user(&self) {
        if self.nr_users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.last_user_gone();
        }
    }

    fn last_user_gone(&self) {
        let mut nr_kills = self.tree.lock();
        if self.nr_users.load(Ordering::Relaxed) > 0 || self.users_pin.load(Ordering::Relaxed) == 0 {
            return;
        }
        if !self.pin.is_dead() {
            self.pin.kill();
            *nr_kills += 1;
        }
        self.users_pin.store(0, Ordering::Relaxed);
        drop(nr_kills);
        if self.pin.put() {
            self.nr_releases.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `find_child`: by name, while the tree still has it.
    fn find(&self) -> bool {
        let _nr_kills = self.tree.lock();
        let is_alive = !self.pin.is_dead();
        if is_alive {
            self.nr_users.fetch_add(1, Ordering::Relaxed);
        }
        is_alive
    }

    /// `delete`, by a user.
    fn delete(&self) {
        let mut nr_kills = self.tree.lock();
        if !self.pin.is_dead() {
            self.pin.kill();
            *nr_kills += 1;
        }
    }
}

/// A ticket is redeemed while the last handle goes: the redeemer has a living group until he lets go, or none.
#[test]
fn loom_i4_a_redeemed_ticket_keeps_its_group() {
    loom::model(|| {
        let group = Arc::new(Group::with_one_user());
        let other = Arc::clone(&group);
        let redeemer = thread::spawn(move || {
            if other.try_add_user() {
                assert!(!other.pin.is_dead(), "nobody deletes it but its last user");
                assert_eq!(other.nr_releases.load(Ordering::Relaxed), 0);
                other.drop_user();
            }
        });
        group.drop_user();
        redeemer.join().unwrap();
        assert_eq!((*group.tree.lock(), group.nr_releases.load(Ordering::Relaxed)), (1, 1));
        assert!(!group.try_add_user());
    });
}

/// A ticket is redeemed while the group is deleted by its only user: one death, one release, whoever is last.
#[test]
fn loom_i4_a_redeemed_ticket_against_delete() {
    loom::model(|| {
        let group = Arc::new(Group::with_one_user());
        let other = Arc::clone(&group);
        let redeemer = thread::spawn(move || {
            if other.try_add_user() {
                assert_eq!(other.nr_releases.load(Ordering::Relaxed), 0);
                other.drop_user();
            }
        });
        group.delete();
        group.drop_user();
        redeemer.join().unwrap();
        assert_eq!((*group.tree.lock(), group.nr_releases.load(Ordering::Relaxed)), (1, 1));
    });
}

/// A group is found by its name while its last handle goes: the finder has a living group, or finds none.
#[test]
fn loom_i4_a_found_group_is_alive() {
    loom::model(|| {
        let group = Arc::new(Group::with_one_user());
        // A charge is under way.
        group.pin.get();
        let other = Arc::clone(&group);
        let finder = thread::spawn(move || {
            if other.find() {
                assert!(!other.pin.is_dead(), "nobody deletes it but its last user");
                assert_eq!(other.nr_releases.load(Ordering::Relaxed), 0);
                other.drop_user();
            }
        });
        group.drop_user();
        finder.join().unwrap();
        assert_eq!((*group.tree.lock(), group.nr_releases.load(Ordering::Relaxed)), (1, 0));
        assert!(group.pin.put(), "the users gave back the one pin that they had");
    });
}
