//! `OBJCG_OPTIONS`: each fault that an option finds is shown with the one line that reports it, and programs without faults run
//! as they do without options.
//!
//! Each case runs in a child process of its own: this test binary again, with the case's name and the options in the environment.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::ptr::NonNull;
use std::thread;

use objcg::{Memcg, Objcg};
use objcg_core::kmalloc;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const CASE: &str = "OBJCG_TEST_CASE";
const EVERYTHING: &str = "poison:redzone:stack:random:guard_pages:quarantine=256k";
const MIB: usize = 1 << 20;

fn run_child(test: &str, case: &str, options: &str) -> Output {
    let mut child = Command::new(std::env::current_exe().expect("the test's own path"));
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, case).env("OBJCG_OPTIONS", options);
    child.output().expect("the test can run itself")
}

fn alloc(nr_bytes: usize) -> NonNull<u8> {
    kmalloc::alloc(nr_bytes, 8).expect("memory")
}

fn free(address: NonNull<u8>) {
    // SAFETY: not met where a fault is committed on purpose: that is what the children are for.
    unsafe { kmalloc::free(address) };
}

/// Writes a byte, wherever that is.
fn write(address: NonNull<u8>, offset: isize) {
    // SAFETY: not met: the fault.
    unsafe { address.as_ptr().wrapping_offset(offset).write_volatile(0x11) };
}

/// Allocates many of a size, so that whatever waits free is used again.
fn use_up(nr_bytes: usize) {
    let taken: Vec<_> = (0..5000).map(|_| alloc(nr_bytes)).collect();
    taken.into_iter().for_each(free);
}

fn commit(fault: &str) {
    // Neighbours in use, so that the slab does not go.
    let _neighbours = [alloc(100), alloc(100)];
    let object = alloc(100);
    match fault {
        "write after free" => {
            free(object);
            write(object, 60);
            use_up(100);
        }
        "one past the end" => {
            write(object, 100);
            free(object);
        }
        "one past the end, then realloc" => {
            write(object, 100);
            // SAFETY: met, but for the fault.
            let _ = unsafe { kmalloc::realloc(object, 50, 8) };
        }
        "five past the end of a large one" => {
            let large = alloc(100_001);
            write(large, 100_005);
            free(large);
        }
        "one past the end of a huge one" => {
            let huge = alloc(5 * MIB + 1);
            write(huge, (5 * MIB + 1) as isize);
            free(huge);
        }
        "far past the end" => {
            (100..200).for_each(|offset| write(object, offset));
            free(object);
        }
        "before the start" => {
            let behind: Vec<_> = (0..100).map(|_| alloc(100)).collect();
            behind.iter().for_each(|object| write(*object, -1));
            behind.into_iter().for_each(free);
        }
        "double free" => {
            free(object);
            (0..10).map(|_| alloc(100)).for_each(free);
            free(object);
        }
        "double free of a large one" => {
            let large = alloc(100_000);
            free(large);
            free(large);
        }
        "double free on another thread" => {
            free(object);
            let address = object.as_ptr().expose_provenance();
            let again = move || free(NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("not null"));
            let _ = thread::spawn(again).join();
        }
        "read past a guarded one" => {
            let guarded = alloc(100_000);
            // SAFETY: not met: the fault.
            let _ = unsafe { guarded.as_ptr().wrapping_add(102_400).read_volatile() };
        }
        "read before a guarded one" => {
            let guarded = alloc(100_000);
            // SAFETY: not met: the fault.
            let _ = unsafe { guarded.as_ptr().wrapping_sub(1).read_volatile() };
        }
        other => panic!("{other}"),
    }
}

/// The options, the fault, and what the line says of it.
const FAULTS: [(&str, &str, &str); 16] = [
    ("poison", "write after free", "written to after it was freed, at byte 60: an object of 100 bytes"),
    ("poison:quarantine=64k", "write after free", "written to after it was freed, at byte 60"),
    ("slub_debug=P", "write after free", "written to after it was freed, at byte 60"),
    ("redzone", "one past the end", "written 1 bytes past its end: an object of 100 bytes"),
    ("slub_debug=Z", "one past the end", "written 1 bytes past its end: an object of 100 bytes"),
    ("redzone", "one past the end, then realloc", "written 1 bytes past its end: an object of 100 bytes"),
    ("redzone", "five past the end of a large one", "written 5 bytes past its end: an object of 100001 bytes"),
    ("redzone", "one past the end of a huge one", "written 1 bytes past its end: an object of 5242881 bytes"),
    ("redzone", "far past the end", "what is behind an object is overwritten"),
    ("redzone", "before the start", "what is behind an object is overwritten"),
    ("quarantine=64k", "double free", "double free: an object of 100 bytes"),
    ("quarantine=64k", "double free on another thread", "double free: an object of 100 bytes"),
    ("guard_pages", "read past a guarded one", "touched 0 bytes past its 102400 bytes"),
    ("guard_pages", "read before a guarded one", "touched 1 bytes before its start"),
    ("guard_pages", "double free of a large one", "foreign, or freed already"),
    ("stack:redzone", "one past the end", "allocated by hardening-"),
];

#[test]
fn i9_each_option_reports_its_faults_in_one_line() {
    if let Ok(fault) = std::env::var(CASE) {
        return commit(&fault);
    }
    // SAFETY: looks a name up.
    let has_stacks = !unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"backtrace".as_ptr()) }.is_null();
    for (options, fault, expected) in FAULTS.iter().filter(|(options, ..)| has_stacks || !options.contains("stack")) {
        let output = run_child("i9_each_option_reports_its_faults_in_one_line", fault, options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{options}, {fault}: {stderr}");
        assert!(stderr.starts_with("objcg: 0x") && stderr.lines().count() == 1, "{options}, {fault}: {stderr}");
        assert!(stderr.contains(expected), "{options}, {fault}: {stderr}");
    }
}

