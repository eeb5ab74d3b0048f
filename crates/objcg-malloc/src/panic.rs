//! A panic, which would be a bug of the engine: one line, without allocating, and the end.

#![expect(unsafe_code, reason = "calls libc, and defines a symbol")]

use core::panic::PanicInfo;

use crate::Line;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let line = Line::<256>::of(format_args!("objcg: {info}\n"));
    // SAFETY: a valid buffer of the length that is passed.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_bytes().as_ptr().cast(), line.as_bytes().len()) };
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
}

// Named by the unwind tables of the precompiled `core`. Nothing unwinds through this library, so nobody calls it. Hidden, so that
// it is not taken for that of other libraries.
core::arch::global_asm!(
    ".pushsection .text.rust_eh_personality, \"ax\"",
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality, @function",
    "rust_eh_personality:",
    ".byte 0, 0, 0, 0",
    ".size rust_eh_personality, 4",
    ".popsection",
);
