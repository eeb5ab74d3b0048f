//! The same work in worlds where something is missing or too much: system calls, CPUs, memory, threads, stacks, signals.
//!
//! Each test is a process of its own. The work leaves nothing behind: usage, vessels and dying groups are 0 afterwards (I1, I4,
//! I8, I10).

#[path = "support/fork.rs"]
mod fork;
#[path = "support/process.rs"]
mod process;
#[path = "support/stop.rs"]
mod stop;

use std::cell::RefCell;
use std::future::{Future, pending};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;

use fork::in_child_of_fork;
use objcg::{FutureExt, Memcg, Objcg, OomPolicy, PerCpuCounter};
use process::in_own_process;
use stop::Stop;

#[path = "support/groups.rs"]
mod groups;
use groups::group;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const MIB: usize = 1 << 20;
const NO_LIBC_RSEQ: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

fn nothing_is_left(tenant: Memcg) {
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.stat().total_bytes()), (0, 0));
    tenant.delete().expect("alive, and without children");
    drop(tenant);
    Memcg::root().drain();
    assert_eq!((objcg::nr_groups(), objcg::nr_dying(), objcg::nr_vessels()), (0, 0, 0));
}

/// Threads that make objects, hand them on and free each other's; a counter; a limit; a death with survivors.
fn work_as_ever() {
    const NR_THREADS: usize = 4;
    const NR_OBJECTS: usize = 3_000;
    let tenant = group("tenant");
    let counter = PerCpuCounter::new().expect("memory");
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for nth in 0..NR_THREADS {
            let (send, receive) = mpsc::sync_channel::<Vec<u8>>(64);
            let (tenant, counter) = (&tenant, &counter);
            threads.push(scope.spawn(move || {
                let _inside = tenant.enter();
                for number in 0..NR_OBJECTS {
                    let nr_bytes = 1 + (number * 37 + nth * 911) % 5_000;
                    send.send(vec![number as u8; nr_bytes]).expect("the other thread listens");
                }
            }));
            threads.push(scope.spawn(move || {
                for (number, object) in receive.into_iter().enumerate() {
                    assert!(object.iter().all(|byte| *byte == number as u8));
                    counter.add(1);
                }
            }));
        }
        // To their very ends: what a channel has left for a thread is the thread's until then, and the tenant's.
        threads.into_iter().for_each(|thread| thread.join().expect("nothing panics"));
    });
    assert_eq!(counter.sum(), (NR_THREADS * NR_OBJECTS) as i64);
    drop(counter);
    tenant.drain();
    tenant.set_max(Some(tenant.usage() + 4 * MIB as u64)).expect("alive");
    assert!(tenant.scope(|| Vec::<u8>::new().try_reserve_exact(8 * MIB)).is_err());
    tenant.set_max(None).expect("alive");
    let parent = group("parent");
    let child = parent.create("child").expect("a new name");
    let survivors = child.scope(|| (0..100).map(|number| vec![number as u8; 200]).collect::<Vec<_>>());
    child.delete().expect("alive, and without children");
    drop(child);
    parent.drain();
    assert_eq!(parent.stat().slab_objects + parent.stat().large_objects, 101);
    drop(survivors);
    parent.drain();
    assert_eq!(parent.usage(), 0);
    drop(parent);
    nothing_is_left(tenant);
}

#[test]
fn where_libc_registers_no_thread() {
    let name = "where_libc_registers_no_thread";
    if in_own_process(name, |child| {
        child.env(NO_LIBC_RSEQ.0, NO_LIBC_RSEQ.1);
    }) {
        work_as_ever();
    }
}

/// Has a system call answer that the kernel does not know it.
fn without(child: &mut Command, call: libc::c_long) {
    const LOAD_NUMBER: libc::sock_filter = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    const ALLOW: libc::sock_filter = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    const REFUSE: libc::sock_filter =
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::ENOSYS as u32 };
    let filter = move || {
        let is_it = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: call as u32 };
        let mut program = [LOAD_NUMBER, is_it, REFUSE, ALLOW];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: this option takes numbers only.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the program has that many instructions, and the kernel copies them.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: both calls are safe between fork and exec.
    unsafe { child.pre_exec(filter) };
}

fn is_unknown(call: libc::c_long) -> bool {
    // SAFETY: if the kernel knows the call after all, it refuses these arguments: null, and commands that do not exist.
    let answer = unsafe { libc::syscall(call, 0, -1, 0, 0) };
    answer == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
}

#[test]
fn where_the_kernel_has_no_rseq() {
    if in_own_process("where_the_kernel_has_no_rseq", |child| without(child, libc::SYS_rseq)) {
        assert!(is_unknown(libc::SYS_rseq));
        work_as_ever();
    }
}

