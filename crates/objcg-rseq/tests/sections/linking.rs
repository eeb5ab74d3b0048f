//! The crate inside of a library that is loaded late, into threads that run already.

use std::env;
use std::ffi::CString;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use crate::child::{NO_LIBC_RSEQ, in_child};

const NR_THREADS: usize = 4;
const NR_ADDITIONS: u32 = 10_000;

#[derive(Clone, Copy)]
struct Library {
    init: extern "C" fn() -> u32,
    add: extern "C" fn(u32) -> u32,
    sum: extern "C" fn() -> u64,
}

/// The example, which cargo builds beside the tests if it builds all of them.
fn path() -> Option<PathBuf> {
    let this = env::current_exe().expect("the test's own path");
    let path = this.parent()?.parent()?.join("examples").join("libcounting_library.so");
    path.exists().then_some(path)
}

/// Loads it; never unloaded, as the kernel may still hold an address in it.
fn load(path: &Path) -> Library {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path without zeroes");
    // SAFETY: the path is a string; the library has nothing that runs when it is loaded.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null());
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the library is loaded.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!symbol.is_null());
        symbol
    };
    // SAFETY: the type is that of the library's function.
    let init = unsafe { mem::transmute::<*mut libc::c_void, extern "C" fn() -> u32>(symbol(c"counting_init")) };
    // SAFETY: as above.
    let add = unsafe { mem::transmute::<*mut libc::c_void, extern "C" fn(u32) -> u32>(symbol(c"counting_add")) };
    // SAFETY: as above.
    let sum = unsafe { mem::transmute::<*mut libc::c_void, extern "C" fn() -> u64>(symbol(c"counting_sum")) };
    Library { init, add, sum }
}

fn count_in_a_library() {
    let Some(path) = path() else {
        println!("not tested: run `cargo test -p objcg-rseq`, which builds the example as well");
        return;
    };
    let threads: Vec<_> = (0..NR_THREADS)
        .map(|_| {
            let (sender, receiver) = mpsc::channel::<Library>();
            let thread = thread::spawn(move || (receiver.recv().expect("the library is loaded").add)(NR_ADDITIONS));
            (sender, thread)
        })
        .collect();
    let library = load(&path);
    assert_eq!((library.init)(), 1);
    threads.iter().for_each(|(sender, _)| sender.send(library).expect("the thread waits"));
    let nr_added: u32 = threads.into_iter().map(|(_, thread)| thread.join().expect("the thread ends well")).sum();
    assert_eq!(nr_added, NR_THREADS as u32 * NR_ADDITIONS);
    assert_eq!((library.sum)(), u64::from(nr_added));
}

#[test]
fn threads_that_ran_before_a_library_was_loaded_count_in_it() {
    in_child("linking::threads_that_ran_before_a_library_was_loaded_count_in_it", &[], count_in_a_library);
}

#[test]
fn threads_that_ran_before_a_library_was_loaded_register_in_it() {
    let name = "linking::threads_that_ran_before_a_library_was_loaded_register_in_it";
    in_child(name, &[NO_LIBC_RSEQ], count_in_a_library);
}
