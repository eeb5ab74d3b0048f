//! The tree: creating groups, deleting them, and what remains of a deleted one for a while.
//!
//! The *tree lock* guards links, names and the counts of users. It is the outermost of the engine's locks; charges and
//! returns take it only when they release a slot's last pin.
//!
//! # Life of a group
//!
//! | state | users | pins | how it ends |
//! |---|---|---|---|
//! | alive | handles, living children | 1 of the users, 1 a child slot, charges under way | the last user goes, or `delete` |
//! | deleted | handles | the same | the last pin goes: the slot is free |
//!
//! Deleting forwards the vessel, then kills the pin word; so whoever fails to pin the group finds the vessel forwarded.
//! No object and no inherited vessel is visited.

use super::charge::{self, OnLimit, VESSELS, credit};
use super::index::NameIndex;
use super::name::Name;
use super::node::{NODES, Node, ROOT, node, node_bytes};
use super::objcg::VESSEL_BYTES;
use super::{CreateError, DeleteError, Refused, events, oom, page_counter, stocks};
use crate::cpu;
use crate::faults::{self, Site};
use crate::report::die;
use crate::sync::{AtomicU32, Lock, Ordering};

struct Tree {
    index: NameIndex,
    has_root: bool,
}

static TREE: Lock<Tree> = Lock::new(Tree { index: NameIndex::EMPTY, has_root: false });

fn load(field: &AtomicU32) -> u32 {
    field.load(Ordering::Relaxed)
}

fn store(field: &AtomicU32, value: u32) {
    field.store(value, Ordering::Relaxed);
}

/// Makes the root at its first use. False without memory.
pub(super) fn init() -> bool {
    let mut tree = TREE.lock();
    if tree.has_root {
        return true;
    }
    let Some(idx) = NODES.alloc() else { return false };
    let root = node(idx);
    root.counter.reset();
    store(&root.nr_users, 1);
    store(&root.users_pin, 1);
    let generation = root.pin.revive();
    let Some(vessel) = VESSELS.attach(idx, generation) else {
        NODES.free(idx);
        return false;
    };
    // Both tables start at 0, and nothing else takes their first slot.
    debug_assert!(idx == ROOT && vessel == super::ROOT_VESSEL);
    store(&root.objcg, vessel);
    stocks::init();
    tree.has_root = true;
    true
}

/// Makes a child; the caller has `parent` pinned. The result has one user.
pub(super) fn create(parent: u32, name: &Name) -> Result<u32, CreateError> {
    check(&TREE.lock(), parent, name)?;
    let vessel = load(&node(parent).objcg);
    let nr_bytes = node_bytes(name) + VESSEL_BYTES;
    // A group's own memory is its parent's, before it is taken. Limits may refuse it, so no lock is held.
    if faults::strikes(Site::Charge) {
        return Err(CreateError::Limit(Refused::on_order(nr_bytes)));
    }
    let charged = charge::charge_ahead(vessel, nr_bytes, OnLimit::Refuse).map_err(CreateError::Limit)?;
    let mut tree = TREE.lock();
    let created = check(&tree, parent, name).and_then(|()| insert(&mut tree, parent, name));
    drop(tree);
    match created {
        Ok(_) => _ = charged.settle(),
        Err(_) => charged.give_up(),
    }
    created
}

fn check(tree: &Tree, parent: u32, name: &Name) -> Result<(), CreateError> {
    if node(parent).pin.is_dead() {
        return Err(CreateError::ParentDeleted);
    }
    match tree.index.find(parent, name) {
        Some(_) => Err(CreateError::Exists),
        None => Ok(()),
    }
}

fn insert(tree: &mut Tree, parent: u32, name: &Name) -> Result<u32, CreateError> {
    let idx = NODES.alloc().ok_or(CreateError::NoMemory)?;
    let new = node(idx);
    if !new.set_name(name) {
        NODES.free(idx);
        return Err(CreateError::NoMemory);
    }
    new.counter.reset();
    new.events.reset();
    store(&new.oom_settings, 0);
    store(&new.parent, parent);
    store(&new.nr_children, 0);
    store(&new.first_child, ROOT);
    if !tree.index.insert(idx, name) {
        new.drop_name();
        NODES.free(idx);
        return Err(CreateError::NoMemory);
    }
    let generation = new.pin.revive();
    let Some(vessel) = VESSELS.attach(idx, generation) else {
        tree.index.remove(idx);
        new.drop_name();
        NODES.free(idx);
        return Err(CreateError::NoMemory);
    };
    store(&new.objcg, vessel);
    // Only now: from here on `try_add_user` may succeed.
    store(&new.users_pin, 1);
    store(&new.nr_users, 1);
    let above = node(parent);
    above.pin.get();
    above.nr_users.fetch_add(1, Ordering::Relaxed);
    link(above, idx, new);
    Ok(idx)
}