#[test]
fn where_the_kernel_has_no_fence() {
    if in_own_process("where_the_kernel_has_no_fence", |child| without(child, libc::SYS_membarrier)) {
        assert!(is_unknown(libc::SYS_membarrier));
        work_as_ever();
    }
}

#[test]
fn where_the_kernel_gives_no_memory_back() {
    if in_own_process("where_the_kernel_gives_no_memory_back", |child| without(child, libc::SYS_madvise)) {
        assert!(is_unknown(libc::SYS_madvise));
        work_as_ever();
        for _ in 0..20 {
            // What was not given back must not be taken for zeroes.
            drop(vec![0xa5_u8; 3 * MIB]);
            assert!(vec![0_u8; 3 * MIB].iter().all(|byte| *byte == 0));
        }
    }
}

/// Private memory that may be written to is what strict overcommit counts, and what this limit counts as well: the kernel
/// refuses to commit parts of a reservation that it has allowed.
#[test]
fn where_reserved_memory_is_refused() {
    const LIMIT: u64 = 256 << 20;
    let limit_data = |child: &mut Command| {
        let lower = || {
            let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
            // SAFETY: `limit` is a valid rlimit.
            match unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: setrlimit is safe between fork and exec.
        unsafe { child.pre_exec(lower) };
    };
    if !in_own_process("where_reserved_memory_is_refused", limit_data) {
        return;
    }
    work_as_ever();
    let tenant = group("cramped");
    // The largest first, which are mappings of their own: what the region has committed stays so, and counts.
    for nr_bytes in [40 * MIB, 3 * MIB, 100_000, 3_000] {
        let mut held = Vec::with_capacity(1 << 17);
        while held.len() < held.capacity() {
            let mut vec = Vec::<u8>::new();
            if tenant.scope(|| vec.try_reserve_exact(nr_bytes)).is_err() {
                break;
            }
            held.push(vec);
        }
        // A test that fails needs memory: there is none before this.
        let nr_held = held.len();
        drop(held);
        assert!((64 * MIB..256 * MIB).contains(&(nr_held * nr_bytes)), "{nr_held} of {nr_bytes} bytes");
        tenant.drain();
        assert_eq!((tenant.usage(), tenant.stat().total_bytes()), (0, 0));
    }
    nothing_is_left(tenant);
}

struct Last(RefCell<Vec<String>>);

impl Drop for Last {
    fn drop(&mut self) {
        let texts = self.0.take();
        let more = (0..50).map(|number| format!("{number} of {}", texts.len())).collect::<Vec<_>>();
        NR_LAST_WORDS.fetch_add(texts.len() + more.len(), Ordering::Relaxed);
    }
}

static NR_LAST_WORDS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static FIRST: Last = const { Last(RefCell::new(Vec::new())) };
    static SECOND: Last = const { Last(RefCell::new(Vec::new())) };
}

/// Destructors of thread-local variables that allocate and free, before and after the engine's own end of the thread.
fn ends_of_threads_allocate() {
    let tenant = group("ending");
    for _ in 0..200 {
        let tenant = &tenant;
        thread::scope(|scope| {
            scope.spawn(move || {
                FIRST.with(|first| first.0.borrow_mut().push("first".to_owned()));
                let _inside = tenant.enter();
                SECOND.with(|second| second.0.borrow_mut().push("second".to_owned()));
            });
        });
    }
    // A scope ends before its threads' variables do.
    while NR_LAST_WORDS.load(Ordering::Relaxed) < 200 * 102 {
        thread::yield_now();
    }
    nothing_is_left(tenant);
}

#[test]
fn where_the_ends_of_threads_allocate() {
    if in_own_process("where_the_ends_of_threads_allocate", |_| ()) {
        ends_of_threads_allocate();
    }
}

#[test]
fn where_the_ends_of_threads_allocate_and_libc_registers_none() {
    let name = "where_the_ends_of_threads_allocate_and_libc_registers_none";
    if in_own_process(name, |child| {
        child.env(NO_LIBC_RSEQ.0, NO_LIBC_RSEQ.1);
    }) {
        ends_of_threads_allocate();
    }
}

