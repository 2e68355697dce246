//! Draws the time of recovery against the backlog, from results of `steadfast bench recovery --json`.
//!
//! ```sh
//! for messages in 10000 100000 1000000; do
//!     cargo run --release -- bench recovery --warm --messages $messages --json
//! done > docs/recovery.json
//! cargo run --example recovery_curve -- docs/recovery.json docs/recovery.svg
//! ```
//!
//! The input is one or more JSON documents, one after the other. What a result does not have is left out of
//! the picture.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use serde_json::Value;

/// Legible on white and on black.
const INK: RGBColor = RGBColor(128, 128, 128);
/// Size of the picture.
const PIXELS: (u32, u32) = (920, 480);

/// Height of a line's name, in pixels.
const LABEL_HEIGHT: i32 = 19;

/// One line: where its figure is in a result, its name and its colour.
struct Line {
    /// Any of these, the first that is there.
    pointers: &'static [&'static str],
    label: &'static str,
    colour: RGBColor,
}

const LINES: [Line; 5] = [
    Line {
        pointers: &["/full_scan_ms"],
        label: "full scan, cold",
        colour: RGBColor(214, 69, 65),
    },
    Line {
        pointers: &["/raw_read_ms"],
        label: "reading the same bytes, cold",
        colour: RGBColor(230, 145, 30),
    },
    Line {
        pointers: &["/cold/lock_to_ready_ms"],
        label: "Steadfast, cold caches",
        colour: RGBColor(40, 120, 220),
    },
    Line {
        pointers: &["/warm/lock_to_ready_ms"],
        label: "Steadfast, warm caches",
        colour: RGBColor(30, 160, 90),
    },
    Line {
        pointers: &["/standby/lock_to_ready_ms"],
        label: "Steadfast, warm standby",
        colour: RGBColor(150, 90, 200),
    },
];

/// Points of a line: messages and ms.
type Points = Vec<(f64, f64)>;

/// The results in a text, by number of messages.
fn results(text: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut all = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter() {
        match document? {
            Value::Array(several) => all.extend(several),
            one => all.push(one),
        }
    }
    all.sort_by_key(|result: &Value| result["messages"].as_u64());
    if all.is_empty() {
        return Err(
            "there is no result in the file: run `steadfast bench recovery --json` first".into(),
        );
    }
    Ok(all)
}

fn points(results: &[Value], line: &Line) -> Points {
    let point = |result: &Value| {
        let figures = line.pointers.iter().filter_map(|it| result.pointer(it));
        let ms = figures.filter_map(Value::as_f64).next()?;
        Some((result["messages"].as_f64()?, ms))
    };
    let points = results.iter().filter_map(point);
    points.filter(|(x, y)| *x > 0.0 && *y > 0.0).collect()
}

/// The decades around values.
fn decades(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), it| {
        (low.min(it), high.max(it))
    });
    let low = 10_f64.powf(low.log10().floor());
    let high = 10_f64.powf(high.log10().ceil());
    low..if high > low { high } else { low * 10.0 }
}

fn messages_text(messages: f64) -> String {
    match messages {
        it if it >= 1e6 => format!("{} M", it / 1e6),
        it if it >= 1e3 => format!("{} k", it / 1e3),
        it => it.to_string(),
    }
}

fn time_text(ms: f64) -> String {
    match ms {
        it if it >= 1e3 => format!("{} s", (it / 10.0).round() / 100.0),
        it => format!("{it} ms"),
    }
}

fn draw(results: &[Value], path: &Path) -> Result<(), Box<dyn Error>> {
    let mut lines: Vec<(&Line, Points)> = LINES
        .iter()
        .map(|line| (line, points(results, line)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (x, y) = (decades(all().map(|it| it.0)), decades(all().map(|it| it.1)));
    let area = SVGBackend::new(path, PIXELS).into_drawing_area();
    let title = format!(
        "Lock to ready after kill -9, against the backlog ({} bytes each, {} % settled)",
        results[0]["size"], results[0]["acked_percent"]
    );
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, text(21))
        .margin(16)
        .margin_right(270)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x.clone().log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(INK.mix(0.35))
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_labels(8)
        .y_labels(8)
        .x_desc("messages waiting")
        .label_style(text(17))
        .axis_desc_style(text(17))
        .x_label_formatter(&|it| messages_text(*it))
        .y_label_formatter(&|it| time_text(*it))
        .draw()?;
    // From above to below, so that a name can make room for the one before.
    lines.sort_by(|(_, a), (_, b)| f64::total_cmp(&end_ms(b), &end_ms(a)));
    let mut free_y = i32::MIN;
    for (line, points) in &lines {
        free_y = draw_line(&mut chart, line, points, free_y)?;
    }
    area.present()?;
    Ok(())
}

/// The last figure of a line.
fn end_ms(points: &Points) -> f64 {
    points.last().map_or(0.0, |last| last.1)
}

/// The line, a dot for each result, its name and last figure at its end, not above `free_y`; returns where the
/// next name may begin.
fn draw_line<Backend>(
    chart: &mut ChartContext<'_, Backend, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>,
    line: &Line,
    points: &Points,
    free_y: i32,
) -> Result<i32, Box<dyn Error>>
where
    Backend: DrawingBackend,
    Backend::ErrorType: 'static,
{
    chart.draw_series(LineSeries::new(
        points.iter().copied(),
        line.colour.stroke_width(2),
    ))?;
    let dot = |point: &(f64, f64)| Circle::new(*point, 4, line.colour.filled());
    chart.draw_series(points.iter().map(dot))?;
    let Some(last) = points.last() else {
        return Ok(free_y);
    };
    let area = chart.plotting_area();
    let (x, y) = area.map_coordinate(last);
    let label = format!(
        "{} ({})",
        line.label,
        time_text((last.1 * 10.0).round() / 10.0)
    );
    let style = ("sans-serif", 17).into_font().color(&line.colour);
    let root = area.strip_coord_spec();
    let (base_x, base_y) = root.get_base_pixel();
    let y = (y - base_y - 7).max(free_y);
    root.draw(&Text::new(label, (x - base_x + 16, y), style))?;
    Ok(y + LABEL_HEIGHT)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else {
        return Err("usage: recovery_curve RESULTS.json PICTURE.svg".into());
    };
    let text = std::fs::read_to_string(from).map_err(|error| format!("reading {from}: {error}"))?;
    draw(&results(&text)?, Path::new(to)).map_err(|error| format!("drawing {to}: {error}").into())
}
