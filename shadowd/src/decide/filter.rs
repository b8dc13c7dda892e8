//! What the configuration leaves out or makes unreadable, before anything is counted.
//!
//! Pure. Stands between the sample and everything that shows, records or measures it, so none of
//! these ever sees what was left out. What is left out is counted as filtered, by feature; it is
//! neither seen nor lost.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use super::unit_names::unit_of;
use crate::config::pattern::Glob;
use crate::config::settings::{CaptureSettings, FilterSettings, RedactSettings, Redaction};
use crate::facts::{ProbeLosses, Protocol, Sample};

/// Most control groups that are remembered; the ones learnt first go first.
const GROUPS_MAX: usize = 16_384;
/// The unit of what belongs to none.
const NOBODY: &str = "-";
/// What stands for a redacted text.
const MARK: &str = "[redacted]";
/// Digits kept of a hash.
const HASH_DIGITS: usize = 16;

/// Filters samples in the order in which they were taken.
#[derive(Debug)]
pub struct Filter {
    filter: FilterSettings,
    redact: RedactSettings,
    /// For hashes; without one the mark is written.
    key: Option<[u8; 32]>,
    /// Whether the unit of a control group is wanted.
    groups: HashMap<u64, bool>,
    order: VecDeque<u64>,
    /// The same of processes that live, or lived at the sample before.
    processes: HashMap<u32, (bool, u64)>,
    count: u64,
    filtered: BTreeMap<&'static str, u64>,
}

impl Filter {
    /// A filter that has seen nothing; `key` is secret and belongs to this run of the daemon.
    pub fn new(settings: &CaptureSettings, key: Option<[u8; 32]>) -> Self {
        Self {
            filter: settings.filter.clone(),
            redact: settings.redact.clone(),
            key,
            groups: HashMap::new(),
            order: VecDeque::new(),
            processes: HashMap::new(),
            count: 0,
            filtered: BTreeMap::new(),
        }
    }

    /// The sample without what is not wanted.
    pub fn apply(&mut self, mut sample: Sample) -> Sample {
        if !self.filter.units.takes_all() {
            self.learn(&sample);
            self.by_unit(&mut sample);
        }
        self.by_address(&mut sample);
        self.make_unreadable(&mut sample);
        self.account(&mut sample);
        sample
    }

