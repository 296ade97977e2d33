//! Ratios as bars, in SVG: readable on a light and on a dark page.

use std::fmt::Write;

use crate::report::{Row, number, ratio};

const WIDTH: f64 = 860.0;
/// Where names end and bars begin.
const LEFT: f64 = 250.0;
/// The longest bar; figures follow.
const LONGEST: f64 = 400.0;
const LINE: f64 = 22.0;
const BAR: f64 = 12.0;
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.figure{font-size:12px}\
.bar{fill:#8c959f}.own{fill:#1f77d0}.one,.spread{stroke:#24292f;stroke-width:1}.one{stroke-dasharray:3 3;opacity:.6}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6e7681}.own{fill:#539bf5}.one,.spread{stroke:#e6edf3}}";

/// Bars that belong together.
pub(crate) struct Panel<'a> {
    pub(crate) title: String,
    /// What a bar is called, and what it shows: its ratio, or 1 where there is none.
    pub(crate) bars: Vec<(String, &'a Row)>,
}

/// A picture of these panels, one below the other.
pub(crate) fn svg(panels: &[Panel<'_>]) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    for panel in panels {
        y = draw(&mut body, panel, y + LINE);
    }
    let height = y + LINE / 2.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws from `top` on, and returns where it ended.
fn draw(out: &mut String, panel: &Panel<'_>, top: f64) -> f64 {
    let value = |row: &Row| row.ratio.unwrap_or(1.0);
    let most = |row: &Row| row.ratio.and(row.spread).map_or(value(row), |[_, most]| most);
    let widest = panel.bars.iter().map(|(_, row)| most(row)).fold(1.0, f64::max);
    let x = |value: f64| LEFT + value / widest * LONGEST;
    let mut text = format!("<text class=\"title\" x=\"0\" y=\"{top}\">{}</text>\n", panel.title);
    let first = top + LINE / 2.0;
    let mut y = first;
    for (name, row) in &panel.bars {
        let (middle, baseline) = (y + LINE / 2.0, y + LINE / 2.0 + 4.5);
        let class = if row.subject.starts_with("Signet") { "own" } else { "bar" };
        let (bar, length) = (middle - BAR / 2.0, x(value(row)) - LEFT);
        let _infallible = writeln!(
            text,
            "<text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{bar}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>",
            LEFT - 8.0
        );
        if let (Some(_), Some([least, most])) = (row.ratio, row.spread) {
            let (from, to) = (x(least), x(most));
            let _infallible = writeln!(
                text,
                "<path class=\"spread\" d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {0}v6M{to:.1} {0}v6\"/>",
                middle - 3.0
            );
        }
        let compared = row.ratio.map(|own| format!("{} ×, ", ratio(own))).unwrap_or_default();
        let figure = format!("{compared}{} {}", number(row.value), row.unit);
        let right = x(most(row)).max(x(1.0)) + 8.0;
        let _infallible =
            writeln!(text, "<text class=\"figure\" x=\"{right:.1}\" y=\"{baseline}\">{figure}</text>");
        y += LINE;
    }
    let one = x(1.0);
    let _infallible = writeln!(text, "<path class=\"one\" d=\"M{one:.1} {first}V{y}\"/>");
    out.push_str(&text);
    y
}
