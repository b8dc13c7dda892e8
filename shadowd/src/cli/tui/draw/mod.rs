//! From a view to cells on a terminal of any size.

mod detail;
mod help;
mod table;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::state::View;
use crate::cli::human;

/// Whether to colour. Colour only ever repeats what the words say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette(pub(super) bool);

impl Palette {
    fn of(self, colour: Color) -> Style {
        if self.0 {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        self.of(Color::DarkGray)
    }
}

/// Lines that the title needs beside the tabs.
const TITLE_FROM: u16 = 8;
/// Lines from which the unit under the cursor has its past shown.
const PAST_FROM: u16 = 16;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame, view: &View, palette: Palette) {
    let area = frame.area();
    if view.help {
        return help::draw(frame, area, palette);
    }
    let title = u16::from(area.height >= TITLE_FROM);
    let detail = match (view.unit.is_some(), area.height) {
        (true, PAST_FROM..) => 7,
        (true, 10..) => 3,
        (false, PAST_FROM..) if view.detail.is_some() => 2,
        _ => 0,
    };
    let [top, tabs, above, body, below, foot] = Layout::vertical([
        Constraint::Length(title),
        Constraint::Length(1),
        Constraint::Length(if view.unit.is_some() { detail } else { 0 }),
        Constraint::Min(0),
        Constraint::Length(if view.unit.is_some() { 0 } else { detail }),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(headline(view, palette)), top);
    frame.render_widget(Paragraph::new(tab_line(view, tabs, palette)), tabs);
    if view.unit.is_some() {
        detail::draw(frame, above, view, palette);
    } else {
        detail::lines(frame, below, view, palette);
    }
    table::draw(frame, body, view, palette);
    frame.render_widget(Paragraph::new(foot_line(view, palette)), foot);
}

/// The host in one line.
fn headline<'a>(view: &View, palette: Palette) -> Line<'a> {
    let host = &view.seen.host;
    let mut words = Vec::new();
    if let Some(cpu) = host.cpu {
        words.push(format!("cpu {cpu:.2} of {}", host.processors));
    }
    if host.memory_bytes > 0 {
        let used = host
            .memory_bytes
            .saturating_sub(host.memory_available_bytes);
        let all = human::bytes(host.memory_bytes);
        words.push(format!("memory {} of {all}", human::bytes(used)));
        let [one, five, fifteen] = host.load;
        words.push(format!("load {one:.2} {five:.2} {fifteen:.2}"));
    }
    let pressures = [
        ("cpu", host.cpu_pressure),
        ("memory", host.memory_pressure),
        ("io", host.io_pressure),
    ];
    for (what, share) in pressures {
        if let Some(share) = share.filter(|share| *share >= 0.01) {
            words.push(format!("waits for {what} {}", human::share(share)));
        }
    }
    let lost = view.seen.losses.dropped;
    let mut line = Line::from(vec![
        Span::styled("shadowd", palette.strong()),
        Span::raw("  "),
        Span::raw(words.join("   ")),
    ]);
    if lost > 0 {
        let lost = format!("   {} dropped", human::count(lost));
        line.push_span(Span::styled(lost, palette.of(Color::Yellow)));
    }
    line
}

/// The tabs; where they do not fit, the chosen one alone.
fn tab_line<'a>(view: &View, area: Rect, palette: Palette) -> Line<'a> {
    let (lists, chosen) = view.tabs;
    let mut spans = Vec::new();
    if let Some(unit) = view.unit {
        let unit = Span::styled(human::clean(unit), palette.strong());
        spans.extend([unit, Span::raw("  ")]);
    }
    for (number, list) in lists.iter().enumerate() {
        let text = format!(" {} {} ", number + 1, list.title());
        let style = if number == chosen {
            palette.chosen()
        } else {
            Style::new()
        };
        spans.push(Span::styled(text, style));
    }
    let line = Line::from(spans);
    if line.width() <= usize::from(area.width) {
        return line;
    }
    let title = format!(" {} ", view.list.title());
    let mut line = Line::from(Span::styled(title, palette.chosen()));
    if let Some(unit) = view.unit {
        line.push_span(Span::raw(format!(" {}", human::clean(unit))));
    }
    line
}

/// Trouble first, then the filter, then what the keys do.
fn foot_line<'a>(view: &View, palette: Palette) -> Line<'a> {
    if let Some(trouble) = view.trouble {
        let text = format!("not connected, retrying: {}", human::clean(trouble));
        return Line::styled(text, palette.bad());
    }
    if view.typing {
        let text = format!("filter: {}_", human::clean(view.filter));
        return Line::styled(text, palette.strong());
    }
    if !view.answered {
        return Line::raw("waiting for the first answer");
    }
    let mut words = Vec::new();
    if view.paused {
        words.push(Span::styled(
            "PAUSED  ",
            palette.of(Color::Yellow).patch(palette.strong()),
        ));
    }
    if !view.filter.is_empty() {
        let text = format!("/{}  ", human::clean(view.filter));
        words.push(Span::styled(text, palette.strong()));
    }
    let each = human::span(view.interval);
    let keys = match view.unit {
        Some(_) => "esc back",
        None => "enter look into",
    };
    let rest = format!(
        "{}/{}  each {each}  {keys}  / filter  <> sort  r reverse  p pause  ? help  q quit",
        (view.cursor + 1).min(view.rows.len()),
        view.rows.len(),
    );
    words.push(Span::styled(rest, palette.faint()));
    Line::from(words)
}
