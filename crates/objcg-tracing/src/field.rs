//! A field's value as text.

use std::fmt;

use tracing_core::field::{Field, Visit};

/// The value of the field of that name; `record` is given the visitor.
pub(crate) fn value(name: &str, record: impl FnOnce(&mut dyn Visit)) -> Option<String> {
    let mut wanted = Wanted { name, value: None };
    record(&mut wanted);
    wanted.value
}

struct Wanted<'a> {
    name: &'a str,
    value: Option<String>,
}

impl Visit for Wanted<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.name {
            self.value = Some(value.to_owned());
        }
    }

    /// Numbers, truth values and `%value` come here as well.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.name {
            self.value = Some(format!("{value:?}"));
        }
    }
}
