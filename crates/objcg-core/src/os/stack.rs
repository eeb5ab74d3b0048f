//! Who called: return addresses of this thread's stack, and the names of the files that they lie in.

#![expect(unsafe_code, reason = "calls of the C library")]

use core::ffi::{CStr, c_char, c_void};
use core::fmt;

use crate::sync::{AtomicU32, Ordering};

/// A return address; 0 for none.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Caller(pub(crate) usize);

/// The unwinder may allocate when it is first called: the engine's own callers are not asked for meanwhile.
static STATE: AtomicU32 = AtomicU32::new(UNTRIED);
const UNTRIED: u32 = 0;
const TRYING: u32 = 1;
const READY: u32 = 2;

/// Frames that may be the engine's own.
const MAX_OWN: usize = 12;

/// Fills `callers` with return addresses, innermost first, of frames above the engine's; the rest are 0. Takes microseconds.
#[inline(never)]
pub(crate) fn capture<const N: usize>() -> [Caller; N] {
    let mut callers = [Caller(0); N];
    match STATE.compare_exchange(UNTRIED, TRYING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let mut warm_up = [core::ptr::null_mut(); 4];
            unwind(&mut warm_up);
            STATE.store(READY, Ordering::Release);
        }
        Err(TRYING) => return callers,
        Err(_) => {}
    }
    let mut frames = [core::ptr::null_mut(); 32];
    let nr_frames = unwind(&mut frames).min(MAX_OWN + N);
    // Innermost is this function; the caller's own frames are few, and not told apart without symbols.
    let outer = frames.iter().take(nr_frames).skip(1);
    callers.iter_mut().zip(outer).for_each(|(caller, frame)| *caller = Caller(*frame as usize));
    callers
}

#[cfg(target_env = "gnu")]
fn unwind(frames: &mut [*mut c_void]) -> usize {
    // SAFETY: the buffer has room for as many as are asked for.
    let nr_frames = super::keeping_errno(|| unsafe { libc::backtrace(frames.as_mut_ptr(), frames.len() as i32) });
    usize::try_from(nr_frames).unwrap_or(0)
}

/// Other C libraries have no unwinder of their own.
#[cfg(not(target_env = "gnu"))]
fn unwind(_frames: &mut [*mut c_void]) -> usize {
    0
}

impl fmt::Display for Caller {
    /// `file+0x1234`, as addr2line wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut info = libc::Dl_info {
            dli_fname: core::ptr::null::<c_char>(),
            dli_fbase: core::ptr::null_mut(),
            dli_sname: core::ptr::null(),
            dli_saddr: core::ptr::null_mut(),
        };
        // SAFETY: any address may be asked for; `info` is a valid out-parameter.
        let found = unsafe { libc::dladdr(core::ptr::without_provenance(self.0), &raw mut info) };
        if found == 0 || info.dli_fname.is_null() {
            return write!(f, "{:#x}", self.0);
        }
        // SAFETY: the loader's own string, which lives as long as the file is loaded.
        let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        write!(f, "{}+{:#x}", name.escape_ascii(), self.0.wrapping_sub(info.dli_fbase as usize))
    }
}
