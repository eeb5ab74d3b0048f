//! Accesses that end in SIGSEGV: somebody may look at the address before the process ends, or goes on.

#![expect(unsafe_code, reason = "system calls, and a signal handler")]

use core::mem::MaybeUninit;
use core::ptr;

use super::keeping_errno;
use crate::sync::{AtomicPtr, Ordering};

/// What to call, a `fn(usize)`.
static LOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// Who handled the signal until now.
static mut BEFORE: MaybeUninit<libc::sigaction> = MaybeUninit::uninit();

/// Has `look` called with the address of every access that ends in SIGSEGV, before whoever handled the signal until now, or the
/// end of the process. It may run in the middle of anything.
pub(crate) fn on_bad_access(look: fn(usize)) {
    // Release pairs with the Acquire in the handler.
    LOOK.store(look as *mut (), Ordering::Release);
    // SAFETY: all zero is a valid sigaction, with an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handle_bad_access as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    let before = (&raw mut BEFORE).cast();
    // SAFETY: the place for the old action is written here, once, and only read by the handler, which is not installed yet.
    keeping_errno(|| unsafe { libc::sigaction(libc::SIGSEGV, ptr::null(), before) });
    // SAFETY: the handler has the signature of SA_SIGINFO.
    keeping_errno(|| unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) });
}

extern "C" fn handle_bad_access(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV's has an address.
    let address = unsafe { info.si_addr() } as usize;
    let look = LOOK.load(Ordering::Acquire);
    // SAFETY: stored before the handler was installed, from a function of this type.
    let look = unsafe { core::mem::transmute::<*mut (), fn(usize)>(look) };
    look(address);
    let before = (&raw const BEFORE).cast();
    // SAFETY: written before the handler was installed. The access is tried again, and is the old action's.
    unsafe { libc::sigaction(libc::SIGSEGV, before, ptr::null_mut()) };
}
