//! The time series as CSV: one row a trace, controller and moment.

use anyhow::Result;
use objcg_lab::Comparison;

const COLUMNS: [&str; 8] =
    ["trace", "controller", "ts_ns", "live_bytes", "slab_bytes", "owner_bytes", "groups_alive", "groups_pinned"];

pub(crate) fn render(comparisons: &[Comparison]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for comparison in comparisons {
        for series in &comparison.series {
            for sample in &series.samples {
                writer.write_record([
                    comparison.report.trace.as_str(),
                    series.controller.name(),
                    &sample.ts_ns.to_string(),
                    &sample.live_bytes.to_string(),
                    &sample.held.slab_bytes.to_string(),
                    &sample.held.owner_bytes.to_string(),
                    &sample.groups_alive.to_string(),
                    &sample.groups_pinned.to_string(),
                ])?;
            }
        }
    }
    Ok(writer.into_inner()?)
}
