//! `cap` over mimalloc v3: one counter and one limit for the process.

use cap::Cap;
use mimalloc::MiMalloc;

use crate::object::Object;

#[global_allocator]
static GLOBAL: Cap<MiMalloc> = Cap::new(MiMalloc, 1 << 40);

/// The counter follows an object.
pub(crate) fn prove() -> Result<String, String> {
    let before = GLOBAL.allocated();
    let object = Object::new(1_000_000);
    let counted = GLOBAL.allocated() - before;
    drop(object);
    let left = GLOBAL.allocated() - before;
    if counted != 1_000_000 || left != 0 {
        return Err(format!("cap counted {counted} bytes of 1,000,000 and {left} of none"));
    }
    Ok(format!("cap counted {counted} B of 1,000,000 B"))
}
