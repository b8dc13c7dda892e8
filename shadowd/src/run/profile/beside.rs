//! What is so on the owner now and in no version: what its units keep in memory, and which ports are
//! open. The owner finds it out and tells it, the others look how that is here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::keeper::{Keeper, is_of};
use super::letter::Body;
use crate::decide::profile::firewall::passages;
use crate::decide::profile::hot::{Used, believed};
use crate::facts::{Beside, BootTime, HotFile, Observation, Passage, Port};
use crate::observe::inventory::firewall::listed;
use crate::observe::inventory::hot::{measure, used};

/// The owner looks at what is in memory, and tells, this often.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// The others look this often: it takes a look at each file.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Rules of the packet filter are listed this often.
const RULES_EVERY: Duration = Duration::from_secs(5);
/// Ports that are believed of a peer's word.
const PORTS_MAX: usize = 4_096;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Besides {
    used: Used,
    /// What the owner told last.
    pub told: Beside,
    /// What of its hot files is in memory here, by path, of files that are here.
    pub resident: BTreeMap<String, u64>,
    next_at: BootTime,
    rules: Option<(BootTime, Result<String, String>)>,
}

impl Besides {
    /// The rules of this host's packet filter, as of a few seconds ago at most.
    fn rules(&mut self, now: BootTime) -> &Result<String, String> {
        self.rules
            .take_if(|(listed_at, _)| now.since(*listed_at) >= RULES_EVERY);
        let fresh = || (now, listed().map_err(|error| error.to_string()));
        &self.rules.get_or_insert_with(fresh).1
    }

    /// A peer's word.
    pub fn on_told(&mut self, told: Beside) {
        let told = Beside {
            hot: believed(told.hot),
            open: told.open.into_iter().take(PORTS_MAX).collect(),
        };
        if told.hot != self.told.hot {
            self.next_at = BootTime::default();
        }
        self.told = told;
    }

    /// Something was read: it is looked at again.
    pub fn on_read(&mut self) {
        self.next_at = BootTime::default();
    }

    /// What is in memory here, of what the owner has there.
    pub fn look(&mut self, now: BootTime) {
        if now < self.next_at {
            return;
        }
        self.next_at = now.after(LOOK_EVERY);
        let files = self.told.hot.files.iter();
        // Of a file that cannot be looked at nobody knows what would help.
        let here = files.filter_map(|(path, hot)| {
            let found = measure(path, Some(hot.size)).ok()??;
            Some((path.clone(), found.pieces))
        });
        self.resident = here.collect();
    }
}

impl Keeper {
    /// What this host's packet filter does with connections to `ports`.
    pub(super) fn passages(
        &mut self,
        ports: &BTreeSet<Port>,
        now: BootTime,
    ) -> BTreeMap<Port, Passage> {
        let vips: BTreeSet<IpAddr> = self.group.vips.iter().map(|vip| vip.address).collect();
        match self.beside.rules(now) {
            Ok(rules) => passages(rules, ports, &vips, &self.group.interface),
            Err(why) => {
                let unclear = |port: &Port| (port.clone(), Passage::Unclear(why.clone()));
                ports.iter().map(unclear).collect()
            }
        }
    }

    /// On the owner: what its units have in memory and which of their ports are open, told to the others.
    pub(super) fn tell_beside(&mut self, observation: &Observation, now: BootTime) {
        if now < self.beside.next_at || !self.rules.learn {
            return;
        }
        self.beside.next_at = now.after(TELL_EVERY);
        let (group, rules) = (&self.group, &self.rules);
        let ours = observation.processes.iter().filter(|process| {
            !process.ended && process.pid != 0 && is_of(group, rules, &process.unit)
        });
        let mut paths = used(ours.map(|process| (process.pid, process.unit.as_str())));
        let units = &self.learner.profile().content.units;
        // What was read once, when the unit started, is read again when it starts elsewhere.
        for (unit, profile) in units {
            let known = profile.reads.iter().chain(profile.programs.keys());
            let paths = paths.entry(unit.clone()).or_default();
            paths.extend(known.cloned());
        }
        for paths in paths.values_mut() {
            paths.retain(|path| !rules.ignore.iter().any(|glob| glob.matches(path)));
        }
        self.beside.used.note(paths, now);
        let measured = self.beside.used.paths().into_iter();
        let measured =
            measured.filter_map(|path| Some((path.to_owned(), measure(path, None).ok()??)));
        let measured: BTreeMap<String, HotFile> = measured.collect();
        let ports = units.values().flat_map(|unit| unit.ports.iter().cloned());
        let ports: BTreeSet<Port> = ports.collect();
        let passages = self.passages(&ports, now).into_iter();
        let open = passages.filter(|(_, passage)| *passage == Passage::Open);
        let open = open.map(|(port, _)| port).collect();
        self.beside.told = Beside {
            hot: self.beside.used.hot(measured),
            open,
        };
        self.tell_all(&Body::Beside(self.beside.told.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Hot;

    #[test]
    fn what_the_owner_tells_is_looked_at_here_at_once_and_then_now_and_then() {
        let here = std::env::current_exe().unwrap();
        let here = here.to_str().unwrap().to_owned();
        let size = std::fs::metadata(&here).unwrap().len();
        let whole = |size| HotFile {
            size,
            pieces: u64::MAX,
        };
        let hot = Hot {
            units: [("app.service".to_owned(), BTreeSet::from([here.clone()]))].into(),
            files: [(here.clone(), whole(size)), ("/no/such".into(), whole(1))].into(),
        };
        let told = || Beside {
            hot: hot.clone(),
            open: BTreeSet::new(),
        };
        let (mut beside, now) = (Besides::default(), BootTime::from_nanos(1_000_000_000));
        beside.on_told(told());
        beside.look(now);
        assert_eq!(beside.resident.keys().collect::<Vec<_>>(), [&here]);
        assert_ne!(beside.resident[&here], 0);
        // The same again is no reason to look again.
        beside.resident.clear();
        beside.on_told(told());
        beside.look(now.after(Duration::from_secs(1)));
        assert!(beside.resident.is_empty());
        beside.look(now.after(LOOK_EVERY));
        assert_eq!(beside.resident.len(), 1);
        beside.resident.clear();
        beside.on_read();
        beside.look(now.after(LOOK_EVERY));
        assert_eq!(beside.resident.len(), 1);
    }
}