    /// Remembers which control groups and processes belong to units that are wanted.
    fn learn(&mut self, sample: &Sample) {
        let units = &self.filter.units;
        let wanted = |path: &str| {
            let unit = unit_of(path);
            let unit = unit.as_deref().unwrap_or(NOBODY);
            units.takes(|glob| glob.matches(unit))
        };
        for (id, path) in &sample.cgroups {
            if self.groups.insert(*id, wanted(path)).is_none() {
                self.order.push_back(*id);
            }
            if self.order.len() > GROUPS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.groups.remove(&oldest);
            }
        }
        self.count += 1;
        for process in &sample.processes {
            let entry = (wanted(&process.cgroup), self.count);
            self.processes.insert(process.pid, entry);
        }
        let count = self.count;
        self.processes.retain(|_, (_, seen)| count - *seen < 2);
    }

    /// Whether something of a process in a control group is wanted. Of what belongs to no unit
    /// that is known: as of what belongs to none.
    fn wants(&self, pid: u32, cgroup: u64) -> bool {
        let known = self.groups.get(&cgroup).copied();
        let known = known.or_else(|| self.processes.get(&pid).map(|(wanted, _)| *wanted));
        known.unwrap_or_else(|| self.filter.units.takes(|glob| glob.matches(NOBODY)))
    }

    fn by_unit(&mut self, sample: &mut Sample) {
        let mut out = BTreeMap::new();
        let mut keep = |wanted: bool, feature, happenings: u64| {
            if !wanted {
                add(&mut out, feature, happenings);
            }
            wanted
        };
        sample.syscalls.retain(|one| {
            keep(
                self.wants(one.pid, one.cgroup),
                "syscalls",
                one.counts.calls,
            )
        });
        sample.flows.retain(|one| {
            let feature = flow_feature(one.protocol);
            keep(self.wants(one.pid, one.cgroup), feature, one.happenings())
        });
        sample.block.retain(|one| {
            keep(
                self.wants(one.pid, one.cgroup),
                "block",
                one.counts.operations,
            )
        });
        sample
            .files
            .retain(|one| keep(self.wants(one.pid, one.cgroup), "files", one.happenings()));
        sample
            .opens
            .retain(|one| keep(self.wants(one.pid, one.cgroup), "opens", 1));
        sample
            .lifecycle
            .retain(|one| keep(self.wants(one.pid, one.cgroup), "processes", 1));
        sample
            .listeners
            .retain(|one| self.wants(one.pid, one.cgroup));
        sample.processes.retain(|one| {
            let known = self.processes.get(&one.pid);
            known.is_none_or(|(wanted, _)| *wanted)
        });
        sample.groups.retain(|one| {
            let unit = unit_of(&one.path);
            let unit = unit.as_deref().unwrap_or(NOBODY);
            self.filter.units.takes(|glob| glob.matches(unit))
        });
        self.remember(out);
    }

    fn by_address(&mut self, sample: &mut Sample) {
        let FilterSettings {
            ports, networks, ..
        } = &self.filter;
        if ports.takes_all() && networks.takes_all() {
            return;
        }
        let port = |ends: &[SocketAddr]| {
            ports.takes(|wanted| ends.iter().any(|end| end.port() == *wanted))
        };
        let mut out = BTreeMap::new();
        sample.flows.retain(|flow| {
            let remote = networks.takes(|network| network.contains(flow.remote.ip()));
            let wanted = remote && port(&[flow.local, flow.remote]);
            if !wanted {
                add(&mut out, flow_feature(flow.protocol), flow.happenings());
            }
            wanted
        });
        sample.listeners.retain(|one| port(&[one.local]));
        sample.names.retain(|answer| {
            let wanted = networks.takes(|network| network.contains(answer.address));
            if !wanted {
                add(&mut out, "dns", 1);
            }
            wanted
        });
        self.remember(out);
    }

    fn make_unreadable(&self, sample: &mut Sample) {
        let RedactSettings {
            commands,
            paths,
            names,
            with: _,
        } = &self.redact;
        for process in &mut sample.processes {
            self.redact(commands, &mut process.command);
        }
        for event in &mut sample.lifecycle {
            self.redact(commands, &mut event.command);
        }
        for open in &mut sample.opens {
            self.redact(paths, &mut open.path);
        }
        for answer in &mut sample.names {
            self.redact(names, &mut answer.name);
        }
    }

    fn redact(&self, patterns: &[Glob], text: &mut String) {
        if !patterns.iter().any(|pattern| pattern.matches(text)) {
            return;
        }
        *text = match (self.redact.with, self.key) {
            (Redaction::Hash, Some(key)) => {
                let hash = blake3::keyed_hash(&key, text.as_bytes()).to_hex();
                format!("#{}", &hash[..HASH_DIGITS])
            }
            (Redaction::Hash, None) | (Redaction::Mark, _) => MARK.to_owned(),
        };
    }

    fn remember(&mut self, out: BTreeMap<&'static str, u64>) {
        for (feature, count) in out {
            add(&mut self.filtered, feature, count);
        }
    }

    /// Moves what was left out from what was seen.
    fn account(&self, sample: &mut Sample) {
        for (feature, count) in &self.filtered {
            let losses: &mut ProbeLosses = sample
                .probe_losses
                .entry((*feature).to_owned())
                .or_default();
            losses.seen = losses.seen.saturating_sub(*count);
            losses.filtered = losses.filtered.saturating_add(*count);
            sample.losses.seen = sample.losses.seen.saturating_sub(*count);
        }
    }
}

