//! The live view as a state machine: keys and answers in, what to draw out. It reads no clock, no
//! terminal and no socket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::tables::{List, Row, rows};
use crate::facts::{Observation, ProbeStatus, UnitUse};

/// Answers remembered for the lines of a unit.
pub(super) const HISTORY: usize = 120;
/// Units whose past is remembered.
const HISTORIES: usize = 1_000;
/// A longer filter is not typed.
const MAX_FILTER: usize = 64;
/// Between two answers, ms.
const INTERVALS: [u64; 8] = [250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/// What comes in.
#[derive(Debug)]
pub(super) enum Input {
    /// A key.
    Key(KeyEvent),
    /// The terminal has so many lines now.
    Height(u16),
    /// The daemon's word.
    Answer(Arc<Observation>, Vec<ProbeStatus>),
    /// Why there is none.
    Failed(String),
}

/// How a list is looked at.
#[derive(Clone, Debug)]
struct Shape {
    sort: usize,
    reverse: bool,
    /// The row under the cursor: by key while it is there, else by place.
    key: Option<String>,
    place: usize,
}

/// What a unit did, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// Shares of a processor.
    pub(super) cpu: VecDeque<f64>,
    /// Bytes in a second, both ways.
    pub(super) network: VecDeque<f64>,
}

/// The live view.
#[derive(Debug)]
pub(super) struct State {
    tab: usize,
    /// The unit that is looked into, and which part of it.
    unit: Option<(String, usize)>,
    shapes: Vec<Shape>,
    filter: String,
    typing: bool,
    paused: bool,
    help: bool,
    ended: bool,
    interval: usize,
    page: usize,
    seen: Arc<Observation>,
    probes: Vec<ProbeStatus>,
    pasts: BTreeMap<String, Past>,
    /// Why the newest question had no answer.
    trouble: Option<String>,
    answered: bool,
}

/// What to draw.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) list: List,
    /// Titles, and which is chosen.
    pub(super) tabs: (&'static [List], usize),
    pub(super) rows: Vec<Row>,
    /// The row under the cursor.
    pub(super) cursor: usize,
    pub(super) sort: usize,
    /// Whether the largest comes first.
    pub(super) descending: bool,
    pub(super) filter: &'a str,
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) interval: Duration,
    pub(super) seen: &'a Observation,
    /// The unit that is looked into.
    pub(super) unit: Option<&'a str>,
    /// What is known of it, or of the unit under the cursor.
    pub(super) detail: Option<(&'a UnitUse, Option<&'a Past>)>,
    pub(super) trouble: Option<&'a str>,
    pub(super) answered: bool,
}

