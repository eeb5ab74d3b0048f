//! Processes and threads without registration, with their own, and with fewer CPUs than the machine has.

use std::thread;

use objcg_rseq::{
    Registration, THREAD_WORD_AT_FIRST, current_cpu, init, register_thread, registration, unregister_thread,
};

use crate::area::{Area, nr_cpus, object};
use crate::child::{NO_LIBC_RSEQ, in_child};
use crate::storm::pin;

fn all_give_up(area: Area) {
    assert_eq!(current_cpu(), None);
    assert!(!area.add(1));
    assert!(!area.push(object(0)));
    assert_eq!(area.pop(), None);
    assert!(!area.compare_add(0, 1));
    assert_eq!(area.exchange_top(0, area.stopper_top(0)), None);
    assert_eq!(area.count(), 0);
    assert!(area.drain_all().is_empty());
}

fn all_work(area: Area) {
    assert!(area.add(1));
    assert!(area.add(u64::MAX));
    assert_eq!(area.count(), 0);
    assert!(area.compare_add(0, 1));
    let number = area.drain_all().len();
    assert!(area.push(object(number)));
    assert_eq!(area.drain_all().len(), number + 1);
}

/// What `init` finds where nothing is forbidden: glibc has registered since 2.35, others leave it to the program.
fn usual_registration() -> Registration {
    // SAFETY: the name is a string of C's.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) };
    if offset.is_null() { Registration::Own } else { Registration::Libc }
}

fn in_a_thread(work: impl FnOnce() + Send + 'static) {
    thread::spawn(work).join().expect("the thread ends well");
}

#[test]
fn nothing_is_registered_before_init() {
    in_child("worlds::nothing_is_registered_before_init", &[], || {
        let area = Area::without_init();
        assert_eq!(current_cpu(), None);
        assert_eq!(registration(), Registration::Absent);
        assert!(!register_thread());
        assert!(!objcg_rseq::fence(0), "the kernel was not asked for it");
        unregister_thread();
        assert_eq!(init(nr_cpus()), usual_registration());
        all_work(area);
        assert_eq!(init(1), usual_registration(), "the first call counts");
        assert!(pin(0, nr_cpus() - 1));
        all_work(area);
    });
}

#[test]
fn where_libc_registers_threads_need_not() {
    if usual_registration() != Registration::Libc {
        return;
    }
    in_child("worlds::where_libc_registers_threads_need_not", &[], || {
        let area = Area::new();
        in_a_thread(move || {
            all_work(area);
            assert!(register_thread());
            unregister_thread();
            all_work(area);
        });
    });
}

#[test]
fn a_thread_registers_and_unregisters_itself_once() {
    in_child("worlds::a_thread_registers_and_unregisters_itself_once", &[NO_LIBC_RSEQ], || {
        assert_eq!(init(nr_cpus()), Registration::Own);
        in_a_thread(|| {
            let (untouched, area) = (Area::new(), Area::new());
            all_give_up(untouched);
            assert!(register_thread());
            assert!(register_thread());
            all_work(area);
            unregister_thread();
            all_give_up(untouched);
            assert!(!register_thread(), "it is for good");
            all_give_up(untouched);
            unregister_thread();
        });
        all_work(Area::new());
    });
}

#[test]
fn threads_with_own_registration_end_cleanly() {
    in_child("worlds::threads_with_own_registration_end_cleanly", &[NO_LIBC_RSEQ], || {
        let area = Area::new();
        for _ in 0..50 {
            let threads: Vec<_> = (0..20)
                .map(|_| {
                    thread::spawn(move || {
                        assert!(register_thread());
                        assert!(area.add(1));
                        unregister_thread();
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("the thread ends well"));
        }
        assert_eq!(area.count(), 1_000);
    });
}

fn only_cpu_0_has_data(expected: Registration) {
    if nr_cpus() < 2 {
        return;
    }
    let area = Area::without_init();
    area.close(1);
    assert!(pin(0, 1));
    assert_eq!(init(1), expected);
    in_a_thread(move || {
        assert!(pin(0, 1));
        assert!(register_thread());
        all_give_up(area);
        assert!(register_thread(), "it is, though its CPU has no data");
        assert!(pin(0, 0));
        all_work(Area::without_init());
        assert!(pin(0, 1));
        unregister_thread();
        assert!(pin(0, 0));
        assert_eq!(area.add(1), expected == Registration::Libc);
    });
}

#[test]
fn on_a_cpu_without_data_all_give_up() {
    in_child("worlds::on_a_cpu_without_data_all_give_up", &[], || only_cpu_0_has_data(usual_registration()));
}

#[test]
fn on_a_cpu_without_data_threads_register_and_unregister() {
    let name = "worlds::on_a_cpu_without_data_threads_register_and_unregister";
    in_child(name, &[NO_LIBC_RSEQ], || only_cpu_0_has_data(Registration::Own));
}

#[test]
fn each_thread_has_its_word() {
    assert_eq!(objcg_rseq::HAS_THREAD_WORD, cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));
    in_a_thread(|| {
        assert_eq!(objcg_rseq::replace_thread_word(3), THREAD_WORD_AT_FIRST);
        assert_eq!(objcg_rseq::thread_word(), 3);
        in_a_thread(|| assert_eq!(objcg_rseq::thread_word(), THREAD_WORD_AT_FIRST));
        assert_eq!(objcg_rseq::thread_word(), 3);
    });
}
