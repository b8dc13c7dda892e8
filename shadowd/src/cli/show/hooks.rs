//! `hooks`: what each hook and alert is at, and what came of the last notice.

use std::time::Duration;

use super::super::human::{clean, count, span, wall};
use super::super::table::{Cell, Paint, Table, Tone};
use crate::facts::{LastNotice, Name, ReceiverStatus};
use crate::serve::protocol::Hooks;

/// A line for each.
pub(in super::super) fn hooks(answer: &Hooks, paint: Paint) -> String {
    if answer.receivers.is_empty() {
        return "no hooks and no alerts are configured: see docs/hooks.md\n".to_owned();
    }
    let mut table = Table::new(
        0,
        [
            "NAME", "KIND", "STATE", ">OK", ">FAILED", ">SKIPPED", "LAST", "AT", ">TOOK", "RESULT",
        ],
    );
    for receiver in &answer.receivers {
        table.row(row(receiver));
    }
    table.render(paint)
}

fn row(receiver: &ReceiverStatus) -> [Cell; 10] {
    let counts = receiver.counts;
    let failed = counts.failed + counts.timed_out + counts.given_up;
    let state = match (receiver.running, receiver.waiting) {
        (Some(topic), _) => format!("telling {topic}"),
        (None, 0) => "idle".to_owned(),
        (None, waiting) => format!("{waiting} waiting"),
    };
    let last = receiver.last.as_ref();
    let of = |text: fn(&LastNotice) -> String| last.map_or_else(|| "-".to_owned(), text);
    let tone = match last {
        Some(last) if !last.ok => Tone::Bad,
        _ => Tone::Plain,
    };
    [
        receiver.name.as_str().into(),
        receiver.kind.to_string().into(),
        state.into(),
        count(counts.delivered).into(),
        Cell::new(
            count(failed),
            if failed > 0 {
                Tone::Warning
            } else {
                Tone::Plain
            },
        ),
        count(counts.skipped).into(),
        of(|last| last.event.to_string()).into(),
        of(|last| wall(last.wall_ms)).into(),
        of(took).into(),
        Cell::new(of(|last| last.result.clone()), tone),
    ]
}

/// What came of a test.
pub(in super::super) fn tested(name: &Name, last: &LastNotice, paint: Paint) -> String {
    let (word, tone) = if last.ok {
        ("ok", Tone::Good)
    } else {
        ("failed", Tone::Bad)
    };
    let word = paint.apply(tone, word);
    let (took, result) = (took(last), clean(&last.result));
    format!("{name}: {word} after {took}: {result}\n")
}

fn took(last: &LastNotice) -> String {
    span(Duration::from_millis(last.took_ms))
}
