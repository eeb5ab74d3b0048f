//! `accounting-allocator` over mimalloc v3: a counter a thread.

use accounting_allocator::AccountingAlloc;
use mimalloc::MiMalloc;

use crate::object::Object;

#[global_allocator]
static GLOBAL: AccountingAlloc<MiMalloc> = AccountingAlloc::with_allocator(MiMalloc);

/// The counter of allocated bytes follows an object.
pub(crate) fn prove() -> Result<String, String> {
    let before = GLOBAL.count().all_time.alloc;
    drop(Object::new(1_000_000));
    let counted = GLOBAL.count().all_time.alloc - before;
    if counted < 1_000_000 {
        return Err(format!("accounting-allocator counted {counted} bytes of 1,000,000"));
    }
    Ok(format!("accounting-allocator counted {counted} B of 1,000,000 B"))
}
