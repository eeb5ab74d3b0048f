//! The spans that a thread is in, of those that have the field: innermost last.
//!
//! Each holds the guard of its group, if it has one. Spans of one thread need not be left in the reverse order; a guard that
//! is not the innermost passes on what was current before it.

use std::cell::RefCell;

use objcg::{EnteredOwned, Memcg};
use tracing_core::span::Id;

struct EnteredSpan {
    id: Id,
    group: Option<EnteredOwned>,
}

#[derive(Default)]
struct EnteredSpans(Vec<EnteredSpan>);

thread_local! {
    static ENTERED: RefCell<EnteredSpans> = RefCell::default();
}

/// Does nothing at the end of the thread, when the list is gone.
fn with_entered(work: impl FnOnce(&mut EnteredSpans)) {
    let _ = ENTERED.try_with(|entered| work(&mut entered.borrow_mut()));
}

pub(crate) fn enter(id: &Id, group: Option<Memcg>) {
    with_entered(|EnteredSpans(spans)| {
        // The list is the thread's, not a tenant's.
        Memcg::root().scope(|| spans.reserve(1));
        spans.push(EnteredSpan { id: id.clone(), group: group.map(Memcg::enter_owned) });
    });
}

pub(crate) fn exit(id: &Id) {
    with_entered(|EnteredSpans(spans)| {
        let Some(idx) = spans.iter().rposition(|span| span.id == *id) else { return };
        let Some(group) = spans.remove(idx).group else { return };
        if let Some(inner) = spans[idx..].iter_mut().find_map(|span| span.group.as_mut()) {
            group.leave_below(inner);
        }
    });
}

/// The group of a span has become known: it is entered now if this thread is in the span and no other group was entered since.
pub(crate) fn change(id: &Id, group: Memcg) {
    with_entered(|EnteredSpans(spans)| {
        let Some(idx) = spans.iter().rposition(|span| span.id == *id) else { return };
        if spans[idx + 1..].iter().all(|span| span.group.is_none()) {
            // The old guard ends first.
            drop(spans[idx].group.take());
            spans[idx].group = Some(group.enter_owned());
        }
    });
}

impl Drop for EnteredSpans {
    fn drop(&mut self) {
        // Innermost first: each guard makes current what was before it.
        while self.0.pop().is_some() {}
    }
}
