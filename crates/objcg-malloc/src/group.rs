//! Groups in C: a handle is a value, the group's ticket. A group lives until `objcg_delete`; after that its handle gives
//! `OBJCG_ESTALE`, for ever.
//!
//! A thread holds the group that it has entered, so that its word never names a vessel that somebody else got meanwhile.

#![expect(unsafe_code, reason = "these are C's functions")]
#![allow(non_camel_case_types, reason = "the names of objcg.h")]

use core::ffi::{CStr, c_char, c_int};
use core::mem;

use objcg_core::memcg::{self, Memcg};

use crate::status::Status;

/// A group's handle, or 0, which is none's.
pub type objcg_memcg_t = u64;

/// `OBJCG_UNLIMITED`.
const UNLIMITED: u64 = u64::MAX;

/// What a group holds, `struct objcg_stat`: fields are only ever added, at the end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct objcg_stat {
    slab_objects: u64,
    slab_bytes: u64,
    large_objects: u64,
    large_bytes: u64,
    percpu_objects: u64,
    percpu_bytes: u64,
    owner_bytes: u64,
    group_bytes: u64,
    stock_bytes: u64,
}

/// How often limits were met, `struct objcg_events`: fields are only ever added, at the end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct objcg_events {
    high: u64,
    max: u64,
    oom: u64,
}

/// Runs `work` with the group of a handle.
///
/// # Errors
/// [`Status::Stale`] if it is none's any more, and those of `work`.
pub(crate) fn find(group: objcg_memcg_t) -> Result<Memcg, Status> {
    Memcg::of_ticket(group).ok_or(Status::Stale)
}

/// Runs `work` with the group of a handle; `None` if it is none's any more.
pub fn with_group<R>(group: objcg_memcg_t, work: impl FnOnce(&Memcg) -> R) -> Option<R> {
    find(group).ok().map(|group| work(&group))
}

/// Runs `work` with the group of a handle and a place for its result.
///
/// # Safety
/// `place` is null, or may be written to.
unsafe fn put<T>(
    group: objcg_memcg_t,
    place: *mut T,
    work: impl FnOnce(&Memcg) -> Result<T, Status>,
) -> Result<(), Status> {
    if place.is_null() {
        return Err(Status::Invalid);
    }
    let value = work(&find(group)?)?;
    // SAFETY: the caller's contract.
    unsafe { place.write(value) };
    Ok(())
}

/// The bytes of a C string as a name of a group.
///
/// # Safety
/// `name` is null, or a C string that lives as long as the result.
unsafe fn name_of<'a>(name: *const c_char) -> Result<&'a str, Status> {
    if name.is_null() {
        return Err(Status::Invalid);
    }
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Status::Name)
}

/// The root's handle.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_root() -> objcg_memcg_t {
    Memcg::root().ticket()
}

/// Makes a child.
///
/// # Safety
/// `name` is a C string, `group` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_create(parent: objcg_memcg_t, name: *const c_char, group: *mut objcg_memcg_t) -> c_int {
    let create = |parent: &Memcg| {
        // SAFETY: the caller's contract.
        let created = parent.create(unsafe { name_of(name) }?)?;
        let ticket = created.ticket();
        // It lives until `objcg_delete`, which takes this handle back.
        mem::forget(created);
        Ok(ticket)
    };
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(parent, group, create) })
}

/// Deletes a group. What is charged to it becomes its parent's.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_delete(group: objcg_memcg_t) -> c_int {
    Status::of(find(group).and_then(|group| Ok(group.delete_forgotten()?)))
}

/// The child of that name.
///
/// # Safety
/// `name` is a C string, `group` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_find(parent: objcg_memcg_t, name: *const c_char, group: *mut objcg_memcg_t) -> c_int {
    let find_child = |parent: &Memcg| {
        // SAFETY: the caller's contract.
        let name = unsafe { name_of(name) }?;
        Ok(parent.child(name).ok_or(Status::NotFound)?.ticket())
    };
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(parent, group, find_child) })
}

/// The parent.
///
/// # Safety
/// `parent` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_parent(group: objcg_memcg_t, parent: *mut objcg_memcg_t) -> c_int {
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(group, parent, |group| Ok(group.parent().ok_or(Status::NotFound)?.ticket())) })
}

/// Fills `children` with up to `room` children, newest first, and `nr_children` with how many there are.
///
/// # Safety
/// `children` has that room (it may be null if it is 0), `nr_children` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_children(
    group: objcg_memcg_t,
    children: *mut objcg_memcg_t,
    room: usize,
    nr_children: *mut usize,
) -> c_int {
    let list = |group: &Memcg| {
        if children.is_null() && room > 0 {
            return Err(Status::Invalid);
        }
        let mut nr_listed = 0;
        let nr_children = group.child_tickets(room, |child| {
            // SAFETY: at most `room` children come, and there is room for as many.
            let place = unsafe { children.add(nr_listed) };
            // SAFETY: as just said.
            unsafe { place.write(child) };
            nr_listed += 1;
        });
        Ok(nr_children)
    };
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(group, nr_children, list) })
}

/// Copies the name and a 0 into `buffer`.
///
/// # Safety
/// `buffer` has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_name(group: objcg_memcg_t, buffer: *mut c_char, room: usize) -> c_int {
    let copy = || {
        let name = find(group)?.name();
        let bytes = name.as_str().as_bytes();
        if buffer.is_null() {
            return Err(Status::Invalid);
        }
        if bytes.len() >= room {
            return Err(Status::Range);
        }
        // SAFETY: there is room for the name, and for one more.
        unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        // SAFETY: as just said.
        let end = unsafe { buffer.add(bytes.len()) };
        // SAFETY: as just said.
        unsafe { end.write(0) };
        Ok(())
    };
    Status::of(copy())
}

