//! What the keys do.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::Palette;

const KEYS: [(&str, &str); 12] = [
    ("q", "quit"),
    ("1-6 tab", "choose a list"),
    ("up down", "move; also j k g G, page up, page down"),
    ("enter", "look into the unit of the line"),
    ("esc", "back; clears the filter first"),
    ("< >", "sort by the column beside; also left, right"),
    ("r", "turn the order round"),
    ("/", "filter by words; enter keeps it, esc clears it"),
    ("p space", "pause, go on"),
    ("+ -", "ask less often, more often"),
    ("? h", "this page"),
    (
        "",
        "v marks the largest first, ^ the smallest; - is unknown",
    ),
];

/// Draws the page.
pub(super) fn draw(frame: &mut Frame, area: Rect, palette: Palette) {
    let lines = KEYS.map(|(key, what)| Line::from(format!("{key:<9}{what}")));
    let title = Line::styled("keys (any key goes back)", palette.strong());
    let lines: Vec<Line> = std::iter::once(title).chain(lines).collect();
    frame.render_widget(Paragraph::new(lines), area);
}
