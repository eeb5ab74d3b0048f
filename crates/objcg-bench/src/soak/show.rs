//! The findings, for people and as JSON.

use anyhow::Result;
use serde_json::{Value, json};

use super::protocol::{Counts, Sample};
use super::trend::{MIN_SAMPLES, Verdict};
use super::{Findings, Named, VESSELS};
use crate::format;
use crate::statistics::median;

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How the figures of a series are printed.
pub(crate) fn number_of(series: &str) -> fn(f64) -> String {
    if series == VESSELS { |number| format!("{number:.1}") } else { format::bytes }
}

pub(crate) fn text(findings: &Findings) -> String {
    let Counts { requests, allocations, refusals, tenants, bursts, forks, threads, compared } = findings.counts;
    let mut lines = vec![
        format!("soak of {} s, seed {}: {} quiet points", findings.nr_seconds, findings.seed, findings.nr_checks),
        format!("  requests          {:>14}", count(requests)),
        format!("  allocations       {:>14}", count(allocations)),
        format!("  refused by limits {:>14}", count(refusals)),
        format!("  tenants           {:>14}", count(tenants)),
        format!("  bursts            {:>14}", count(bursts)),
        format!("  threads           {:>14}", count(threads)),
        format!("  forks             {:>14}", count(forks)),
        format!("  objects compared  {:>14}", count(compared)),
        String::new(),
        format!("{:20} {:>12} {:>12} {:>12}", "second half", "median", "growth", "by chance"),
    ];
    lines.extend(findings.trends.iter().map(trend_line));
    lines.push(String::new());
    if let Some(held) = findings.held_at_end {
        lines.push(format!("when all was freed the engine held {}", format::bytes(held as f64)));
    }
    let is_short = findings.trends.iter().any(|named| named.trend.verdict == Verdict::TooShort);
    lines.push(match (findings.failures.is_empty(), is_short) {
        (false, _) => "FAILED".to_owned(),
        (true, true) => {
            format!("ok, but too short to see a trend: {MIN_SAMPLES} seconds in the second half are needed")
        }
        (true, false) => "ok: no invariant broken, no trend".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn trend_line(named: &Named) -> String {
    let number = number_of(named.name);
    let trend = &named.trend;
    let (median, growth, allowed) = (number(trend.median), number(trend.growth), number(trend.allowed));
    let verdict = if trend.verdict == Verdict::Grows { "  GROWS" } else { "" };
    format!("  {:18} {median:>12} {growth:>12} {allowed:>12}{verdict}", named.name)
}

pub(crate) fn json(findings: &Findings) -> Result<String> {
    let mut report = serde_json::to_value(findings)?;
    let Counts { requests, allocations, refusals, tenants, bursts, forks, threads, compared } = findings.counts;
    report["counts"] = json!({
        "requests": requests, "allocations": allocations, "refusals": refusals, "tenants": tenants, "bursts": bursts,
        "forks": forks, "threads": threads, "objects_compared": compared,
    });
    let pauses: Vec<f64> = findings.samples.iter().map(|sample| sample.pause_us as f64).collect();
    report["median_pause_us"] = json!(median(&pauses));
    report["samples"] = findings.samples.iter().map(sample).collect();
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn sample(sample: &Sample) -> Value {
    let Sample { second, resident, held, live, usage, vessels, .. } = sample;
    json!({"second": second, "resident": resident, "held": held, "live": live, "usage": usage, "vessels": vessels})
}

#[cfg(test)]
mod tests {
    use super::{count, number_of};

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            (number_of("vessels")(3.0), number_of("resident")(2048.0)),
            ("3.0".to_owned(), "2.0 KiB".to_owned())
        );
    }
}
