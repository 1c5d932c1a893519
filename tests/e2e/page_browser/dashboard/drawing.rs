//! The drawing of a dashboard: its panels where Grafana has them, with titles, lines and legends.
//!
//! Owns the page. Refuses to ask for data.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use twinspan_testbed::prometheus::Series;

/// Grafana divides the width by this.
const COLUMNS: u32 = 24;
/// The width of a column and the height of a row, in pixels.
const COLUMN: u32 = 60;
const ROW: u32 = 32;
const GAP: u32 = 6;
/// Series that a legend names; the largest come first.
const NAMED: usize = 7;
const COLOURS: [&str; 10] =
    ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#ff9830", "#37872d", "#c4162a"];
const STYLE: &str = "html{overflow:hidden}body{margin:0;background:#111217;color:#ccccdc;font:12px sans-serif}\
    .p{position:absolute;background:#181b1f;border:1px solid #2c3235;border-radius:3px;overflow:hidden}\
    .r{position:absolute;font:bold 14px sans-serif;padding:6px 4px}.t{padding:5px 8px 0;font-weight:bold}\
    .v{text-align:center;font-size:40px;color:#fff;padding-top:10px}\
    .l{position:absolute;left:8px;right:8px;bottom:4px;line-height:15px;font-size:11px;white-space:nowrap;overflow:hidden}\
    .l span{margin-right:10px}.l i{display:inline-block;width:10px;height:3px;margin-right:4px;vertical-align:middle}\
    svg text{fill:#8e8e9c;font:10px sans-serif}.f{position:absolute;left:8px;color:#8e8e9c}";

/// A panel of the file, and the answer to each of its queries with the form of its legend.
#[derive(Debug)]
pub struct Panel {
    pub file: Value,
    pub answers: Vec<(String, Vec<Series>)>,
}

/// The page, and its height in pixels.
pub fn page(panels: &[Panel], step: Duration) -> Result<(String, u32)> {
    let end = panels.iter().flat_map(Panel::lines).flat_map(|line| line.points.last()).map(|(at, _)| *at);
    let end = end.fold(1.0, f64::max);
    let mut html = format!("<!doctype html><meta charset=utf-8><style>{STYLE}</style>");
    let mut bottom = 0;
    for panel in panels {
        let place = Place::of(&panel.file)?;
        bottom = bottom.max(place.top + place.height + GAP);
        panel.draw(&mut html, &place, end, step)?;
    }
    let foot = format!(
        "charts/twinspan/files/dashboard.json over {end:.0} s of a run with two replicas, drawn by a test of Twinspan; Grafana draws \
         the same queries in its own way"
    );
    write!(html, "<div class=f style='top:{}px'>{foot}</div>", bottom + GAP)?;
    Ok((html, bottom + ROW))
}

struct Place {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Place {
    fn of(panel: &Value) -> Result<Self> {
        let number = |field: &str| {
            let number = panel["gridPos"][field].as_u64().with_context(|| format!("no {field}: {panel}"))?;
            Ok::<u32, anyhow::Error>(u32::try_from(number)?)
        };
        let width = number("w")?.min(COLUMNS) * COLUMN - GAP;
        Ok(Self { left: number("x")? * COLUMN, top: number("y")? * ROW, width, height: number("h")? * ROW - GAP })
    }

    fn style(&self) -> String {
        let Self { left, top, width, height } = self;
        format!("left:{left}px;top:{top}px;width:{width}px;height:{height}px")
    }
}

struct Line<'a> {
    name: String,
    points: &'a [(f64, f64)],
}

impl Line<'_> {
    fn greatest(&self) -> f64 {
        self.points.iter().map(|(_, value)| *value).fold(0.0, f64::max)
    }
}

impl Panel {
    fn text(&self, field: &str) -> &str {
        self.file[field].as_str().unwrap_or_default()
    }

