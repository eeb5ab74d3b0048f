//! The plot of `objcg compare`: for each trace utilisation and slab bytes against time, one line a controller.
//!
//! Drawn 800 pixels wide, for a README. Page-level and cache-level hold nearly the same slabs, so the first is a broad
//! pale line on which the second runs. Lines are labelled where they end; labels that would meet move apart.

use anyhow::{Result, anyhow};
use objcg_lab::{Comparison, ControllerKind, Sample, Scope, Series, SheafMode};
use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::Text;
use plotters::series::{AreaSeries, LineSeries};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::format::seconds;

const WIDTH: u32 = 800;
const TITLE_HEIGHT: u32 = 40;
const PANEL_HEIGHT: u32 = 230;
/// Room for labels at the ends of the lines.
const LABEL_WIDTH: u32 = 132;
const LABEL_HEIGHT: i32 = 16;

const INK: RGBColor = RGBColor(0x33, 0x38, 0x40);
const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x80);
const GRID: RGBColor = RGBColor(0xe5, 0xe7, 0xeb);
const LIVE: RGBColor = RGBColor(0xd5, 0xd9, 0xdf);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws all comparisons, one below the other, as SVG.
pub(crate) fn render(comparisons: &[Comparison]) -> Result<String> {
    let mut svg = String::new();
    let height = TITLE_HEIGHT + 2 * PANEL_HEIGHT;
    let nr_traces = u32::try_from(comparisons.len()).expect("as many as arguments");
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height * nr_traces)).into_drawing_area();
        root.fill(&WHITE).map_err(failure)?;
        for (area, comparison) in root.split_evenly((comparisons.len(), 1)).iter().zip(comparisons) {
            draw_trace(area, comparison)?;
        }
        root.present().map_err(failure)?;
    }
    // Plotters knows no joins; mitred ones would make thorns of every spike.
    Ok(svg.replace("<polyline ", "<polyline stroke-linejoin=\"round\" "))
}

fn draw_trace(area: &Area<'_>, comparison: &Comparison) -> Result<()> {
    let report = &comparison.report;
    let objects = match report.scope {
        Scope::Charged => "charged objects",
        Scope::All => "all slab objects",
    };
    let sheaves = match report.sheaves {
        SheafMode::On => "per-CPU sheaves",
        SheafMode::Off => "first fit",
    };
    let title = format!("{}: {objects} of {} groups, {sheaves}", report.trace, report.groups);
    area.draw(&Text::new(title, (16, 14), text(18, INK))).map_err(failure)?;
    let (_, panels) = area.split_vertically(TITLE_HEIGHT);
    let (upper, lower) = panels.split_vertically(PANEL_HEIGHT);
    let utilization = Panel {
        caption: "slab utilisation: live bytes in % of slab pages and owner vectors",
        unit: "%",
        value: |sample| sample.utilization().map_or(f64::NAN, |share| share * 100.0),
        top: 100.0,
        with_live: false,
    };
    utilization.draw(&upper, comparison)?;
    let most = comparison.series.iter().flat_map(|series| &series.samples).map(held_mib).fold(1.0, f64::max);
    let held = Panel {
        caption: "held: slab pages and owner vectors, MiB; grey: live objects",
        unit: "MiB",
        value: held_mib,
        top: most * 1.05,
        with_live: true,
    };
    held.draw(&lower, comparison)
}

/// One quantity against time.
struct Panel {
    caption: &'static str,
    unit: &'static str,
    value: fn(&Sample) -> f64,
    top: f64,
    with_live: bool,
}

impl Panel {
    fn draw(&self, area: &Area<'_>, comparison: &Comparison) -> Result<()> {
        area.draw(&Text::new(self.caption, (16, 2), text(14, FAINT))).map_err(failure)?;
        let end = comparison.series.iter().flat_map(|series| &series.samples).map(at).fold(0.1, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin_top(24)
            .margin_right(LABEL_WIDTH)
            .margin_left(8)
            .x_label_area_size(30)
            .y_label_area_size(42)
            .build_cartesian_2d(0.0..end, 0.0..self.top)
            .map_err(failure)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text(13, FAINT))
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0} s"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()
            .map_err(failure)?;
        self.draw_lines(&mut chart, comparison)?;
        self.draw_labels(area, &chart, comparison)
    }

    fn draw_lines(&self, chart: &mut Chart<'_>, comparison: &Comparison) -> Result<()> {
        if let Some(series) = comparison.series.first().filter(|_| self.with_live) {
            let live = series.samples.iter().map(|sample| (at(sample), mib(sample.live_bytes)));
            chart.draw_series(AreaSeries::new(live, 0.0, LIVE.mix(0.6))).map_err(failure)?;
        }
        for series in &comparison.series {
            // What holds nothing has no utilisation: the line begins with the first slab.
            let points = series.samples.iter().map(|sample| (at(sample), (self.value)(sample)));
            let points = points.filter(|(_, value)| value.is_finite());
            chart.draw_series(LineSeries::new(points, stroke(series.controller))).map_err(failure)?;
        }
        Ok(())
    }

    fn draw_labels(&self, area: &Area<'_>, chart: &Chart<'_>, comparison: &Comparison) -> Result<()> {
        let base = area.get_base_pixel();
        let mut labels: Vec<_> =
            comparison.series.iter().filter_map(|series| self.label(chart, base, series)).collect();
        labels.sort_by_key(|label| label.1.1);
        for at in 1..labels.len() {
            let above = labels[at - 1].1.1;
            labels[at].1.1 = labels[at].1.1.max(above + LABEL_HEIGHT);
        }
        for (label, position, color) in labels {
            let style = text(13, color).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(label, position, style)).map_err(failure)?;
        }
        Ok(())
    }

    /// What stands beside the end of a line, and where in the area.
    fn label(&self, chart: &Chart<'_>, base: (i32, i32), series: &Series) -> Option<(String, (i32, i32), RGBColor)> {
        let last = series.samples.iter().rev().find(|sample| (self.value)(sample).is_finite())?;
        let (x, y) = chart.backend_coord(&(at(last), (self.value)(last)));
        let label = format!("{} {:.0} {}", series.controller.name(), (self.value)(last), self.unit);
        Some((label, (x - base.0 + 6, y - base.1), color(series.controller)))
    }
}

fn color(controller: ControllerKind) -> RGBColor {
    match controller {
        ControllerKind::PageLevel => RGBColor(0xb4, 0x6a, 0x00),
        ControllerKind::CacheLevel => RGBColor(0x1f, 0x5f, 0xa8),
        ControllerKind::ObjectLevel => RGBColor(0x0b, 0x83, 0x5c),
    }
}

fn stroke(controller: ControllerKind) -> ShapeStyle {
    match controller {
        ControllerKind::PageLevel => RGBColor(0xf5, 0xc2, 0x6b).stroke_width(6),
        ControllerKind::CacheLevel | ControllerKind::ObjectLevel => color(controller).stroke_width(2),
    }
}

fn text(size: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

fn at(sample: &Sample) -> f64 {
    seconds(sample.ts_ns)
}

fn held_mib(sample: &Sample) -> f64 {
    mib(sample.held.bytes())
}

#[expect(clippy::cast_precision_loss, reason = "pixels")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn failure(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("plot: {error}")
}
