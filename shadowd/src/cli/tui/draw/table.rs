//! The list: as many columns as fit, the first that is sorted by always among them.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Palette;
use crate::cli::tui::state::View;
use crate::cli::tui::tables::{Column, Row};
use crate::cli::tui::value::Value;

/// Between two columns.
const GAP: u16 = 1;
/// No column is narrower.
const LEAST: u16 = 3;
/// A column grows by so much at most: what belongs together stays in sight of each other.
const MORE: u16 = 40;

/// Draws head and rows. The list is turned page by page, so that the cursor moves and not the text.
pub(super) fn draw(frame: &mut Frame, area: Rect, view: &View, palette: Palette) {
    if area.height == 0 {
        return;
    }
    let shown = fitting(view.list.columns(), view.sort, area.width);
    let mut lines = vec![head(view, &shown, palette)];
    let page = usize::from(area.height - 1).max(1);
    let first = view.cursor / page * page;
    let rows = view.rows.iter().enumerate().skip(first).take(page);
    for (number, row) in rows {
        let line = line(row, &shown);
        lines.push(if number == view.cursor {
            line.style(palette.chosen())
        } else {
            line.style(tone(row, palette))
        });
    }
    if view.rows.is_empty() && view.answered {
        let why = match (view.filter.is_empty(), view.seen.interval_ns) {
            (false, _) => "nothing fits the filter",
            (true, 0) => "nothing was observed yet",
            (true, _) => "nothing",
        };
        lines.push(Line::styled(why, palette.faint()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The columns that fit, by place, each with its width. What is left goes to those that grow.
fn fitting(columns: &[Column], sort: usize, room: u16) -> Vec<(usize, u16)> {
    let width = |at: usize| columns[at].width + GAP;
    let mut used = width(0) + if sort == 0 { 0 } else { width(sort) };
    let mut places = vec![0];
    let mut full = false;
    for at in 1..columns.len() {
        if at == sort {
            places.push(at);
        } else if !full && used + width(at) <= room + GAP {
            used += width(at);
            places.push(at);
        } else {
            full = true; // none from further back: the order says what matters
        }
    }
    let left = room.saturating_sub(used - GAP);
    // On the narrowest terminals the first column gives way to the one that is sorted by.
    let lacking = (used - GAP).saturating_sub(room);
    let growing = places.iter().filter(|at| columns[**at].grows).count();
    let share = left / u16::try_from(growing.max(1)).unwrap_or(1);
    let sized = |at: usize| {
        let more = if columns[at].grows {
            share.min(MORE)
        } else {
            0
        };
        let less = if at == 0 { lacking } else { 0 };
        (
            at,
            (columns[at].width + more).saturating_sub(less).max(LEAST),
        )
    };
    places.into_iter().map(sized).collect()
}

fn head<'a>(view: &View, shown: &[(usize, u16)], palette: Palette) -> Line<'a> {
    let columns = view.list.columns();
    let numbers = view.rows.first();
    let mut spans = Vec::new();
    for (at, width) in shown {
        let mut title = columns[*at].title.to_owned();
        let chosen = *at == view.sort;
        if chosen {
            title.push(if view.descending { 'v' } else { '^' });
        }
        let right = numbers.is_some_and(|row| row.values[*at].is_number());
        let text = fit(&title, *width, right);
        let style = if chosen {
            palette.strong().patch(palette.of(Color::Cyan))
        } else {
            palette.strong()
        };
        spans.push(Span::styled(text, style));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

fn line<'a>(row: &Row, shown: &[(usize, u16)]) -> Line<'a> {
    let mut text = String::new();
    for (at, width) in shown {
        let value = &row.values[*at];
        text.push_str(&fit(&value.show(), *width, value.is_number()));
        text.push(' ');
    }
    Line::raw(text)
}

/// `text` in `width` cells; what is too long ends in `~`.
fn fit(text: &str, width: u16, right: bool) -> String {
    let width = usize::from(width);
    let wide = |text: &str| Span::raw(text.to_owned()).width();
    let mut fitted = text.to_owned();
    if wide(&fitted) > width {
        while wide(&fitted) + 1 > width && fitted.pop().is_some() {}
        fitted.push('~');
    }
    let gap = " ".repeat(width.saturating_sub(wide(&fitted)));
    if right { gap + &fitted } else { fitted + &gap }
}

/// Rows that an operator should see.
fn tone(row: &Row, palette: Palette) -> Style {
    let says = |word: &str| row.values.contains(&Value::text(word));
    if says("off") || says("reduced") {
        palette.of(Color::Yellow)
    } else if says("ended") {
        palette.faint()
    } else {
        Style::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tui::tables::List;

    #[test]
    fn columns_fit_and_the_one_sorted_by_stays() {
        for list in List::TABS.into_iter().chain(List::PARTS) {
            let columns = list.columns();
            for room in 20..300 {
                for sort in 0..columns.len() {
                    let shown = fitting(columns, sort, room);
                    assert!(shown.iter().any(|(at, _)| *at == sort), "{list:?} {room}");
                    assert!(shown.is_sorted());
                    let used: u16 = shown.iter().map(|(_, width)| width + GAP).sum();
                    let least = LEAST + GAP + columns[sort].width;
                    assert!(
                        used - GAP <= room.max(least),
                        "{list:?} {room} {sort}: {used}"
                    );
                }
            }
        }
    }

    #[test]
    fn text_is_cut_by_cells() {
        assert_eq!(fit("abc", 5, false), "abc  ");
        assert_eq!(fit("abc", 5, true), "  abc");
        assert_eq!(fit("abcdef", 5, false), "abcd~");
        assert_eq!(fit("語語語", 5, false), "語語~");
    }
}
