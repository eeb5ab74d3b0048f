//! Text from outside: the order of `objcg run`, its report, and sizes on the command line. Nothing panics, and what is
//! printed is read back as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use objcg_report::{Order, Report};

#[path = "../../crates/objcg-cli/src/size.rs"]
mod size;

fuzz_target!(|bytes: &[u8]| {
    if let Some(report) = Report::of_bytes(bytes) {
        let _rows = (report.classes().len(), report.threads().len(), report.utilisation());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(order) = Order::parse(text) {
        assert_eq!(Order::parse(&order.to_string()), Ok(order));
    }
    match size::size(text) {
        Ok(nr_bytes) => assert!(nr_bytes > 0),
        Err(reason) => assert!(!reason.is_empty()),
    }
});