/// Runs `case` of `test` as a child that must end well; true in the child.
fn is_child_of(test: &str, options: &str) -> Option<String> {
    if let Ok(case) = std::env::var(CASE) {
        assert_eq!(case, test);
        return None;
    }
    let output = run_child(test, test, options);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{options}: {stderr} {}", String::from_utf8_lossy(&output.stdout));
    Some(stderr)
}

#[test]
fn the_faults_are_not_found_without_their_option() {
    let harmless = ["write after free", "one past the end"];
    for fault in harmless {
        let output = run_child("i9_each_option_reports_its_faults_in_one_line", fault, "");
        assert!(output.status.success(), "{fault}: what the options are for");
    }
}

#[test]
fn i1_a_sound_program_runs_as_ever_with_every_option() {
    let test = "i1_a_sound_program_runs_as_ever_with_every_option";
    if let Some(stderr) = is_child_of(test, EVERYTHING) {
        return assert_eq!(stderr, "", "nothing is reported");
    }
    let tenant = Memcg::root().create("sound").expect("a new name");
    let work = |nth: usize| {
        let mut texts = Vec::new();
        for round in 0..2000usize {
            texts.push(vec![round as u8; 1 + (round * 37 + nth) % 9000]);
            if round % 3 == 0 {
                let picked = round * 7 % texts.len();
                texts.swap_remove(picked).extend_from_slice(&[0; 100]);
            }
        }
        texts.push(vec![1; 300_000]);
        texts.push(vec![0; 6 * MIB]);
        assert!(texts.iter().all(|text| text.iter().all(|byte| *byte == text[0])), "contents stay");
    };
    thread::scope(|scope| {
        for nth in 0..3 {
            let tenant = &tenant;
            scope.spawn(move || tenant.scope(|| work(nth)));
        }
    });
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.stat().total_bytes()), (0, 0), "what waits in quarantine is nobody's");
}

#[test]
fn a_reports_size_is_the_usable_size() {
    if is_child_of("a_reports_size_is_the_usable_size", "redzone").is_some() {
        return;
    }
    for nr_bytes in [0, 1, 100, 5000, 100_000, 5 * MIB] {
        for align in [8, 64, 4096] {
            let object = kmalloc::alloc(nr_bytes, align).expect("memory");
            assert!(object.as_ptr().addr().is_multiple_of(align));
            // SAFETY: live.
            assert_eq!(unsafe { kmalloc::usable_size(object) }, nr_bytes);
            free(object);
        }
    }
}

#[test]
fn objects_wait_in_quarantine() {
    if is_child_of("objects_wait_in_quarantine", "quarantine=64k").is_some() {
        return;
    }
    let object = alloc(1000);
    free(object);
    let mut nr_others = 0;
    while alloc(1000) != object {
        nr_others += 1;
        // Each free sends an older one on.
        free(alloc(1000));
        assert!(nr_others < 5000, "it comes back");
    }
    assert!(nr_others >= (64 << 10) / 2048, "after {nr_others} others only");
}

#[test]
fn free_objects_are_handed_out_in_random_order() {
    let test = "free_objects_are_handed_out_in_random_order";
    if is_child_of(test, "random").is_some() {
        return;
    }
    let mut freed: Vec<_> = (0..24).map(|_| alloc(500)).collect();
    freed.iter().for_each(|object| free(*object));
    freed.reverse();
    let mut taken = Vec::with_capacity(24);
    taken.extend((0..24).map(|_| alloc(500)));
    // By chance the same once in more than 24!/50.
    assert_ne!(taken, freed, "last in, first out");
}

#[test]
fn what_is_no_option_is_named_and_ignored() {
    let test = "what_is_no_option_is_named_and_ignored";
    let Some(stderr) = is_child_of(test, "posion:quarantine=lots") else { return drop(vec![1; 100]) };
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(
        lines,
        [
            "objcg: OBJCG_OPTIONS: there is no option posion; it is ignored",
            "objcg: OBJCG_OPTIONS: quarantine=lots: not a value of this option; it is ignored"
        ]
    );
}

#[test]
fn i8_ordered_faults_fail_allocations_and_leave_nothing() {
    let test = "i8_ordered_faults_fail_allocations_and_leave_nothing";
    if is_child_of(test, "fail_charge_probability=0.25:fail_os_probability=0.1:seed=7").is_some() {
        return;
    }
    let tenant = loop {
        if let Ok(tenant) = Memcg::root().create("unlucky") {
            break tenant;
        }
    };
    let mut held = Vec::with_capacity(1000);
    let mut nr_failed = 0;
    for nth in 0..1000usize {
        match tenant.scope(|| kmalloc::alloc(1 + nth * nth % 70_000, 8)) {
            Some(object) => held.push(object),
            None => nr_failed += 1,
        }
    }
    assert!((100..500).contains(&nr_failed), "{nr_failed} of 1000 failed");
    tenant.drain();
    assert_eq!(tenant.usage(), tenant.stat().total_bytes());
    held.into_iter().for_each(free);
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn an_ordered_failure_of_a_charge_fails_just_that_one() {
    if is_child_of("an_ordered_failure_of_a_charge_fails_just_that_one", "fail_charge=3").is_some() {
        return;
    }
    // Of a group's own memory and of two objects of other sizes, the third charge is the last.
    let tenant = Memcg::root().create("third").expect("the first charge");
    let found = tenant.scope(|| [40, 400, 4000].map(|nr_bytes| kmalloc::alloc(nr_bytes, 8).is_some()));
    assert_eq!(found, [true, false, true]);
}
