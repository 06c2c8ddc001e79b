//! The plot: loss against steps and against seconds, side by side.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::Result;
use crate::report::by_method;
use crate::settings::MethodKind;
use crate::training::{Point, Run};

const SIZE: (u32, u32) = (1500, 680);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(215, 215, 215);
const FAINT_GRID: RGBColor = RGBColor(243, 243, 243);

/// Colours that stay apart for colour-blind readers (Okabe and Ito).
fn colour(method: MethodKind) -> RGBColor {
    match method {
        MethodKind::Sgd => RGBColor(110, 110, 110),
        MethodKind::Adam => RGBColor(230, 159, 0),
        MethodKind::Kfac => RGBColor(0, 114, 178),
        MethodKind::Foof => RGBColor(213, 94, 0),
        MethodKind::Natural => RGBColor(0, 158, 115),
        MethodKind::NaturalFull => RGBColor(204, 121, 167),
        MethodKind::NaturalBlock => RGBColor(86, 180, 233),
    }
}

/// Draws the runs to a PNG file.
pub fn draw(path: &Path, title: &str, runs: &[Run]) -> Result {
    // The font comes with the program: nothing has to be installed to draw.
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(|_| "the font cannot be read")?;
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(16, 0, 0, 0).titled(title, (FONT, 24).into_font().color(&INK))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    panel(&left, "step", runs, |point| point.step as f64)?;
    panel(&right, "seconds", runs, |point| point.seconds)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// One panel: the loss, on a logarithmic axis, against `x` of each point.
fn panel(area: &Area<'_>, label: &str, runs: &[Run], x: fn(&Point) -> f64) -> Result {
    let points = || runs.iter().flat_map(|run| &run.curve);
    let losses = || points().map(|point| point.loss).filter(|loss| *loss > 0.0 && loss.is_finite());
    let lowest = losses().fold(f64::INFINITY, f64::min);
    // A method that goes astray on its way must not squeeze the others together.
    let initial = runs.iter().filter_map(|run| run.curve.first()).map(|point| point.loss).fold(0.0, f64::max);
    let highest = losses().fold(0.0, f64::max).min(2.0 * initial);
    let [lowest, highest] = if lowest < highest { [lowest, highest] } else { [0.1, 1.0] };
    let right = points().map(x).fold(0.0, f64::max).max(f64::MIN_POSITIVE);

    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(52)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..1.02 * right, (lowest / 1.3..highest * 1.3).log_scale())?;
    let style = |size: u32| (FONT, size).into_font().color(&INK);
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(FAINT_GRID)
        .max_light_lines(1)
        .axis_style(INK)
        .label_style(style(16))
        .axis_desc_style(style(18))
        .x_desc(label)
        .y_desc("training loss")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;

    for (method, group) in by_method(runs) {
        // Several seeds: thinner lines of one colour, one entry in the legend.
        let width = if group.len() == 1 { 3 } else { 2 };
        let line = colour(method).stroke_width(width);
        for (number, run) in group.iter().enumerate() {
            let finite = run.curve.iter().filter(|point| point.loss > 0.0 && point.loss.is_finite());
            let points = finite.map(|point| (x(point), point.loss.min(1.3 * highest)));
            let series = chart.draw_series(LineSeries::new(points, line))?;
            if number == 0 {
                series.label(method.name()).legend(move |(x, y)| PathElement::new([(x, y), (x + 26, y)], line));
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(16)
        .legend_area_size(34)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(style(17))
        .draw()?;
    Ok(())
}