impl State {
    /// A view that has seen nothing and asks each `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        let shape = |list: List| Shape {
            sort: list.first_sort(),
            reverse: false,
            key: None,
            place: 0,
        };
        let lists = List::TABS.into_iter().chain(List::PARTS);
        let wanted = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let interval = INTERVALS.iter().position(|step| *step >= wanted);
        let shapes: Vec<Shape> = lists.map(shape).collect();
        debug_assert_eq!(shapes.len(), List::COUNT);
        Self {
            tab: 0,
            unit: None,
            shapes,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            ended: false,
            interval: interval.unwrap_or(INTERVALS.len() - 1),
            page: 10,
            seen: Arc::default(),
            probes: Vec::new(),
            pasts: BTreeMap::new(),
            trouble: None,
            answered: false,
        }
    }

    /// Sorts units and processes by the column `title`.
    pub(super) fn sort_by(&mut self, title: &str) {
        for list in [List::Units, List::Processes] {
            let at = list
                .columns()
                .iter()
                .position(|column| column.title == title);
            self.shapes[list as usize].sort = at.unwrap_or(0);
        }
    }

    /// Whether the user has enough.
    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the daemon shall be asked.
    pub(super) const fn asks(&self) -> bool {
        !self.paused
    }

    /// Between two questions.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(INTERVALS[self.interval])
    }

    /// Takes what came.
    pub(super) fn on(&mut self, input: Input) {
        match input {
            Input::Key(key) if key.kind == KeyEventKind::Release => {}
            Input::Key(key) => self.key(key),
            // Title, tabs, head and foot are no rows.
            Input::Height(lines) => self.page = usize::from(lines.saturating_sub(4)).max(1),
            Input::Failed(why) => self.trouble = Some(why),
            Input::Answer(seen, probes) => {
                self.trouble = None;
                self.answered = true;
                if !self.paused {
                    self.remember(&seen);
                    (self.seen, self.probes) = (seen, probes);
                    self.settle();
                }
            }
        }
    }

    fn remember(&mut self, seen: &Observation) {
        if seen.at == self.seen.at || seen.interval_ns == 0 {
            return; // the same interval again
        }
        let seconds = seen.interval_ns as f64 / 1e9;
        let here: std::collections::BTreeSet<&str> =
            seen.units.iter().map(|unit| unit.unit.as_str()).collect();
        self.pasts.retain(|unit, _| here.contains(unit.as_str()));
        for unit in &seen.units {
            if self.pasts.len() >= HISTORIES && !self.pasts.contains_key(&unit.unit) {
                continue;
            }
            let past = self.pasts.entry(unit.unit.clone()).or_default();
            let bytes = unit.network.rx_bytes.saturating_add(unit.network.tx_bytes);
            for (line, value) in [
                (&mut past.cpu, unit.cpu),
                (&mut past.network, bytes as f64 / seconds),
            ] {
                if line.len() >= HISTORY {
                    line.pop_front();
                }
                line.push_back(value);
            }
        }
    }

    fn list(&self) -> List {
        match &self.unit {
            Some((_, part)) => List::PARTS[*part],
            None => List::TABS[self.tab],
        }
    }

    fn shape(&mut self) -> &mut Shape {
        let list = self.list();
        &mut self.shapes[list as usize]
    }

    fn key(&mut self, key: KeyEvent) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            self.ended |= matches!(key.code, KeyCode::Char('c'));
            return;
        }
        if self.typing {
            return self.type_filter(key.code);
        }
        if self.help {
            self.help = false;
            self.ended |= key.code == KeyCode::Char('q');
            return;
        }
        match key.code {
            KeyCode::Char('q') => self.ended = true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('+' | '=') => {
                self.interval = (self.interval + 1).min(INTERVALS.len() - 1)
            }
            KeyCode::Char('-') => self.interval = self.interval.saturating_sub(1),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('r') => {
                let shape = self.shape();
                shape.reverse = !shape.reverse;
            }
            KeyCode::Right | KeyCode::Char('>') => self.sort(1),
            KeyCode::Left | KeyCode::Char('<') => self.sort(-1),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(-1),
            KeyCode::Char(digit @ '1'..='6') => self.open(digit as usize - '1' as usize),
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(self.page.cast_signed()),
            KeyCode::PageUp => self.step(-self.page.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            _ => {}
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.len() < MAX_FILTER => self.filter.push(letter),
            _ => {}
        }
        self.settle();
    }

    fn sort(&mut self, by: isize) {
        let count = self.list().columns().len().cast_signed();
        let shape = self.shape();
        let next = (shape.sort.cast_signed() + by).rem_euclid(count);
        shape.sort = next.unsigned_abs();
        shape.reverse = false;
    }

    fn turn(&mut self, by: isize) {
        let turned = |at: usize, count: usize| {
            (at.cast_signed() + by)
                .rem_euclid(count.cast_signed())
                .unsigned_abs()
        };
        match &mut self.unit {
            Some((_, part)) => *part = turned(*part, List::PARTS.len()),
            None => self.tab = turned(self.tab, List::TABS.len()),
        }
    }

    fn open(&mut self, number: usize) {
        match &mut self.unit {
            Some((_, part)) => *part = number.min(List::PARTS.len() - 1),
            None => self.tab = number.min(List::TABS.len() - 1),
        }
    }

    fn enter(&mut self) {
        if self.unit.is_some() {
            return;
        }
        let (rows, cursor) = self.rows();
        if let Some(unit) = rows.into_iter().nth(cursor).and_then(|row| row.unit) {
            self.unit = Some((unit, 0));
            self.filter.clear();
            for part in List::PARTS {
                let shape = &mut self.shapes[part as usize];
                (shape.key, shape.place) = (None, 0);
            }
        }
    }

    fn back(&mut self) {
        if self.filter.is_empty() {
            self.unit = None;
        } else {
            self.filter.clear();
        }
        self.settle();
    }

    fn step(&mut self, by: isize) {
        let (rows, cursor) = self.rows();
        let last = rows.len().saturating_sub(1);
        let place = cursor
            .cast_signed()
            .saturating_add(by)
            .max(0)
            .unsigned_abs()
            .min(last);
        let key = rows.into_iter().nth(place).map(|row| row.key);
        let shape = self.shape();
        (shape.key, shape.place) = (key, place);
    }

    /// The cursor's row may have gone: then the cursor stays at its place.
    fn settle(&mut self) {
        let (rows, cursor) = self.rows();
        let key = rows.into_iter().nth(cursor).map(|row| row.key);
        let shape = self.shape();
        // A cursor that was never moved stays at the top.
        if shape.key.is_some() {
            (shape.key, shape.place) = (key, cursor);
        }
    }

    /// The rows of the list as they are shown, and the one under the cursor.
    fn rows(&self) -> (Vec<Row>, usize) {
        let list = self.list();
        let shape = &self.shapes[list as usize];
        let unit = self.unit.as_ref().map(|(unit, _)| unit.as_str());
        let mut rows = rows(list, &self.seen, &self.probes, unit);
        if !self.filter.is_empty() {
            let wanted = self.filter.to_lowercase();
            rows.retain(|row| {
                let words = row.values.iter().filter(|value| !value.is_number());
                let mut words = words.chain(row.values.first());
                words.any(|value| value.show().to_lowercase().contains(&wanted))
            });
        }
        let descending = self.descending(list, &rows);
        rows.sort_by(|a, b| {
            let order = a.values[shape.sort].order(&b.values[shape.sort]);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| a.key.cmp(&b.key))
        });
        let kept = shape.key.as_ref();
        let kept = kept.and_then(|key| rows.iter().position(|row| row.key == *key));
        let cursor = kept.unwrap_or(shape.place.min(rows.len().saturating_sub(1)));
        (rows, cursor)
    }

    /// Numbers start with the largest, words with the first letter.
    fn descending(&self, list: List, rows: &[Row]) -> bool {
        let shape = &self.shapes[list as usize];
        let first = rows.first().map(|row| row.values[shape.sort].is_number());
        first.unwrap_or(true) != shape.reverse
    }

    /// What to draw now.
    pub(super) fn view(&self) -> View<'_> {
        let list = self.list();
        let (rows, cursor) = self.rows();
        let unit = self.unit.as_ref().map(|(unit, _)| unit.as_str());
        let shown = unit.or_else(|| rows.get(cursor)?.unit.as_deref());
        let found = |name: &str| self.seen.units.iter().find(|unit| unit.unit == name);
        let detail = shown
            .filter(|_| unit.is_some() || list == List::Units)
            .and_then(found)
            .map(|unit| (unit, self.pasts.get(&unit.unit)));
        View {
            list,
            tabs: match &self.unit {
                Some((_, part)) => (&List::PARTS, *part),
                None => (&List::TABS, self.tab),
            },
            cursor,
            sort: self.shapes[list as usize].sort,
            descending: self.descending(list, &rows),
            rows,
            filter: &self.filter,
            typing: self.typing,
            paused: self.paused,
            help: self.help,
            interval: self.interval(),
            seen: &self.seen,
            unit,
            detail,
            trouble: self.trouble.as_deref(),
            answered: self.answered,
        }
    }
}
