//! Aligned columns without borders, so that `awk` and eyes both can read them.

use std::fmt::Write;

use super::human;

/// Whether to colour. Colour only ever repeats what the words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub(super) bool);

/// What a piece of text says about the state of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// A heading.
    Heading,
    /// As it should be.
    Good,
    /// An operator should read it.
    Warning,
    /// Something is wrong.
    Bad,
}

impl Paint {
    /// `text` in the colour of `tone` (ECMA-48 SGR). `text` must be clean already.
    pub(super) fn apply(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone; control characters are replaced.
    pub(super) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            text: human::clean(text.as_ref()),
            tone,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows under a header. A header that begins with `>` marks a column aligned to the right.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

impl Table {
    /// An empty table, each line moved in by `indent` columns.
    pub(super) fn new<const N: usize>(indent: usize, header: [&'static str; N]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
            indent,
        }
    }

    /// An empty table of as many columns as there are headers.
    pub(super) fn of(header: Vec<&'static str>) -> Self {
        Self {
            header,
            rows: Vec::new(),
            indent: 0,
        }
    }

    /// Adds a row; has as many cells as the header.
    pub(super) fn push(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// Adds a row; has as many cells as the header.
    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.header.len());
        self.rows.push(cells.to_vec());
    }

    /// The table as text; nothing when it has no row.
    pub(super) fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        if self.rows.is_empty() {
            return text;
        }
        let titles: Vec<&str> = self
            .header
            .iter()
            .map(|title| title.trim_start_matches('>'))
            .collect();
        let mut widths: Vec<usize> = titles.iter().map(|title| width(title)).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(&cell.text));
            }
        }
        let heading: Vec<Cell> = titles
            .iter()
            .map(|title| Cell::new(title, Tone::Heading))
            .collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            self.line(&mut text, row, &widths, paint);
        }
        text
    }

    fn line(&self, text: &mut String, row: &[Cell], widths: &[usize], paint: Paint) {
        let mut line = " ".repeat(self.indent);
        for (index, (cell, widest)) in row.iter().zip(widths).enumerate() {
            let gap = " ".repeat(widest.saturating_sub(width(&cell.text)));
            let painted = paint.apply(cell.tone, &cell.text);
            let to_the_right = self
                .header
                .get(index)
                .is_some_and(|title| title.starts_with('>'));
            let separator = if index == 0 { "" } else { "  " };
            // Writing to a String cannot fail.
            let _ = if to_the_right {
                write!(line, "{separator}{gap}{painted}")
            } else {
                write!(line, "{separator}{painted}{gap}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Columns on the terminal, one a character: names of processes and hosts are nearly all ASCII.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(2, ["NAME", ">N", "STATE"]);
        table.row(["a".into(), "1".into(), Cell::new("up", Tone::Good)]);
        table.row(["longer\x1b".into(), "1,000".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_clean() {
        let wanted = "  NAME         N  STATE\n  a            1  up\n  longer\u{FFFD}  1,000\n";
        assert_eq!(sample().render(Paint(false)), wanted);
        assert_eq!(Table::new(0, ["X"]).render(Paint(false)), "");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let painted = sample().render(Paint(true));
        assert!(painted.contains("\x1b[32mup\x1b[0m"));
        let mut plain = String::new();
        let mut rest = painted.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, sample().render(Paint(false)));
    }
}
