//! Plots: for each workload a file with a panel of bars a case, and one of memory.

use anyhow::{Result, anyhow};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, TextStyle, WHITE};

use crate::figures::{Figures, Line};
use crate::format;
use crate::plan::Series;
use crate::rivals::Kind;
use crate::workloads::{Workload, WorkloadKind};

const WIDTH: i32 = 800;
const TITLE_HEIGHT: i32 = 40;
const CAPTION_HEIGHT: i32 = 28;
const BAR_HEIGHT: i32 = 18;
/// Room for names on the left, and for values on the right.
const NAME_WIDTH: i32 = 170;
const VALUE_WIDTH: i32 = 90;
/// The longest bar is of this many medians at most; longer ones are cut, and their value tells.
const MAX_MEDIANS: f64 = 4.0;

const INK: RGBColor = RGBColor(0x33, 0x38, 0x40);
const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x80);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Bars of one quantity.
struct Panel {
    caption: String,
    format: fn(f64) -> String,
    bars: Vec<(Series, f64)>,
}

/// File names and their content.
pub(crate) fn render(figures: &Figures) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for (workload, variant) in figures.tables() {
        let (suffix, title) = if variant == "-" {
            (String::new(), String::new())
        } else {
            (format!("-{variant}"), format!(" {variant}"))
        };
        let title = format!("{}{title}: {}", workload.name, workload.about);
        let panels = panels(figures, workload, variant);
        files.push((format!("{}{suffix}.svg", workload.name), draw(&title, &panels)?));
    }
    Ok(files)
}

fn panels(figures: &Figures, workload: &'static Workload, variant: &str) -> Vec<Panel> {
    let lines = figures.lines(workload.name, variant);
    let bars = |value: &dyn Fn(Line<'_>) -> Option<f64>| {
        lines.iter().filter_map(|line| Some((line.series, value(*line)?))).collect::<Vec<_>>()
    };
    let of_case = |case: &str| Panel {
        caption: if case == "all" { "ns".to_owned() } else { format!("{case}: ns") },
        format: format::nanoseconds,
        bars: bars(&|line| figures.ns(line, case)),
    };
    let mut panels: Vec<_> = figures.cases(workload.name, variant).into_iter().map(of_case).collect();
    panels.push(match workload.kind {
        WorkloadKind::Tenants => Panel {
            caption: "live bytes / resident bytes".to_owned(),
            format: format::share,
            bars: bars(&|line| figures.share(line, "live", "after")),
        },
        WorkloadKind::Burst => Panel {
            caption: "resident when all was freed and two seconds of rest have passed".to_owned(),
            format: format::bytes,
            bars: bars(&|line| figures.point(line, "later")),
        },
        _ => Panel {
            caption: "most bytes resident".to_owned(),
            format: format::bytes,
            bars: bars(&|line| figures.peak(line)),
        },
    });
    panels
}

fn draw(title: &str, panels: &[Panel]) -> Result<String> {
    let mut svg = String::new();
    let height = TITLE_HEIGHT + panels.iter().map(Panel::height).sum::<i32>();
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failure)?;
        area.draw(&Text::new(title.to_owned(), (16, 12), text(16, INK))).map_err(failure)?;
        let mut top = TITLE_HEIGHT;
        for panel in panels {
            panel.draw(&area, top)?;
            top += panel.height();
        }
        area.present().map_err(failure)?;
    }
    Ok(svg)
}

impl Panel {
    fn height(&self) -> i32 {
        CAPTION_HEIGHT + BAR_HEIGHT * i32::try_from(self.bars.len()).expect("as many as allocators") + 8
    }

    fn draw(&self, area: &Area<'_>, top: i32) -> Result<()> {
        area.draw(&Text::new(self.caption.clone(), (16, top + 6), text(14, FAINT))).map_err(failure)?;
        let values: Vec<f64> = self.bars.iter().map(|(_, value)| *value).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let median = crate::statistics::median(&values).unwrap_or(1.0);
        let full = most.min(median * MAX_MEDIANS).max(f64::MIN_POSITIVE);
        let mut y = top + CAPTION_HEIGHT;
        for (series, value) in &self.bars {
            let middle = y + BAR_HEIGHT / 2;
            let end = NAME_WIDTH + pixels((value / full).min(1.0));
            let name = text(13, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(series.name(), (NAME_WIDTH - 8, middle), name)).map_err(failure)?;
            let bar = [(NAME_WIDTH, y + 2), (end, y + BAR_HEIGHT - 2)];
            area.draw(&Rectangle::new(bar, color(series).filled())).map_err(failure)?;
            let cut = if *value > full { " »" } else { "" };
            let label = format!("{}{cut}", (self.format)(*value));
            let style = text(13, FAINT).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(label, (end + 6, middle), style)).map_err(failure)?;
            y += BAR_HEIGHT;
        }
        Ok(())
    }
}

fn color(series: &Series) -> RGBColor {
    match series.rival.kind {
        Kind::Objcg => RGBColor(0x0b, 0x83, 0x5c),
        Kind::Plain => RGBColor(0x1f, 0x5f, 0xa8),
        Kind::Grouped => RGBColor(0xb4, 0x6a, 0x00),
        Kind::Counting => RGBColor(0x9a, 0x9f, 0xa8),
    }
}

fn text(size: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

#[expect(clippy::cast_possible_truncation, reason = "at most the width")]
fn pixels(share: f64) -> i32 {
    (share * f64::from(WIDTH - NAME_WIDTH - VALUE_WIDTH)).round() as i32
}

fn failure(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("plot: {error}")
}
