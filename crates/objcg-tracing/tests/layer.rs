//! Spans and groups: what is current while spans are entered, left in any order, recorded, dropped, and moved between threads.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::thread;

use objcg::{Memcg, Objcg};
use objcg_tracing::MemcgLayer;
use tracing::field::Empty;
use tracing::{Dispatch, Instrument, dispatcher, info_span};
use tracing_subscriber::layer::SubscriberExt;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Runs `work` with a layer that makes groups below a new one of that name.
fn with_layer<R>(name: &str, work: impl FnOnce(&Memcg) -> R) -> R {
    let server = Memcg::root().create(name).expect("a new name");
    let result = tracing::subscriber::with_default(
        tracing_subscriber::registry().with(MemcgLayer::below(&server, "tenant")),
        || work(&server),
    );
    assert_eq!(Memcg::current(), Memcg::root());
    result
}

fn current() -> String {
    Memcg::current().name()
}

#[test]
fn a_value_of_any_kind_names_a_group_below_the_parent() {
    with_layer("kinds", |server| {
        info_span!("request", tenant = "text").in_scope(|| assert_eq!(Memcg::current().path(), "/kinds/text"));
        info_span!("request", tenant = 7).in_scope(|| assert_eq!(current(), "7"));
        info_span!("request", tenant = -7i64).in_scope(|| assert_eq!(current(), "-7"));
        info_span!("request", tenant = true).in_scope(|| assert_eq!(current(), "true"));
        info_span!("request", tenant = %format_args!("{}-{}", "a", 1)).in_scope(|| assert_eq!(current(), "a-1"));
        info_span!("request", other = "x", tenant = ?Some(1)).in_scope(|| assert_eq!(current(), "Some(1)"));
        assert_eq!(server.children().len(), 6);
    });
}

#[test]
fn a_span_without_a_group_changes_nothing() {
    with_layer("without", |server| {
        info_span!("request", tenant = "a").in_scope(|| {
            info_span!("query", rows = 3).in_scope(|| assert_eq!(current(), "a"));
            info_span!("query", tenant = "no/name").in_scope(|| assert_eq!(current(), "a"));
            info_span!("query", tenant = Empty).in_scope(|| assert_eq!(current(), "a"));
            assert_eq!(current(), "a");
        });
        assert_eq!(server.children().len(), 1);
    });
}

#[test]
fn what_is_allocated_in_a_span_is_the_groups_and_the_layer_leaves_nothing_there() {
    with_layer("charged", |server| {
        // The registry's own list of the thread grows outside.
        enter_all(&(0..100).map(|_| info_span!("warm")).collect::<Vec<_>>());
        let spans = (0..100).map(|_| info_span!("request", tenant = "a")).collect::<Vec<_>>();
        let tenant = server.child("a").expect("made with the span");
        let rows = spans[0].in_scope(|| {
            // The layer's list grows inside.
            enter_all(&spans);
            vec![0u8; 50_000]
        });
        assert_eq!(tenant.stat().slab_objects + tenant.stat().large_objects, 1);
        drop(rows);
    });
}

/// Enters all, each inside the one before, and leaves them again.
fn enter_all(spans: &[tracing::Span]) {
    if let [first, rest @ ..] = spans {
        first.in_scope(|| enter_all(rest));
    }
}

#[test]
fn nested_spans_go_back_to_the_one_around() {
    with_layer("nested", |_| {
        let outer = info_span!("request", tenant = "outer").entered();
        let inner = info_span!("request", tenant = "inner").entered();
        assert_eq!(current(), "inner");
        drop(inner);
        assert_eq!(current(), "outer");
        drop(outer);
        assert_eq!(Memcg::current(), Memcg::root());
    });
}

#[test]
fn spans_that_are_left_in_any_order_end_where_the_first_began() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    with_layer("order", |server| {
        for order in permutations() {
            let base = server.clone().enter_owned();
            let mut entered = NAMES.map(|name| Some(info_span!("request", tenant = name).entered()));
            for left in order {
                entered[left] = None;
                let innermost = entered.iter().rposition(Option::is_some).map_or("order", |idx| NAMES[idx]);
                assert_eq!(current(), innermost, "{order:?} after {left}");
            }
            drop(base);
            assert_eq!(Memcg::current(), Memcg::root());
        }
    });
}

/// Every order of four.
fn permutations() -> Vec<[usize; 4]> {
    let all = (0..256).map(|code| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6]);
    all.filter(|order: &[usize; 4]| (0..4).all(|idx| order.contains(&idx))).collect()
}

#[test]
fn a_span_that_is_entered_twice_is_left_twice() {
    with_layer("twice", |_| {
        let span = info_span!("request", tenant = "a");
        let first = span.enter();
        let other = info_span!("request", tenant = "b").entered();
        let second = span.enter();
        drop(second);
        assert_eq!(current(), "b");
        drop(first);
        assert_eq!(current(), "b");
        drop(other);
        assert_eq!(Memcg::current(), Memcg::root());
    });
}