/// Makes this the group that the thread's new objects are charged to, until it enters another or ends.
///
/// # Safety
/// `previous` is null, or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_enter(group: objcg_memcg_t, previous: *mut objcg_memcg_t) -> c_int {
    let enter = || {
        let before = memcg::move_into(find(group)?).ok_or(Status::NoMemory)?;
        if !previous.is_null() {
            // SAFETY: the caller's contract.
            unsafe { previous.write(before) };
        }
        Ok(())
    };
    Status::of(enter())
}

/// Goes back to the group that `objcg_enter` gave as previous one; to the root if that was deleted meanwhile.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_leave(previous: objcg_memcg_t) -> c_int {
    let leave = || {
        let found = find(previous);
        let status = found.as_ref().err().copied();
        memcg::move_into(found.unwrap_or_else(|_| Memcg::root())).ok_or(Status::NoMemory)?;
        status.map_or(Ok(()), Err)
    };
    Status::of(leave())
}

/// The group that the thread has entered; the root if none.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_current() -> objcg_memcg_t {
    memcg::moved_into()
}

fn limit(nr_bytes: u64) -> Option<u64> {
    Some(nr_bytes).filter(|nr_bytes| *nr_bytes != UNLIMITED)
}

/// Sets the limit, or lifts it.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_set_max(group: objcg_memcg_t, nr_bytes: u64) -> c_int {
    Status::of(find(group).and_then(|group| Ok(group.set_max(limit(nr_bytes)).map(drop)?)))
}

/// Sets the soft limit, or lifts it.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_set_high(group: objcg_memcg_t, nr_bytes: u64) -> c_int {
    Status::of(find(group).and_then(|group| Ok(group.set_high(limit(nr_bytes)).map(drop)?)))
}

/// The limit in bytes.
///
/// # Safety
/// `nr_bytes` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_max(group: objcg_memcg_t, nr_bytes: *mut u64) -> c_int {
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(group, nr_bytes, |group| Ok(group.max().unwrap_or(UNLIMITED))) })
}

/// The soft limit in bytes.
///
/// # Safety
/// `nr_bytes` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_high(group: objcg_memcg_t, nr_bytes: *mut u64) -> c_int {
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(group, nr_bytes, |group| Ok(group.high().unwrap_or(UNLIMITED))) })
}

/// Bytes charged to the group and its descendants.
///
/// # Safety
/// `nr_bytes` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_usage(group: objcg_memcg_t, nr_bytes: *mut u64) -> c_int {
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(group, nr_bytes, |group| Ok(group.usage())) })
}

/// The most bytes that were charged at once.
///
/// # Safety
/// `nr_bytes` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_peak(group: objcg_memcg_t, nr_bytes: *mut u64) -> c_int {
    // SAFETY: the caller's contract.
    Status::of(unsafe { put(group, nr_bytes, |group| Ok(group.peak())) })
}

/// Gives back what CPUs hold ready for the group.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_drain(group: objcg_memcg_t) -> c_int {
    Status::of(find(group).map(|group| group.drain()))
}

/// Fills the first `nr_bytes` of what the caller knows as the structure: what this library does not know of it becomes 0.
///
/// # Safety
/// `place` is null, or `nr_bytes` may be written there.
unsafe fn put_sized<T: Copy>(
    group: objcg_memcg_t,
    place: *mut T,
    nr_bytes: usize,
    work: impl FnOnce(&Memcg) -> T,
) -> c_int {
    let put = || {
        if place.is_null() || nr_bytes == 0 {
            return Err(Status::Invalid);
        }
        let value = work(&find(group)?);
        let nr_known = nr_bytes.min(size_of::<T>());
        let bytes = place.cast::<u8>();
        // SAFETY: the caller's contract, and no more than the value has.
        unsafe { bytes.copy_from_nonoverlapping((&raw const value).cast(), nr_known) };
        // SAFETY: the rest of what the caller's contract allows.
        let rest = unsafe { bytes.add(nr_known) };
        // SAFETY: as just said.
        unsafe { rest.write_bytes(0, nr_bytes - nr_known) };
        Ok(())
    };
    Status::of(put())
}

/// What the group holds, found by looking at the whole heap.
///
/// # Safety
/// `stat` has `nr_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_stat(group: objcg_memcg_t, stat: *mut objcg_stat, nr_bytes: usize) -> c_int {
    let look = |group: &Memcg| {
        let stat = group.stat();
        objcg_stat {
            slab_objects: stat.slab_objects,
            slab_bytes: stat.slab_bytes,
            large_objects: stat.large_objects,
            large_bytes: stat.large_bytes,
            percpu_objects: stat.percpu_objects,
            percpu_bytes: stat.percpu_bytes,
            owner_bytes: stat.owner_bytes,
            group_bytes: stat.group_bytes,
            stock_bytes: stat.stock_bytes,
        }
    };
    // SAFETY: the caller's contract.
    unsafe { put_sized(group, stat, nr_bytes, look) }
}

/// How often the group's limits were met.
///
/// # Safety
/// `events` has `nr_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_events(group: objcg_memcg_t, events: *mut objcg_events, nr_bytes: usize) -> c_int {
    let look = |group: &Memcg| {
        let memcg::Events { high, max, oom, oom_kill: _ } = group.events();
        objcg_events { high, max, oom }
    };
    // SAFETY: the caller's contract.
    unsafe { put_sized(group, events, nr_bytes, look) }
}
