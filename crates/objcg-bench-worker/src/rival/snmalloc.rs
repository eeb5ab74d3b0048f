//! snmalloc, by `snmalloc-rs` with its defaults.
#![expect(unsafe_code, reason = "snmalloc's own interface")]

use snmalloc_rs::SnMalloc;
use snmalloc_sys::sn_rust_usable_size;

use crate::object::Object;

#[global_allocator]
static GLOBAL: SnMalloc = SnMalloc;

/// snmalloc knows the size classes of objects, and none for an address on the stack.
pub(crate) fn prove() -> Result<String, String> {
    let [small, large] = [1000, 5000].map(|size| usable(Object::new(size).as_ptr()));
    let of_stack = usable((&raw const small).cast());
    if [small, large, of_stack] != [1024, 5120, 0] {
        return Err(format!("snmalloc sees {small} B in 1000 B, {large} B in 5000 B, {of_stack} B on the stack"));
    }
    Ok(format!("sn_rust_usable_size of 1000 B and 5000 B is {small} B and {large} B, of the stack {of_stack} B"))
}

fn usable(address: *const u8) -> usize {
    // SAFETY: snmalloc looks the address up in its page map, and reads nothing there.
    unsafe { sn_rust_usable_size(address.cast()) }
}