#[test]
fn a_value_that_is_recorded_later_counts_at_once() {
    with_layer("recorded", |_| {
        let span = info_span!("request", tenant = Empty);
        span.in_scope(|| {
            assert_eq!(Memcg::current(), Memcg::root());
            span.record("tenant", "a");
            assert_eq!(current(), "a");
            span.record("tenant", "b");
            assert_eq!(current(), "b");
        });
        span.in_scope(|| assert_eq!(current(), "b"));
        let inner = info_span!("request", tenant = "inner");
        span.in_scope(|| {
            inner.in_scope(|| {
                span.record("tenant", "c");
                assert_eq!(current(), "inner", "the innermost is still that");
            });
            assert_eq!(current(), "b");
        });
        span.in_scope(|| assert_eq!(current(), "c"));
    });
}

#[test]
fn a_group_that_is_deleted_is_made_again_for_the_next_span() {
    with_layer("again", |server| {
        let old = info_span!("request", tenant = "a");
        let first = server.child("a").expect("made with the span");
        first.delete().expect("it has no children");
        old.in_scope(|| assert_eq!(Memcg::current(), *server, "what is left of a deleted group is its parent's"));
        info_span!("request", tenant = "a").in_scope(|| {
            assert_eq!(current(), "a");
            assert_ne!(Memcg::current(), first);
        });
    });
}

#[test]
fn many_groups_that_are_deleted_do_not_stay() {
    with_layer("sweep", |server| {
        let before = objcg::nr_dying();
        for number in 0..1000 {
            drop(info_span!("request", tenant = number));
            server.child(&number.to_string()).expect("made with the span").delete().expect("it has no children");
        }
        assert!(objcg::nr_dying() - before < 200, "{} are held", objcg::nr_dying() - before);
    });
}

#[test]
fn an_instrumented_future_is_in_the_group_of_its_span_on_every_thread() {
    with_layer("future", |_| {
        let mut nr_polls = 0;
        let span = info_span!("request", tenant = "a");
        let future = poll_fn(move |_| {
            assert_eq!(current(), "a");
            nr_polls += 1;
            if nr_polls < 4 { Poll::Pending } else { Poll::Ready(()) }
        });
        let mut future = Box::pin(future.instrument(span));
        let dispatch = dispatcher::get_default(Dispatch::clone);
        for _ in 0..3 {
            let dispatch = dispatch.clone();
            let polling = move || {
                dispatcher::with_default(&dispatch, || {
                    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                    assert_eq!(Memcg::current(), Memcg::root());
                    future
                })
            };
            future = thread::spawn(polling).join().expect("the group is right");
        }
        assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

#[test]
fn a_panic_leaves_the_span_and_the_group() {
    with_layer("panic", |_| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            info_span!("request", tenant = "a").in_scope(|| {
                assert_eq!(current(), "a");
                std::panic::resume_unwind(Box::new("on purpose"));
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(Memcg::current(), Memcg::root());
    });
}

#[test]
fn a_thread_may_end_inside_a_span() {
    with_layer("ended", |server| {
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let span = info_span!("request", tenant = "a");
        let thread = thread::spawn(move || dispatcher::with_default(&dispatch, || std::mem::forget(span.entered())));
        thread.join().expect("no panic");
        server.child("a").expect("the layer keeps it").delete().expect("it has no children");
    });
}

#[test]
fn a_function_of_the_users_picks_the_group() {
    let gold = Memcg::root().create("gold").expect("a new name");
    let chosen = gold.clone();
    let layer = MemcgLayer::new("plan", move |plan| {
        assert_eq!(Memcg::current(), Memcg::root(), "called outside of every group");
        (plan == "gold").then(|| chosen.clone())
    });
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        info_span!("request", plan = "gold").in_scope(|| {
            info_span!("request", plan = "gold").in_scope(|| assert_eq!(Memcg::current(), gold));
            info_span!("request", plan = "none").in_scope(|| assert_eq!(Memcg::current(), gold));
        });
    });
}

/// A group that is made for a span is its parent's memory, for which a shrinker may be asked; and that one may use spans too.
#[test]
fn a_shrinker_may_enter_a_span_when_a_group_is_made_for_one() {
    with_layer("shrinks", |server| {
        let held = Mutex::new(Some(server.charge_external(1 << 20).unwrap()));
        let shrinker = server.register_shrinker(move |_| {
            info_span!("shrink", tenant = "shrinks").in_scope(|| drop(held.lock().unwrap().take()));
            1 << 20
        });
        server.set_max(Some(server.usage())).unwrap();
        info_span!("request", tenant = "new").in_scope(|| assert_eq!(current(), "new"));
        drop(shrinker);
    });
}
