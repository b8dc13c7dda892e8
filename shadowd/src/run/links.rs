//! The links to all peers: what is said to them, over which paths, and which paths carry.

use std::collections::BTreeMap;
use std::time::Duration;

use super::board::PeerReading;
use super::group::Outgoing;
use super::peer::PeerLink;
use super::record::Recorder;
use crate::config::settings::{GroupSettings, Settings};
use crate::decide::paths::Change;
use crate::facts::{
    BootTime, Cause, Datagram, EventKind, GroupMessage, Name, PathNumber, PathState,
};
use crate::link::{Arrival, Datagrams};
use crate::observe::sys::boot_time;

/// Messages in one datagram: with the longest names and keys they stay within its bound.
const MESSAGES_EACH: usize = 7;
/// A peer that nothing was said to for so long is sent a datagram without a message: so that both
/// know which paths carry before a group depends on it.
const IDLE: Duration = Duration::from_secs(1);

/// The links.
pub struct Links {
    links: Vec<PeerLink>,
    /// The interface of this host's end of each path, where it is known.
    interfaces: Vec<Option<String>>,
    recorder: Recorder,
}

impl Links {
    /// Links to all peers of the settings, none heard yet.
    pub fn new(
        settings: &Settings,
        interfaces: Vec<Option<String>>,
        recorder: Recorder,
        now: BootTime,
    ) -> Self {
        let listen = &settings.host.listen;
        let links = settings.peers.iter();
        Self {
            links: links.map(|peer| PeerLink::new(peer, listen, now)).collect(),
            interfaces,
            recorder,
        }
    }

    /// An authentic datagram came. None when it is no peer's, and true when it is the first of
    /// another run of the peer's daemon.
    pub fn on_arrival(&mut self, arrival: &Arrival, now: BootTime) -> Option<bool> {
        let link = named(&mut self.links, &arrival.from)?;
        let began = link.on_arrival(arrival, now);
        tell(link, &self.recorder, now);
        Some(began)
    }

    /// A peer's kernel refused a datagram that was sent over `path`. False when that says nothing of
    /// the peer's daemon: its words never came over that path, or come over others only.
    pub fn on_refusal(&mut self, peer: &Name, path: PathNumber, now: BootTime) -> bool {
        let Some(link) = named(&mut self.links, peer) else {
            return false;
        };
        link.on_refusal(path);
        match link.paths.state(path, now) {
            PathState::Up | PathState::Silent => link.paths.last_heard(path).is_some(),
            PathState::Unknown | PathState::Lost => false,
        }
    }

    /// The link of an interface came or went.
    pub fn on_carrier(&mut self, interface: &str, up: bool, now: BootTime) {
        for (place, known) in self.interfaces.iter().enumerate() {
            let Some(path) = PathNumber::new(place) else {
                continue;
            };
            if known.as_deref() != Some(interface) {
                continue;
            }
            for link in &mut self.links {
                link.paths.on_carrier(path, up, now);
                tell(link, &self.recorder, now);
            }
        }
    }

    /// Says all this, and to who was said nothing for a while that this host is there.
    pub fn send(&mut self, outgoing: Vec<Outgoing>, datagrams: &mut Datagrams) {
        let mut by_peer: BTreeMap<Name, Vec<GroupMessage>> = BTreeMap::new();
        for Outgoing { to, message } in outgoing {
            by_peer.entry(to).or_default().push(message);
        }
        for link in &mut self.links {
            let messages = by_peer.remove(&link.name).unwrap_or_default();
            for messages in messages.chunks(MESSAGES_EACH) {
                say(link, messages.to_vec(), datagrams);
            }
            if boot_time() >= link.next_word {
                say(link, Vec::new(), datagrams);
            }
        }
    }

    /// When [`Self::send`] wants to be called next.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.links.iter().map(|link| link.next_word).min()
    }

    /// The view for people.
    pub fn readings(&self, now: BootTime) -> Vec<PeerReading> {
        self.links.iter().map(|link| link.reading(now)).collect()
    }

    /// Paths that are lost to who else takes part in a group, in words.
    pub fn lost(&self, group: &GroupSettings, now: BootTime) -> Vec<String> {
        let takes_part =
            |peer: &Name| group.members.contains(peer) || group.witnesses.contains(peer);
        let links = self.links.iter().filter(|link| takes_part(&link.name));
        let lost = links.flat_map(|link| {
            let paths = (0..PathNumber::COUNT).filter_map(PathNumber::new);
            let lost = paths.filter(move |path| link.paths.state(*path, now) == PathState::Lost);
            lost.map(|path| format!("path {path} to {}", link.name))
        });
        lost.collect()
    }
}

fn named<'a>(links: &'a mut [PeerLink], name: &Name) -> Option<&'a mut PeerLink> {
    links.iter_mut().find(|link| link.name == *name)
}

fn say(link: &mut PeerLink, messages: Vec<GroupMessage>, datagrams: &mut Datagrams) {
    let now = boot_time();
    let datagram = Datagram {
        sent: now,
        heard: link.echo(now),
        echoes: link.echoes(now),
        messages,
    };
    link.next_word = now.after(IDLE);
    datagrams.send(&link.name, &link.addresses, &datagram);
}

/// Records what has become of paths.
fn tell(link: &mut PeerLink, recorder: &Recorder, now: BootTime) {
    while let Some(change) = link.paths.poll_change() {
        let (kind, path, cause, rest) = match change {
            Change::Lost {
                path,
                cause,
                missed,
            } => {
                let rest = match cause {
                    Cause::LinkLost => "no carrier".to_owned(),
                    _ => format!("{missed} datagrams in a row came over others only"),
                };
                (EventKind::PathLost, path, Some(cause), rest)
            }
            Change::Back { path, lost_for } => {
                let rest = format!("lost for {:.1} s", lost_for.as_secs_f64());
                (EventKind::PathBack, path, None, rest)
            }
        };
        let detail = format!("path {path} to {}, {}: {rest}", link.name, link.ends(path));
        recorder.note_cause(kind, cause, now, detail);
    }
}