#[test]
fn i10_ten_thousand_threads_leave_no_memory_behind() {
    const NR_THREADS: usize = 10_000;
    const AT_ONCE: usize = 50;
    if !in_own_process("i10_ten_thousand_threads_leave_no_memory_behind", |_| ()) {
        return;
    }
    let tenant = group("crowd");
    let crowd = |nr_threads: usize| {
        for _ in 0..nr_threads / AT_ONCE {
            thread::scope(|scope| {
                for nth in 0..AT_ONCE {
                    let tenant = &tenant;
                    scope.spawn(move || tenant.scope(|| drop(vec![vec![1u8; 100 + nth]; 40])));
                }
            });
        }
        tenant.drain();
        assert_eq!(tenant.usage(), 0);
        objcg_core::stat::pages().used_bytes
    };
    let before = crowd(1_000);
    let after = crowd(NR_THREADS - 1_000);
    assert!(after <= before + MIB, "{after} bytes in use, {before} before nine thousand threads more");
    nothing_is_left(tenant);
}

#[test]
fn where_stacks_are_huge() {
    if !in_own_process("where_stacks_are_huge", |_| ()) {
        return;
    }
    let threads = (0..8).map(|_| thread::Builder::new().stack_size(1 << 30).spawn(work_in_a_group));
    let threads = threads.collect::<Result<Vec<_>, _>>().expect("address space for eight stacks of 1 GiB");
    threads.into_iter().for_each(|thread| thread.join().expect("the thread ends well"));
    Memcg::root().drain();
    assert_eq!((objcg::nr_groups(), objcg::nr_vessels()), (0, 0));
}

fn work_in_a_group() {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let tenant = group(&format!("of a thread {}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    for number in 1..2_000 {
        drop(tenant.scope(|| vec![0u8; number * 7]));
    }
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

extern "C" fn nothing(_: libc::c_int) {}

/// The timer's signal hits threads wherever they are, in sections as well: 5,000 times a second of CPU time.
#[test]
fn where_signals_interrupt_at_any_time() {
    if !in_own_process("where_signals_interrupt_at_any_time", |_| ()) {
        return;
    }
    // SAFETY: the handler is a function of the program, and does nothing.
    let before = unsafe { libc::signal(libc::SIGPROF, nothing as *const () as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
    let every = libc::timeval { tv_sec: 0, tv_usec: 200 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: `timer` is valid, and the old one is not wanted.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) }, 0);
    for _ in 0..5 {
        work_as_ever();
    }
}

/// Children by `vfork` (std's way of starting a program) and by `fork` while threads allocate: the children allocate as well.
#[test]
fn where_threads_allocate_while_processes_start() {
    if !in_own_process("where_threads_allocate_while_processes_start", |_| ()) {
        return;
    }
    let tenant = group("parent process");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for nth in 0..3 {
            let (tenant, stop) = (&tenant, &stop);
            scope.spawn(move || {
                let mut number = nth;
                while !stop.load(Ordering::Relaxed) {
                    number = (number * 37 + 11) % 70_000;
                    drop(tenant.scope(|| vec![1u8; 1 + number]));
                }
            });
        }
        let _stop = Stop(&stop);
        for _ in 0..60 {
            let mut spawned = Command::new("/bin/true");
            let status = spawned.stdin(Stdio::null()).status().expect("/bin/true is there");
            assert!(status.success());
            in_child_of_fork(|| {
                let texts = tenant.scope(|| (0..200).map(|number| vec![7u8; number * 11]).collect::<Vec<_>>());
                texts.iter().all(|text| text.iter().all(|byte| *byte == 7))
            });
        }
    });
    nothing_is_left(tenant);
}

/// The default that `Memcg::root` sets is set by whatever gives the first group.
#[test]
fn kill_is_the_default_where_the_root_was_never_asked_for() {
    if !in_own_process("kill_is_the_default_where_the_root_was_never_asked_for", |_| {}) {
        return;
    }
    let tenant = Memcg::current().create("tenant").expect("a new name");
    assert_eq!(tenant.oom_policy(), OomPolicy::Kill);
}

/// A waker that tells.
struct Tells(mpsc::Sender<()>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.send(()).expect("the test waits for it");
    }
}

/// Waits for it for ever, if no thread wakes futures of killed groups, and those that are held back.
fn futures_are_woken(tenant: &Memcg) {
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tells(sender)));
    let mut waiting = Box::pin(pending::<()>().in_memcg(tenant));
    let mut killed = Box::pin(tenant.killed());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(killed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    tenant.kill().expect("alive");
    (0..2).for_each(|_| woken.recv().expect("the wakers are kept"));
    drop((waiting, killed));
    tenant.revive().expect("it was killed");
}

#[test]
fn a_child_of_fork_has_threads_of_its_own_that_wake_futures() {
    if !in_own_process("a_child_of_fork_has_threads_of_its_own_that_wake_futures", |_| {}) {
        return;
    }
    let tenant = group("tenant");
    futures_are_woken(&tenant);
    // The parent's other threads sleep, and hold no lock.
    in_child_of_fork(|| {
        futures_are_woken(&tenant);
        true
    });
    futures_are_woken(&tenant);
}
