//! jemalloc, by `tikv-jemallocator` with its defaults; and an arena of its own for each tenant.
#![expect(unsafe_code, reason = "jemalloc's own interface")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};

use tikv_jemalloc_sys::{MALLOCX_ARENA, MALLOCX_TCACHE_NONE, dallocx, mallctl, mallocx};
use tikv_jemallocator::Jemalloc;

use crate::object::Object;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

/// jemalloc names the arena of an object, and knows none of an address on the stack.
pub(crate) fn prove() -> Result<String, String> {
    let object = Object::new(1000);
    let arena = arena_of(object.as_ptr()).ok_or("jemalloc does not know an object")?;
    if arena_of((&raw const arena).cast()).is_some() {
        return Err("jemalloc claims the stack".to_owned());
    }
    let version: *const c_char = read(c"version").ok_or("no version")?;
    // SAFETY: jemalloc gives a string that stays.
    let version = unsafe { CStr::from_ptr(version) };
    Ok(format!("jemalloc {}, arenas.lookup puts an object in arena {arena}", version.to_string_lossy()))
}

fn arena_of(address: *const u8) -> Option<u32> {
    let mut arena = 0u32;
    let mut len = size_of::<u32>();
    let mut address = address.cast::<c_void>();
    let (out, input) = ((&raw mut arena).cast(), (&raw mut address).cast());
    // SAFETY: the lookup reads an address and writes a u32.
    let refusal = unsafe { mallctl(c"arenas.lookup".as_ptr(), out, &raw mut len, input, size_of::<*const c_void>()) };
    (refusal == 0).then_some(arena)
}

/// Reads a value whose type is `T`.
fn read<T>(name: &CStr) -> Option<T> {
    let mut value = std::mem::MaybeUninit::<T>::uninit();
    let mut len = size_of::<T>();
    // SAFETY: the callers name values of their types; jemalloc checks the length.
    let refusal = unsafe { mallctl(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut len, ptr::null_mut(), 0) };
    // SAFETY: written, if it was not refused.
    (refusal == 0).then(|| unsafe { value.assume_init() })
}

/// An arena. Its objects pass by the thread's cache, which would mix the tenants.
pub(crate) struct Heap {
    arena: u32,
    flags: i32,
}

impl Heap {
    pub(crate) fn new() -> Result<Heap, String> {
        let arena: u32 = read(c"arenas.create").ok_or("jemalloc has no arena left")?;
        Ok(Heap { arena, flags: MALLOCX_ARENA(arena as usize) | MALLOCX_TCACHE_NONE })
    }

    #[inline(always)]
    pub(crate) fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the size is not 0 and the arena lives.
        NonNull::new(unsafe { mallocx(size, self.flags) }.cast())
    }

    /// # Safety
    /// `object` is of this heap, and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: by the contract of this function.
        unsafe { dallocx(object.as_ptr().cast(), MALLOCX_TCACHE_NONE) };
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let name = format!("arena.{}.destroy\0", self.arena);
        // SAFETY: tenants free their objects first, and no thread is bound to the arena.
        let refusal = unsafe { mallctl(name.as_ptr().cast(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) };
        assert!(refusal == 0, "jemalloc does not destroy arena {}", self.arena);
    }
}
