//! Tables as kubectl prints them: no lines, columns three spaces apart.
//!
//! A colour is for a whole row and is put on after the columns are laid out, so that it never moves one.

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Layout, Width, presets};

use super::harmless;
use crate::terminal::Colours;

/// How much a row needs somebody.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    /// It is over, or does not count.
    Faint,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

/// A row.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Row {
    pub cells: Vec<String>,
    pub tone: Tone,
}

/// A table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn push(&mut self, tone: Tone, cells: Vec<String>) {
        self.rows.push(Row { cells, tone });
    }

    /// As it is printed, with its header.
    pub fn render(&self, colours: Colours) -> String {
        let mut layout = layout();
        layout.set_header(self.header.clone());
        for row in &self.rows {
            layout.add_row(cells(row));
        }
        let tones = std::iter::once(Tone::Plain).chain(self.rows.iter().map(|row| row.tone));
        lines(&mut layout, tones, colours)
    }

    /// How wide its columns are, so that a row that comes later stands below them.
    pub fn widths(&self) -> Vec<u16> {
        let mut layout = layout();
        layout.set_header(self.header.clone());
        for row in &self.rows {
            layout.add_row(cells(row));
        }
        layout.column_max_content_widths()
    }

    /// Its rows alone, no narrower than those columns.
    pub fn render_below(&self, widths: &[u16], colours: Colours) -> String {
        let mut layout = layout();
        for row in &self.rows {
            layout.add_row(cells(row));
        }
        let constraints = widths
            .iter()
            .map(|width| ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(3))));
        layout.set_constraints(constraints);
        lines(&mut layout, self.rows.iter().map(|row| row.tone), colours)
    }
}

fn layout() -> Layout {
    let mut layout = Layout::new();
    layout.load_style(presets::NOTHING);
    // A line of a terminal may be too short; a script's must not be broken.
    layout.set_content_arrangement(ContentArrangement::Disabled);
    layout
}

/// A cell is one line, or rows and their colours would not meet.
fn cells(row: &Row) -> Vec<String> {
    row.cells.iter().map(|cell| harmless(cell)).collect()
}

fn lines(layout: &mut Layout, tones: impl Iterator<Item = Tone>, colours: Colours) -> String {
    for column in layout.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for (line, tone) in layout.lines().zip(tones) {
        let line = line.trim_end();
        match (colours, tone.code()) {
            (Colours::On, Some(code)) => {
                text.push_str("\u{1b}[");
                text.push_str(code);
                text.push('m');
                text.push_str(line);
                text.push_str("\u{1b}[0m");
            }
            (Colours::On, None) | (Colours::Off, _) => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "PRESENCE", "HOST"]);
        table.push(
            Tone::Bad,
            vec!["kiosk-7".into(), "Offline".into(), "vm".into()],
        );
        table.push(
            Tone::Plain,
            vec!["a".into(), "Online".into(), "größer".into()],
        );
        table
    }

    #[test]
    fn columns_stand_below_one_another_and_lines_do_not_trail() {
        assert_eq!(
            table().render(Colours::Off),
            "NAME      PRESENCE   HOST\nkiosk-7   Offline    vm\na         Online     größer\n"
        );
    }

    #[test]
    fn a_colour_moves_nothing() {
        let plain = table().render(Colours::Off);
        let coloured = table().render(Colours::On);
        assert!(coloured.contains("\u{1b}[31mkiosk-7"), "{coloured:?}");
        assert_eq!(
            coloured.replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""),
            plain
        );
    }

    #[test]
    fn a_later_row_stands_below_the_first_ones() {
        let mut later = Table::new(&[]);
        later.push(Tone::Plain, vec!["b".into(), "Stale".into(), "x".into()]);
        assert_eq!(
            later.render_below(&table().widths(), Colours::Off),
            "b         Stale      x\n"
        );
    }

    #[test]
    fn a_cell_never_breaks_its_line() {
        let mut table = Table::new(&["NAME"]);
        table.push(Tone::Plain, vec!["a\nb\u{1b}[31m".into()]);
        assert_eq!(table.render(Colours::Off).lines().count(), 2);
    }
}