    /// The lines, the largest first.
    fn lines(&self) -> Vec<Line<'_>> {
        let mut lines: Vec<Line<'_>> = Vec::new();
        for (form, answer) in &self.answers {
            lines.extend(answer.iter().map(|series| Line { name: legend(form, series), points: &series.points }));
        }
        lines.sort_by(|a, b| b.greatest().total_cmp(&a.greatest()).then_with(|| a.name.cmp(&b.name)));
        lines
    }

    fn draw(&self, html: &mut String, place: &Place, end: f64, step: Duration) -> Result<()> {
        let (title, style) = (escaped(self.text("title")), place.style());
        match self.text("type") {
            "row" => write!(html, "<div class=r style='{style}'>{title}</div>")?,
            "stat" => {
                let value = self.lines().first().and_then(|line| line.points.last()).map_or(0.0, |(_, value)| *value);
                let colour = self.threshold(value);
                write!(html, "<div class=p style='{style};background:{colour}'><div class=t>{title}</div>")?;
                write!(html, "<div class=v>{}</div></div>", self.shown(value))?;
            }
            _ => {
                write!(html, "<div class=p style='{style}'><div class=t>{title}</div>")?;
                self.graph(html, place, end, step)?;
                html.push_str("</div>");
            }
        }
        Ok(())
    }

    fn graph(&self, html: &mut String, place: &Place, end: f64, step: Duration) -> Result<()> {
        let lines = self.lines();
        let greatest = lines.iter().map(Line::greatest).fold(0.0, f64::max);
        let most = if greatest > 0.0 { greatest * 1.05 } else { 1.0 };
        let (width, height) = (f64::from(place.width), f64::from(place.height) - 62.0);
        let (left, right, bottom) = (52.0, width - 10.0, height - 16.0);
        write!(html, "<svg width={width} height={height}>")?;
        for part in 0..=2 {
            let share = f64::from(part) / 2.0;
            let y = bottom - share * (bottom - 6.0);
            write!(html, "<line x1={left} x2={right} y1={y:.1} y2={y:.1} stroke='#2c3235'/>")?;
            write!(
                html,
                "<text x={:.1} y={:.1} text-anchor=end>{}</text>",
                left - 4.0,
                y + 3.0,
                self.shown(most * share)
            )?;
        }
        for at in [0.0, end / 2.0, end] {
            let x = left + at / end * (right - left);
            write!(html, "<text x={x:.1} y={:.1} text-anchor=middle>{at:.0} s</text>", bottom + 13.0)?;
        }
        for (number, line) in lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            // A gap in the answer is a gap in the line.
            let parts = line.points.chunk_by(|(a, _), (b, _)| b - a < 1.5 * step.as_secs_f64());
            for part in parts {
                let at = |(at, value): &(f64, f64)| {
                    let (x, y) = (left + at / end * (right - left), bottom - value.max(0.0) / most * (bottom - 6.0));
                    format!("{x:.1},{y:.1}")
                };
                let points: Vec<String> = part.iter().map(at).collect();
                write!(
                    html,
                    "<polyline points='{}' fill=none stroke='{colour}' stroke-width=1.5 />",
                    points.join(" ")
                )?;
            }
        }
        html.push_str("</svg><div class=l>");
        for (number, line) in lines.iter().take(NAMED).enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            write!(html, "<span><i style='background:{colour}'></i>{}</span>", escaped(&line.name))?;
        }
        if lines.len() > NAMED {
            write!(html, "<span>and {} more</span>", lines.len() - NAMED)?;
        }
        if lines.is_empty() {
            html.push_str("<span>nothing in this run</span>");
        }
        html.push_str("</div>");
        Ok(())
    }

    /// A value in the unit of the panel.
    fn shown(&self, value: f64) -> String {
        let digits = |value: f64| match value {
            _ if value == 0.0 => "0".to_owned(),
            _ if value.abs() < 10.0 => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
            _ => format!("{value:.0}"),
        };
        match self.file["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default() {
            "s" if value != 0.0 && value < 1.0 => format!("{} ms", digits(value * 1000.0)),
            "s" => format!("{} s", digits(value)),
            "ops" => format!("{}/s", digits(value)),
            "bytes" => format!("{} MiB", digits(value / f64::from(1 << 20))),
            _ => digits(value),
        }
    }

    fn threshold(&self, value: f64) -> &'static str {
        let steps = self.file["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
        let reached =
            steps.into_iter().flatten().rfind(|step| step["value"].as_f64().is_none_or(|least| value >= least));
        match reached.and_then(|step| step["color"].as_str()) {
            Some("red") => "#c4162a",
            Some("orange" | "yellow") => "#a35200",
            _ => "#37872d",
        }
    }
}

/// The name of a series: a legend with its labels.
fn legend(form: &str, series: &Series) -> String {
    let mut name = form.to_owned();
    for (label, value) in &series.labels {
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
