//! Plots of the campaign's numbers over time, as inline SVG.

use std::fmt::Write as _;

use crate::model::{Growth, duration};

/// Size of a plot, in units of its own.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 120.0;

/// One plot.
pub(super) struct Plot {
    pub(super) name: &'static str,
    /// Lines in it.
    pub(super) lines: Vec<Line>,
    /// Time at its right edge.
    pub(super) end: String,
    /// The largest value, at its upper edge.
    pub(super) most: u64,
}

/// One line of a plot.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    /// Attribute `points` of the SVG's `polyline`.
    pub(super) points: String,
    pub(super) last: u64,
}

type Value = fn(&Growth) -> u64;

/// Name, CSS class and value of a line.
type LineOf = (&'static str, &'static str, Value);

/// The plots, and the lines of each.
const PLOTS: &[(&str, &[LineOf])] = &[
    ("Places covered", &[("covered", "a", |growth| growth.coverage)]),
    ("Points", &[("found", "a", |growth| growth.points), ("failed", "b", |growth| growth.points_failed)]),
    ("Crashes", &[("found", "c", |growth| growth.crashes)]),
];

/// Draws the plots; none where there is nothing to draw.
pub(super) fn plots(growth: &[Growth]) -> Vec<Plot> {
    let Some(end) = growth.last().map(|last| last.seconds).filter(|_| growth.len() > 1) else { return Vec::new() };
    let draw = |(name, lines): &(&'static str, &[LineOf])| {
        let most = lines.iter().flat_map(|(.., value)| growth.iter().map(value)).max().unwrap_or(0);
        let lines = lines.iter().map(|(name, class, value)| Line {
            name,
            class,
            points: points(growth, *value, (end, most)),
            last: growth.last().map_or(0, value),
        });
        Plot { name, lines: lines.collect(), end: duration(end), most }
    };
    PLOTS.iter().map(draw).collect()
}

/// Gives the corners of a line; a value holds until the next one comes.
fn points(growth: &[Growth], value: Value, (end, most): (f64, u64)) -> String {
    let mut points = String::new();
    let mut before = None;
    for at in growth {
        #[expect(clippy::cast_precision_loss, reason = "a position in a plot")]
        let (x, y) = (at.seconds / end.max(1e-9) * WIDTH, HEIGHT - value(at) as f64 / most.max(1) as f64 * HEIGHT);
        if let Some(before) = before.filter(|before| (before - y).abs() > f64::EPSILON) {
            // Writing to a string cannot fail.
            let _ = write!(points, "{x:.1},{before:.1} ");
        }
        let _ = write!(points, "{x:.1},{y:.1} ");
        before = Some(y);
    }
    points
}
