//! Charts as SVG: panels side by side, each with axes, ticks and lines.
//!
//! Owns the drawing; the same panels give the same text. Refuses to know the meaning of a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Legible on white and on black.
const TEXT: &str = "#808891";
const COLOURS: [&str; 4] = ["#2f8fd0", "#d9792b", "#3fa05a", "#b05ac0"];
/// Panels in a row.
const COLUMNS: usize = 3;

/// An axis from the least to the greatest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    Linear,
    Logarithmic,
}

#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    /// The label of the horizontal axis and of the vertical one, with units.
    pub axes: [&'static str; 2],
    pub scales: [Scale; 2],
    pub lines: BTreeMap<String, Vec<(f64, f64)>>,
    /// True if every point is marked.
    pub marked: bool,
}

/// Draws the panels, with one colour for each name of a line.
pub fn draw(panels: &[Panel]) -> String {
    let columns = panels.len().clamp(1, COLUMNS);
    let (width, height) = (columns as f64 * WIDTH, panels.len().div_ceil(columns).max(1) as f64 * HEIGHT);
    let mut names: Vec<&String> = panels.iter().flat_map(|panel| panel.lines.keys()).collect();
    names.sort();
    names.dedup();
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"{TEXT}\">"
    );
    for (n, panel) in panels.iter().enumerate() {
        let (x, y) = ((n % columns) as f64 * WIDTH, (n / columns) as f64 * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        svg.push_str(&panel_of(panel, &names));
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// The pixels of both ends.
    pixels: [f64; 2],
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, scale: Scale, pixels: [f64; 2]) -> Self {
        let usable = values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0));
        let (low, high) = usable.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        match scale {
            Scale::Linear => Self { scale, low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 }, pixels },
            Scale::Logarithmic => Self { scale, low: low / 1.1, high: high * 1.1, pixels },
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.pixels[0] + part.clamp(0.0, 1.0) * (self.pixels[1] - self.pixels[0])
    }

    /// Values of the form 1, 2 or 5 times a power of ten; a long logarithmic axis has the powers only.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low.max(f64::MIN_POSITIVE)).log10();
        match self.scale {
            Scale::Linear => {
                let rough = (self.high - self.low) / 4.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                (0..=5u32).map(|n| f64::from(n) * step).filter(|tick| *tick <= self.high).collect()
            }
            Scale::Logarithmic => {
                let steps: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let all = powers.flat_map(|power| steps.iter().map(move |m| m * 10f64.powi(power)));
                all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
            }
        }
    }
}

fn panel_of(panel: &Panel, names: &[&String]) -> String {
    let points = || panel.lines.values().flatten();
    let x = Axis::over(points().map(|p| p.0), panel.scales[0], [LEFT, WIDTH - RIGHT]);
    let y = Axis::over(points().map(|p| p.1), panel.scales[1], [HEIGHT - BOTTOM, TOP]);
    let mut svg = String::new();
    text(&mut svg, LEFT, 16.0, "start", &panel.title);
    text(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", panel.axes[0]);
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = writeln!(
        svg,
        "<text transform=\"translate(12 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escaped(panel.axes[1])
    );
    for tick in x.ticks() {
        let at = x.at(tick);
        rule(&mut svg, [at, at], [TOP, HEIGHT - BOTTOM]);
        text(&mut svg, at, HEIGHT - BOTTOM + 14.0, "middle", &label(tick));
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        rule(&mut svg, [LEFT, WIDTH - RIGHT], [at, at]);
        text(&mut svg, LEFT - 5.0, at + 4.0, "end", &label(tick));
    }
    for (n, (name, line)) in panel.lines.iter().enumerate() {
        let known = names.iter().position(|known| *known == name).unwrap_or_default();
        let colour = COLOURS[known % COLOURS.len()];
        let pixels: Vec<(f64, f64)> = line.iter().map(|(a, b)| (x.at(*a), y.at(*b))).collect();
        let path: Vec<String> = pixels.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>",
            path.join(" ")
        );
        for (a, b) in pixels.iter().filter(|_| panel.marked) {
            let _ = writeln!(svg, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let at = LEFT + n as f64 * 90.0;
        let _ = writeln!(svg, "<rect x=\"{at}\" y=\"22\" width=\"10\" height=\"4\" fill=\"{colour}\"/>");
        text(&mut svg, at + 14.0, 28.0, "start", name);
    }
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(what));
}

fn rule(svg: &mut String, x: [f64; 2], y: [f64; 2]) {
    let _ = writeln!(
        svg,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{TEXT}\" stroke-opacity=\"0.3\"/>",
        x[0], y[0], x[1], y[1]
    );
}

fn escaped(what: &str) -> String {
    what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn label(tick: f64) -> String {
    if tick >= 1000.0 { format!("{}k", tick / 1000.0) } else { format!("{}", (tick * 1000.0).round() / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let line = |factor: f64| (1..=9).map(|n| (f64::from(n) * factor, f64::from(n) / 9.0)).collect();
        Panel {
            title: "a < b".to_owned(),
            axes: ["ms", "part"],
            scales: [Scale::Logarithmic, Scale::Linear],
            lines: BTreeMap::from([("ideal".to_owned(), line(1.0)), ("twinspan".to_owned(), line(2.0))]),
            marked: true,
        }
    }

    #[test]
    fn the_same_panels_give_the_same_text() {
        let drawn = draw(&[panel(), panel()]);
        assert_eq!(drawn, draw(&[panel(), panel()]));
        assert_eq!((drawn.matches("<polyline").count(), drawn.matches("<circle").count()), (4, 36));
        assert!(drawn.contains("a &lt; b") && drawn.ends_with("</svg>\n"));
        assert!(drawn.contains(">ms</text>") && drawn.contains(">part</text>"));
    }

    #[test]
    fn a_panel_without_points_is_drawn() {
        let empty = Panel { lines: BTreeMap::from([("ideal".to_owned(), Vec::new())]), ..panel() };
        assert!(!draw(&[empty]).contains("NaN"));
        let zero = Panel { lines: BTreeMap::from([("ideal".to_owned(), vec![(0.0, 0.0)])]), ..panel() };
        assert!(!draw(&[zero]).contains("NaN"));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = |values: [f64; 2], scale| Axis::over(values.into_iter(), scale, [0.0, 1.0]).ticks();
        assert_eq!(axis([1.0, 40.0], Scale::Logarithmic), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(axis([10.0, 10_000.0], Scale::Logarithmic), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(axis([0.0, 1.0], Scale::Linear), [0.0, 0.5, 1.0]);
    }
}
