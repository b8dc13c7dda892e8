//! The map of dependencies as people and other programs read it. Pure: from data to text.

mod dot;
mod layout;
mod svg;
mod text;

use std::time::Duration;

use super::human::{bytes, count, span};
use crate::decide::map::Edge;
use crate::facts::Protocol;

pub(super) use dot::dot;
pub(super) use svg::svg;
pub(super) use text::text;

/// `tcp 5432`, `udp`.
fn service(edge: &Edge) -> String {
    let protocol = match edge.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match edge.port {
        0 => protocol.to_owned(),
        port => format!("{protocol} {port}"),
    }
}

/// Connections in a second: `0.5/s`, `12/s`.
fn each_second(rate: f64) -> String {
    if rate >= 9.95 || rate == 0.0 {
        format!("{}/s", count(rate.round() as u64))
    } else {
        format!("{rate:.1}/s")
    }
}

/// Bytes in a second.
fn flowing(rate: f64) -> String {
    format!("{}/s", bytes(rate as u64))
}

/// The mean round trip, if there is one.
fn round_trip(edge: &Edge) -> Option<String> {
    edge.rtt_ns.map(|nanos| span(Duration::from_nanos(nanos)))
}

#[cfg(test)]
mod tests;