fn link(parent: &Node, idx: u32, child: &Node) {
    let first = load(&parent.first_child);
    store(&child.next_sibling, first);
    store(&child.prev_sibling, ROOT);
    if first != ROOT {
        store(&node(first).prev_sibling, idx);
    }
    store(&parent.first_child, idx);
    parent.nr_children.fetch_add(1, Ordering::Relaxed);
}

fn unlink(parent: &Node, child: &Node) {
    let (prev, next) = (load(&child.prev_sibling), load(&child.next_sibling));
    if prev == ROOT {
        store(&parent.first_child, next);
    } else {
        store(&node(prev).next_sibling, next);
    }
    if next != ROOT {
        store(&node(next).prev_sibling, prev);
    }
    parent.nr_children.fetch_sub(1, Ordering::Relaxed);
}

/// Deletes a group at once; the caller is one of its users.
pub(super) fn delete(idx: u32) -> Result<(), DeleteError> {
    if idx == ROOT {
        return Err(DeleteError::Root);
    }
    let mut tree = TREE.lock();
    let dying = node(idx);
    if dying.pin.is_dead() {
        return Err(DeleteError::Deleted);
    }
    if load(&dying.nr_children) > 0 {
        return Err(DeleteError::HasChildren);
    }
    kill(&mut tree, idx);
    drop(tree);
    drop_user(after_kill(idx));
    Ok(())
}

/// The part of a deletion that is under the tree lock.
fn kill(tree: &mut Tree, idx: u32) {
    let dying = node(idx);
    let parent = node(load(&dying.parent));
    tree.index.remove(idx);
    unlink(parent, dying);
    VESSELS.forward(load(&dying.objcg), load(&parent.objcg));
    dying.pin.kill();
    if dying.counter.marks() & page_counter::MARKED != 0 {
        oom::end_grants_above(idx);
    }
}

/// The rest: the parent gets the group's memory back, and is returned: it loses a user, once the caller has let go of the
/// group's slot or while he still holds it.
#[must_use = "the parent has one user too many"]
fn after_kill(idx: u32) -> u32 {
    let dead = node(idx);
    // Whoever waits for it is told.
    events::announce(idx);
    charge::drain_here(load(&dead.objcg));
    let parent = load(&dead.parent);
    credit(load(&node(parent).objcg), node_bytes(&dead.name()));
    parent
}

/// More users than there are without leaking handles. A count that went around would end a group that somebody holds.
const MAX_USERS: u32 = i32::MAX as u32;

/// Adds a user to a group that has one.
pub(super) fn add_user(idx: u32) {
    check_users(idx, node(idx).nr_users.fetch_add(1, Ordering::Relaxed));
}

fn check_users(idx: u32, nr_users: u32) {
    if nr_users > MAX_USERS {
        die!("group {idx}: more handles than can be counted");
    }
}

/// Becomes a user of the group that a slot had in a generation; false if it is not alive any more, or never was.
pub(super) fn try_add_user(idx: u32, generation: u32) -> bool {
    if idx >= NODES.nr_made() {
        return false;
    }
    let group = node(idx);
    // From 0 only under the tree lock: then somebody may be deleting the group.
    let one_more = |nr_users| (nr_users > 0).then(|| nr_users + 1);
    // Relaxed: the slot's fields are its user's by the pin word, read below.
    let Ok(nr_users) = group.nr_users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) else {
        return false;
    };
    check_users(idx, nr_users);
    // A user holds the slot, so the generation stays. It may be that of another group: then this was a short visit.
    if group.pin.generation() == generation && !group.pin.is_dead() {
        return true;
    }
    drop_user(idx);
    false
}

/// Takes a user away; the last one's end deletes the group and gives the users' pin back.
pub(super) fn drop_user(idx: u32) {
    // A loop, not a recursion: the end of a leaf can be the end of a chain of any depth.
    let mut next = Some(idx);
    while let Some(at) = next {
        // AcqRel: what users did to the group happens before it is deleted.
        let was_last = node(at).nr_users.fetch_sub(1, Ordering::AcqRel) == 1;
        next = if was_last { last_user_gone(at) } else { None };
    }
}

/// Somebody may have become a user again meanwhile, or have come here first, or the slot may even have a new life whose
/// last user is gone too: the state under the lock says what is to be done, whoever does it. Returns the parent if it
/// loses a user by this.
fn last_user_gone(idx: u32) -> Option<u32> {
    let mut tree = TREE.lock();
    let group = node(idx);
    if load(&group.nr_users) > 0 || load(&group.users_pin) == 0 {
        return None;
    }
    let was_alive = !group.pin.is_dead();
    if was_alive {
        kill(&mut tree, idx);
    }
    store(&group.users_pin, 0);
    drop(tree);
    let parent = was_alive.then(|| after_kill(idx));
    unpin(idx);
    parent
}

