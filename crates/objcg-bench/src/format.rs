//! Numbers for people.

/// Bytes in binary units, three or four digits.
pub(crate) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    let mut value = bytes / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time in nanoseconds, or in larger units where that is shorter.
pub(crate) fn nanoseconds(ns: f64) -> String {
    match ns {
        ns if ns < 100.0 => format!("{ns:.1}"),
        ns if ns < 10_000.0 => format!("{ns:.0}"),
        ns if ns < 10_000_000.0 => format!("{:.0} µs", ns / 1e3),
        ns => format!("{:.0} ms", ns / 1e6),
    }
}

/// A time in seconds, 5.32 s.
pub(crate) fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

/// A share of the whole, 0.87.
pub(crate) fn share(share: f64) -> String {
    format!("{share:.2}")
}

/// A ratio to the baseline, 1.07×.
pub(crate) fn ratio(ratio: f64) -> String {
    if ratio < 100.0 { format!("{ratio:.2}×") } else { format!("{ratio:.0}×") }
}

/// A value, or a dash.
pub(crate) fn or_dash(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), format)
}

#[cfg(test)]
mod tests {
    use super::{bytes, nanoseconds, or_dash, ratio, seconds, share};

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(bytes(2048.0), "2.0 KiB");
        assert_eq!(bytes(25_711_952.0), "24.5 MiB");
        assert_eq!(bytes(12_415_320_064.0), "11.6 GiB");
        assert_eq!(nanoseconds(2.94), "2.9");
        assert_eq!(nanoseconds(345.6), "346");
        assert_eq!(nanoseconds(905_240.0), "905 µs");
        assert_eq!(seconds(5.318), "5.32 s");
        assert_eq!(ratio(1.0), "1.00×");
        assert_eq!(ratio(345.2), "345×");
        assert_eq!(share(0.866), "0.87");
        assert_eq!(or_dash(None, share), "–");
    }
}
