//! Groups for code that is instrumented with `tracing`: a span's field names the group.
//!
//! [`MemcgLayer`] is a layer of `tracing-subscriber`. While a span that has the field is entered, what the thread allocates is
//! charged to the group of the field's value; a future that is instrumented with such a span is charged poll by poll.
//! Nothing else of the program changes.
//!
//! ```
//! use objcg::{Memcg, Objcg};
//! use objcg_tracing::MemcgLayer;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! #[global_allocator]
//! static GLOBAL: Objcg = Objcg;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Memcg::root().create("server")?;
//! let subscriber = tracing_subscriber::registry().with(MemcgLayer::below(&server, "tenant"));
//!
//! let rows = tracing::subscriber::with_default(subscriber, || {
//!     let request = tracing::info_span!("request", tenant = "acme");
//!     request.in_scope(|| vec![0u8; 100_000])
//! });
//! assert!(server.usage() >= 100_000);
//! # drop(rows);
//! # Ok(())
//! # }
//! ```
//!
//! A span says where memory is charged, and no more: it cannot end a future whose group is killed, and holds nothing back. For that,
//! `objcg::FutureExt::in_memcg` or `objcg-tower` stand beside it.

#![forbid(unsafe_code)]

mod entered;
mod field;
mod kept;

use std::fmt;

use objcg::Memcg;
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use kept::Kept;

/// Puts spans into groups, by a field's value.
///
/// A span without the field changes nothing: it runs in the group of the span around it. So does one for whose value there is no
/// group. Spans may be left in any order. A value that is recorded later counts from then on; if the span is entered with other
/// such spans inside of it, from when it is entered next.
///
/// Entering and leaving a span that has the field costs some tens of nanoseconds, other spans a look at the names of their fields.
/// One such layer a subscriber. The books of the subscriber itself, which keeps spans' slots for later spans, are charged to who
/// makes the first spans.
pub struct MemcgLayer {
    field: String,
    group_of: Box<GroupOf>,
}

type GroupOf = dyn Fn(&str) -> Option<Memcg> + Send + Sync;

/// The group of a span, in its extensions.
struct SpanGroup(Memcg);

impl MemcgLayer {
    /// The group of a span is what `group_of` says of its field's value: a string, a number, or what formatting gives. `group_of` is
    /// called in the root, once for each span that is made and each value that is recorded.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    /// use objcg_tracing::MemcgLayer;
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let gold = Memcg::root().create("gold")?;
    /// let rest = Memcg::root().create("rest")?;
    /// let layer = MemcgLayer::new("plan", move |plan| Some(if plan == "gold" { gold.clone() } else { rest.clone() }));
    /// # tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
    /// let _request = tracing::info_span!("request", plan = "gold").entered();
    /// assert_eq!(Memcg::current().name(), "gold");
    /// # });
    /// # Ok::<(), objcg::CreateError>(())
    /// ```
    pub fn new(
        field: impl Into<String>,
        group_of: impl Fn(&str) -> Option<Memcg> + Send + Sync + 'static,
    ) -> MemcgLayer {
        MemcgLayer { field: field.into(), group_of: Box::new(group_of) }
    }

    /// The group of a span is the child of `parent` with the field's value as its name, made when it is first seen. The layer keeps
    /// these groups, 288 bytes each, until they are deleted (`parent.child(name)` finds one): let no stranger choose the
    /// values. A value that is no name of a group, or a limit that leaves no room for one, leaves the span where it is.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    /// use objcg_tracing::MemcgLayer;
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let server = Memcg::root().create("server")?;
    /// let subscriber = tracing_subscriber::registry().with(MemcgLayer::below(&server, "tenant"));
    /// # tracing::subscriber::with_default(subscriber, || {
    /// let _request = tracing::info_span!("request", tenant = 7).entered();
    /// assert_eq!(Memcg::current().path(), "/server/7");
    /// # });
    /// # Ok::<(), objcg::CreateError>(())
    /// ```
    #[must_use]
    pub fn below(parent: &Memcg, field: impl Into<String>) -> MemcgLayer {
        let kept = Kept::new(parent);
        MemcgLayer::new(field, move |name| kept.find_or_create(name))
    }

    fn has_field(&self, metadata: &Metadata<'_>) -> bool {
        metadata.fields().field(self.field.as_str()).is_some()
    }
}

impl<S> Layer<S> for MemcgLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !self.has_field(attributes.metadata()) {
            return;
        }
        Memcg::root().scope(|| {
            let Some(value) = field::value(&self.field, |visitor| attributes.record(visitor)) else { return };
            let Some(group) = (self.group_of)(&value) else { return };
            if let Some(span) = context.span(id) {
                span.extensions_mut().insert(SpanGroup(group));
            }
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id).filter(|span| self.has_field(span.metadata())) else { return };
        let group = Memcg::root().scope(|| {
            let value = field::value(&self.field, |visitor| values.record(visitor))?;
            let group = (self.group_of)(&value)?;
            span.extensions_mut().replace(SpanGroup(group.clone()));
            Some(group)
        });
        if let Some(group) = group {
            entered::change(id, group);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id).filter(|span| self.has_field(span.metadata())) else { return };
        let group = span.extensions().get::<SpanGroup>().map(|SpanGroup(group)| group.clone());
        entered::enter(id, group);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        entered::exit(id);
    }
}

impl fmt::Debug for MemcgLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcgLayer").field("field", &self.field).finish_non_exhaustive()
    }
}
