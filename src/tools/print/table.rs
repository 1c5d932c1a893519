//! Columns: aligned by the cells that characters take on a terminal, two spaces between them.
//!
//! Owns the layout. On a terminal the last column is wrapped inside its own column, or stands below its line where it
//! has no room; elsewhere nothing is wrapped, for `grep` and `awk`. Refuses to know the columns.

use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use super::text::{Tone, clean};

/// A cell, and the meaning of its colour.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Option<Tone>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: None }
    }
}

/// A number of which only more than none deserves a look.
pub fn count(number: i64, tone: Tone) -> Cell {
    match number {
        0 => Cell::from("-".to_owned()),
        _ => Cell::toned(number.to_string(), Some(tone)),
    }
}

/// A table without borders. The last column may be long.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    head: Vec<String>,
    lines: Vec<Vec<Cell>>,
}

impl Columns {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self::headed(&head)
    }

    /// The same with a number of columns that is not known before.
    pub fn headed(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), lines: Vec::new() }
    }

    pub fn add<C: Into<Cell>>(&mut self, line: impl IntoIterator<Item = C>) {
        self.lines.push(line.into_iter().map(Into::into).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Columns of the terminal that standard output is; 0 is no terminal, and no limit.
static WIDTH: AtomicU16 = AtomicU16::new(0);

/// From now on, tables fit into the terminal, if standard output is one.
pub fn fit_terminal() {
    WIDTH.store(Table::new().width().unwrap_or_default(), Ordering::Relaxed);
}

/// Space between columns.
const GAP: u16 = 2;
/// A narrower last column would be longer than it is wide.
const NARROWEST: u16 = 20;

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = WIDTH.load(Ordering::Relaxed);
        let last = self.head.len().saturating_sub(1);
        let table = self.table(self.head.len());
        let widths = table.column_max_content_widths();
        let others: u16 = widths.iter().take(last).map(|width| width + GAP).sum();
        let fits = others.saturating_add(widths.last().copied().unwrap_or_default()) <= width;
        if width == 0 || fits || last == 0 {
            return shown(f, &table);
        }
        if width >= others.saturating_add(NARROWEST) {
            let mut table = table;
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            return shown(f, &table);
        }
        // The head, then each line with its last cell below it.
        let table = self.table(last).to_string();
        let mut lines = table.lines();
        writeln!(f, "{}", lines.next().unwrap_or_default().trim_end())?;
        for (line, cells) in lines.zip(&self.lines) {
            writeln!(f, "{}", line.trim_end())?;
            match cells.get(last) {
                Some(below) if !below.text.is_empty() => writeln!(f, "  {}", clean(&below.text))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Columns {
    /// The first columns, none of which is wrapped.
    fn table(&self, columns: usize) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).enforce_styling();
        table.style_text_only();
        table.set_content_arrangement(ContentArrangement::Disabled).set_header(self.head.iter().take(columns));
        for line in &self.lines {
            table.add_row(line.iter().take(columns).map(cell));
        }
        for (n, column) in table.column_iter_mut().enumerate() {
            let is_last = n + 1 == self.head.len();
            column.set_padding((0, if is_last { 0 } else { GAP }));
            if !is_last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
    }
}

fn shown(f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
    table.lines().try_for_each(|line| writeln!(f, "{}", line.trim_end()))
}

fn cell(cell: &Cell) -> comfy_table::Cell {
    let shown = comfy_table::Cell::new(clean(&cell.text));
    match cell.tone {
        None => shown,
        Some(Tone::Good) => shown.fg(comfy_table::Color::DarkGreen),
        Some(Tone::Doubtful) => shown.fg(comfy_table::Color::DarkYellow),
        Some(Tone::Bad) => shown.fg(comfy_table::Color::DarkRed),
        Some(Tone::Heading) => shown.add_attribute(comfy_table::Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() {
        let mut columns = Columns::new(["A", "LONG", "C"]);
        columns.add(["wider".to_owned(), "x".to_owned(), String::new()]);
        assert_eq!(columns.to_string(), "A      LONG  C\nwider  x\n");
    }

    #[test]
    fn a_name_of_wide_characters_keeps_the_columns_straight_and_nothing_forges_a_line() {
        let mut columns = Columns::new(["NAME", "WHY"]);
        columns.add(["订单".to_owned(), "one\nforged\u{1b}[2J".to_owned()]);
        columns.add(["abcd".to_owned(), "two".to_owned()]);
        assert_eq!(columns.to_string(), "NAME  WHY\n订单  one\\nforged\\u{1b}[2J\nabcd  two\n");
    }

    #[test]
    fn none_is_a_dash_and_more_has_a_colour() {
        let mut columns = Columns::new(["LOST", "WHY"]);
        columns.add([count(0, Tone::Bad), count(2, Tone::Bad)]);
        let text = columns.to_string();
        assert!(text.contains("-     \u{1b}["), "{text:?}");
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), "LOST  WHY\n-     2\n");
    }

    #[test]
    fn a_terminal_wraps_the_last_column_inside_itself_or_puts_it_below() {
        let mut columns = Columns::new(["NAME", "WHY"]);
        columns.add(["shop/user".to_owned(), "a text of some words that is too long".to_owned()]);
        WIDTH.store(31, Ordering::Relaxed);
        let text = columns.to_string();
        WIDTH.store(0, Ordering::Relaxed);
        assert_eq!(text, "NAME       WHY\nshop/user  a text of some words\n           that is too long\n");
        columns.add(["b".to_owned(), String::new()]);
        WIDTH.store(30, Ordering::Relaxed);
        let text = columns.to_string();
        WIDTH.store(0, Ordering::Relaxed);
        assert_eq!(text, "NAME\nshop/user\n  a text of some words that is too long\nb\n");
    }
}