/// Takes a pin back; the last one's end releases the slot, and with it a pin on the parent's.
pub(super) fn unpin(idx: u32) {
    let mut at = idx;
    while node(at).pin.put() {
        let released = node(at);
        let parent = load(&released.parent);
        let freed = VESSELS.detach(load(&released.objcg));
        released.drop_name();
        oom::forget_mark(at);
        NODES.free(at);
        if let Some(owed) = freed {
            credit(owed.vessel, owed.nr_bytes);
        }
        at = parent;
    }
}

/// The living child of that name, with one user more.
pub(super) fn find_child(parent: u32, name: &Name) -> Option<u32> {
    let tree = TREE.lock();
    let child = tree.index.find(parent, name)?;
    add_user(child);
    Some(child)
}

/// Calls `sink` with the first `nr_wanted` children, newest first; returns how many there are. Each is alive until `sink`
/// returns, which must not come back here.
pub(super) fn first_children(parent: u32, nr_wanted: usize, mut sink: impl FnMut(u32)) -> usize {
    let _tree = TREE.lock();
    let mut at = load(&node(parent).first_child);
    for _ in 0..nr_wanted {
        if at == ROOT {
            break;
        }
        sink(at);
        at = load(&node(at).next_sibling);
    }
    load(&node(parent).nr_children) as usize
}

/// Visits all children, under the tree lock; returns how many there are. `visit` must not come back here.
pub(super) fn for_each_child(parent: u32, visit: impl FnMut(u32)) -> usize {
    first_children(parent, usize::MAX, visit)
}

/// Visits a group and all its descendants, parents first, under the tree lock. `visit` must not come back here.
pub(super) fn for_each_below(top: u32, mut visit: impl FnMut(u32)) {
    let _tree = TREE.lock();
    let mut at = top;
    loop {
        visit(at);
        let mut next = load(&node(at).first_child);
        while next == ROOT {
            if at == top {
                return;
            }
            next = load(&node(at).next_sibling);
            if next == ROOT {
                at = load(&node(at).parent);
            }
        }
        at = next;
    }
}

/// Whether a pinned group was deleted: with all that its deletion does under the tree lock.
pub(super) fn is_deleted(idx: u32) -> bool {
    let _tree = TREE.lock();
    node(idx).pin.is_dead()
}

/// The parent of a living group, with one user more.
pub(super) fn parent(idx: u32) -> Option<u32> {
    let _tree = TREE.lock();
    let group = node(idx);
    if idx == ROOT || group.pin.is_dead() {
        return None;
    }
    // A living child is one of its users: this is not the first.
    let parent = load(&group.parent);
    add_user(parent);
    Some(parent)
}

/// Slots of deleted groups that are still pinned.
pub(super) fn nr_dying() -> usize {
    let tree = TREE.lock();
    let nr_alive = tree.index.nr_groups() + usize::from(tree.has_root);
    NODES.nr_used() as usize - nr_alive
}

/// Living groups, the root not counted.
pub(super) fn nr_groups() -> usize {
    TREE.lock().index.nr_groups()
}

pub(super) fn hold_tree_for_fork() {
    TREE.hold_for_fork();
}

pub(super) fn hold_for_fork() {
    cpu::hold_for_fork();
    super::charge::hold_for_fork();
    super::external::hold_for_fork();
    super::shrinker::hold_for_fork();
    super::peak::hold_for_fork();
    super::event_fd::hold_for_fork();
    super::node::hold_for_fork();
}

pub(super) fn release_after_fork() {
    super::node::release_after_fork();
    super::event_fd::release_after_fork();
    super::peak::release_after_fork();
    super::shrinker::release_after_fork();
    super::external::release_after_fork();
    super::charge::release_after_fork();
    cpu::release_after_fork();
}

pub(super) fn release_tree_after_fork() {
    TREE.force_unlock();
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::string::String;
    use std::{env, println};

    use super::{MAX_USERS, node, store};
    use crate::memcg::Memcg;

    /// How the process that is to abort gets its handles.
    const WAY: &str = "OBJCG_TEST_HANDLES";
    const LAST: &str = "the last handle that is counted";

    #[test]
    fn i9_more_handles_than_can_be_counted_abort() {
        if let Ok(way) = env::var(WAY) {
            return get_too_many(&way);
        }
        for way in ["clone", "ticket"] {
            let mut child = Command::new(env::current_exe().expect("the test's own path"));
            child.args(["i9_more_handles_than_can_be_counted_abort", "--nocapture"]).env(WAY, way);
            let output = child.output().expect("the test can run itself");
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{way}: {text}");
            assert!(text.contains(LAST) && text.contains("more handles than can be counted"), "{way}: {text}");
        }
    }

    fn get_too_many(way: &str) {
        let group = Memcg::root().create("crowded").expect("a new name");
        let get = || if way == "clone" { Some(group.clone()) } else { Memcg::of_ticket(group.ticket()) };
        // As many were leaked.
        store(&node(group.id()).nr_users, MAX_USERS);
        let _one_more = get();
        println!("{LAST}");
        let _too_many = get();
    }
}
