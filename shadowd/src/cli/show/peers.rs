//! `peers`: the other hosts, the paths to them, and the datagrams exchanged with them.

use std::time::Duration;

use super::super::human::{count, span};
use super::super::table::{Cell, Paint, Table, Tone};
use super::status::section;
use crate::facts::{BootTime, PathState, PeerStatus};
use crate::serve::protocol::Peers;

/// The other hosts and the datagrams exchanged with them.
pub(in super::super) fn peers(answer: &Peers, paint: Paint) -> String {
    if answer.peers.is_empty() {
        return "no peers are configured\n".to_owned();
    }
    let mut text = links(&answer.peers, answer.now, paint);
    let mut table = Table::new(
        0,
        [
            "PEER",
            ">SENT",
            ">UNSENT",
            ">RECEIVED",
            ">MALFORMED",
            ">FORGED",
            ">REPLAYED",
            ">COPIES",
            "ID",
        ],
    );
    for peer in &answer.peers {
        let counters = &peer.counters;
        let suspicious = |value: u64| {
            Cell::new(
                count(value),
                if value > 0 {
                    Tone::Warning
                } else {
                    Tone::Plain
                },
            )
        };
        table.row([
            peer.host.as_str().into(),
            count(counters.sent).into(),
            count(counters.unsent).into(),
            count(counters.received).into(),
            suspicious(counters.malformed),
            suspicious(counters.forged),
            suspicious(counters.replayed),
            count(counters.copies).into(),
            peer.id.to_string().into(),
        ]);
    }
    section(&mut text, &table.render(paint));
    text
}

/// The links to all peers, and the paths of those that have several.
pub(super) fn links(peers: &[PeerStatus], now: BootTime, paint: Paint) -> String {
    let mut text = peer_table(peers, now).render(paint);
    if let Some(paths) = path_table(peers, now) {
        section(&mut text, &paths.render(paint));
    }
    text
}

fn peer_table(peers: &[PeerStatus], now: BootTime) -> Table {
    let mut table = Table::new(
        0,
        ["PEER", "ADDRESS", "STREAM", ">HEARD", ">ROUND TRIP", ">P99"],
    );
    for peer in peers {
        let heard = match peer.last_heard {
            Some(at) => Cell::from(format!("{} ago", span(now.since(at)))),
            None => Cell::new("never", Tone::Warning),
        };
        let shown = |nanos: Option<u64>| {
            nanos.map_or_else(|| "-".to_owned(), |nanos| span(Duration::from_nanos(nanos)))
        };
        table.row([
            peer.host.as_str().into(),
            peer.address.as_str().into(),
            if peer.connected {
                Cell::new("up", Tone::Good)
            } else {
                Cell::new("down", Tone::Bad)
            },
            heard,
            shown(peer.round_trip_ns).into(),
            shown(peer.round_trip_p99_ns).into(),
        ]);
    }
    table
}

/// The paths of peers that have several.
fn path_table(peers: &[PeerStatus], now: BootTime) -> Option<Table> {
    let mut table = Table::new(
        0,
        [
            "PEER",
            "PATH",
            "FROM",
            "TO",
            "STATE",
            ">HEARD",
            ">ROUND TRIP",
            ">LOSS",
        ],
    );
    let mut any = false;
    for peer in peers.iter().filter(|peer| peer.paths.len() > 1) {
        any = true;
        for (number, path) in peer.paths.iter().enumerate() {
            let tone = match path.state {
                PathState::Up => Tone::Good,
                PathState::Unknown => Tone::Warning,
                PathState::Lost | PathState::Silent => Tone::Bad,
            };
            let heard = path.last_heard.map_or_else(
                || "never".to_owned(),
                |at| format!("{} ago", span(now.since(at))),
            );
            let nanos = path.round_trip_ns.map(Duration::from_nanos);
            let loss = path.loss.map(|loss| format!("{:.1} %", loss * 100.0));
            table.row([
                peer.host.as_str().into(),
                (number + 1).to_string().into(),
                path.local.as_str().into(),
                path.remote.as_str().into(),
                Cell::new(path.state.to_string(), tone),
                heard.into(),
                nanos.map_or_else(|| "-".to_owned(), span).into(),
                loss.unwrap_or_else(|| "-".to_owned()).into(),
            ]);
        }
    }
    any.then_some(table)
}
