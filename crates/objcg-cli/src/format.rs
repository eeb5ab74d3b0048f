//! Numbers for people.

/// Bytes in binary units, three or four digits.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = as_f64(bytes) / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes that may be negative.
pub(crate) fn signed_bytes(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", bytes(value.unsigned_abs()))
}

/// A share as per cent.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// A mean time in nanoseconds.
pub(crate) fn nanoseconds(mean: Option<f64>) -> String {
    match mean {
        None => "–".to_owned(),
        Some(mean) if mean < 100.0 => format!("{mean:.1}"),
        Some(mean) => count(rounded(mean)),
    }
}

/// A count with separators: 1,234,567.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(ns: u64) -> f64 {
    as_f64(ns) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "what is printed has four digits")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, which is not negative")]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, nanoseconds, percent, signed_bytes};

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(25_711_952), "24.5 MiB");
        assert_eq!(signed_bytes(-2048), "-2.0 KiB");
        assert_eq!(count(1_471_082), "1,471,082");
        assert_eq!(count(12), "12");
        assert_eq!(percent(Some(0.4971)), "49.7 %");
        assert_eq!(percent(None), "–");
        assert_eq!(nanoseconds(Some(1234.4)), "1,234");
    }
}