fn flow_feature(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn add(counts: &mut BTreeMap<&'static str, u64>, feature: &'static str, count: u64) {
    let entry = counts.entry(feature).or_default();
    *entry = entry.saturating_add(count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Choice;
    use crate::facts::{
        Direction, FileOpen, FlowCounts, FlowDelta, Losses, ProcessReading, SyscallCounts,
        SyscallDelta,
    };

    const NGINX: &str = "/system.slice/nginx.service";
    const CRON: &str = "/system.slice/cron.service";

    fn calls(pid: u32, cgroup: u64, calls: u64) -> SyscallDelta {
        SyscallDelta {
            pid,
            cgroup,
            number: 1,
            counts: SyscallCounts {
                calls,
                ..SyscallCounts::default()
            },
        }
    }

    fn process(pid: u32, cgroup: &str) -> ProcessReading {
        ProcessReading {
            pid,
            command: format!("cmd{pid}"),
            cgroup: cgroup.to_owned(),
            ..ProcessReading::default()
        }
    }

    fn flow(remote: &str, remote_port: u16) -> FlowDelta {
        FlowDelta {
            pid: 5,
            cgroup: 9,
            protocol: Protocol::Tcp,
            direction: Direction::Outbound,
            local: ([192, 0, 2, 1], 0).into(),
            remote: SocketAddr::new(remote.parse().expect("an address"), remote_port),
            counts: FlowCounts {
                opened: 1,
                ..FlowCounts::default()
            },
            open: 0,
        }
    }

    fn sample() -> Sample {
        let mut sample = Sample {
            cgroups: vec![(1, NGINX.to_owned()), (2, CRON.to_owned())],
            processes: vec![process(11, NGINX), process(12, CRON)],
            syscalls: vec![calls(11, 1, 5), calls(12, 2, 7), calls(12, 0, 2)],
            flows: vec![flow("192.0.2.9", 443), flow("203.0.113.5", 22)],
            opens: vec![FileOpen {
                pid: 11,
                cgroup: 1,
                at: crate::facts::BootTime::default(),
                path: "/srv/secret/key".to_owned(),
                write: false,
            }],
            losses: Losses {
                seen: 17,
                ..Losses::default()
            },
            ..Sample::default()
        };
        for (feature, seen) in [("syscalls", 14), ("tcp", 2), ("opens", 1)] {
            let losses = ProbeLosses {
                seen,
                ..ProbeLosses::default()
            };
            sample.probe_losses.insert(feature.to_owned(), losses);
        }
        sample
    }

    fn filter(change: impl FnOnce(&mut CaptureSettings)) -> Filter {
        let mut settings = CaptureSettings::default();
        change(&mut settings);
        Filter::new(&settings, Some([7; 32]))
    }

    fn globs(texts: &[&str]) -> Vec<Glob> {
        let glob = |text: &&str| text.parse().expect("a pattern");
        texts.iter().map(glob).collect()
    }

    #[test]
    fn without_settings_nothing_changes() {
        assert_eq!(filter(|_| {}).apply(sample()), sample());
    }

    #[test]
    fn an_excluded_unit_leaves_no_trace_but_a_count() {
        let mut filter = filter(|settings| {
            settings.filter.units.exclude = globs(&["cron*"]);
        });
        let seen = filter.apply(sample());
        assert_eq!(seen.syscalls, [calls(11, 1, 5)]);
        assert_eq!(seen.processes, [process(11, NGINX)]);
        let syscalls = seen.probe_losses["syscalls"];
        assert_eq!((syscalls.seen, syscalls.filtered), (5, 9));
        assert_eq!(seen.losses.seen, 8);
        assert_eq!(syscalls.total(), 14, "all that happened is somewhere");
        // Totals stay totals, also for a process whose end is all that is left of it.
        let late = Sample {
            syscalls: vec![calls(12, 0, 1)],
            probe_losses: [(
                "syscalls".to_owned(),
                ProbeLosses {
                    seen: 15,
                    ..ProbeLosses::default()
                },
            )]
            .into(),
            ..Sample::default()
        };
        let seen = filter.apply(late);
        assert!(seen.syscalls.is_empty());
        assert_eq!(seen.probe_losses["syscalls"].filtered, 10);
        assert_eq!(seen.probe_losses["syscalls"].seen, 5);
    }

    #[test]
    fn an_included_unit_is_all_there_is() {
        let mut filter = filter(|settings| {
            settings.filter.units = Choice {
                include: globs(&["nginx.service"]),
                exclude: Vec::new(),
            };
        });
        let seen = filter.apply(sample());
        assert_eq!(seen.syscalls, [calls(11, 1, 5)]);
        assert!(
            seen.flows.is_empty(),
            "their group is not known: {:?}",
            seen.flows
        );
    }

    #[test]
    fn ports_and_networks_choose_flows() {
        let ports = |ports: Choice<u16>| {
            let mut filter = filter(|settings| settings.filter.ports = ports);
            let seen = filter.apply(sample());
            (seen.flows, seen.probe_losses["tcp"].filtered)
        };
        let only_https = vec![flow("192.0.2.9", 443)];
        let include = Choice {
            include: vec![443],
            exclude: Vec::new(),
        };
        assert_eq!(ports(include), (only_https.clone(), 1));
        let exclude = Choice {
            include: Vec::new(),
            exclude: vec![22],
        };
        assert_eq!(ports(exclude), (only_https.clone(), 1));
        let mut networks = filter(|settings| {
            settings.filter.networks.exclude = vec!["203.0.113.0/24".parse().expect("a network")];
        });
        assert_eq!(networks.apply(sample()).flows, only_https);
    }

    #[test]
    fn redacted_texts_cannot_be_read_and_hashes_tell_equal_from_different() {
        let apply = |with| {
            let mut filter = filter(|settings| {
                settings.redact = RedactSettings {
                    commands: globs(&["cmd1?"]),
                    paths: globs(&["/srv/secret/*"]),
                    names: Vec::new(),
                    with,
                };
            });
            let seen = filter.apply(sample());
            let commands = seen.processes.into_iter().map(|process| process.command);
            (commands.collect::<Vec<_>>(), seen.opens[0].path.clone())
        };
        let (commands, path) = apply(Redaction::Mark);
        assert_eq!(commands, [MARK, MARK]);
        assert_eq!(path, MARK);
        let (commands, path) = apply(Redaction::Hash);
        assert!(path.starts_with('#') && !path.contains("secret"), "{path}");
        assert_ne!(commands[0], commands[1]);
        assert_eq!((commands, path), apply(Redaction::Hash));
    }
}
