//! An observation, reduced to what a profile of a group learns from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::facts::{
    Dependency, Digest, Direction, Flow, Observation, Port, Protocol, ResourceKind, Scope,
    UnitDigest, UnitUse, is_word,
};

/// Which units are of the group, and what is known of the host beside the observation.
pub struct Of<'a> {
    /// Whether a unit is of the group.
    pub is_member: &'a dyn Fn(&str) -> bool,
    /// Whether a file differs from host to host.
    pub is_ignored: &'a dyn Fn(&str) -> bool,
    /// The group's virtual IPs.
    pub vips: &'a BTreeSet<IpAddr>,
    /// Programs that processes ran, by pid.
    pub programs: &'a BTreeMap<u32, String>,
    /// End of the observation in local time, seconds since the Unix epoch.
    pub local_second: u64,
}

/// What the group's units did.
pub fn digest(observation: &Observation, of: &Of<'_>) -> Digest {
    let seconds = observation.interval_ns as f64 / 1e9;
    let mut units: BTreeMap<String, UnitDigest> = BTreeMap::new();
    let members = observation.units.iter();
    let members = members.filter(|unit| (of.is_member)(&unit.unit) && is_word(&unit.unit));
    for unit in members.filter(|unit| unit.is_active()) {
        let digest = units.entry(unit.unit.clone()).or_default();
        digest.uses = uses(unit, seconds);
    }
    for process in &observation.processes {
        if let (Some(unit), Some(program)) =
            (units.get_mut(&process.unit), of.programs.get(&process.pid))
        {
            unit.programs.insert(program.clone());
        }
    }
    for listener in &observation.listeners {
        if let Some(unit) = units.get_mut(&listener.unit) {
            unit.ports.insert(Port {
                protocol: Protocol::Tcp,
                port: listener.local_port,
                scope: scope(listener.local, of.vips),
            });
        }
    }
    for flow in observation.flows.iter().filter(|flow| is_dependency(flow)) {
        if let Some(unit) = units.get_mut(&flow.unit) {
            let remote = flow.remote_name.clone();
            let dependency = Dependency {
                protocol: flow.protocol,
                remote: remote.unwrap_or_else(|| flow.remote.to_string()),
                port: flow.remote_port,
            };
            let rate = flow.interval.opened as f64 / seconds.max(1e-3);
            *unit.dependencies.entry(dependency).or_default() += rate;
        }
    }
    let read = observation.files.iter();
    for file in read.filter(|file| !file.write && !(of.is_ignored)(&file.path)) {
        if let Some(unit) = units.get_mut(&file.unit) {
            unit.reads.insert(file.path.clone());
        }
    }
    Digest {
        local_second: of.local_second,
        seconds: seconds.round() as u32,
        units,
    }
}

/// Adds what happened later: means by time, sets together.
pub fn merge(digest: &mut Digest, more: &Digest) {
    let (before, after) = (f64::from(digest.seconds), f64::from(more.seconds));
    let all = (before + after).max(1.0);
    for unit in digest.units.values_mut() {
        let means = unit.uses.values_mut().chain(unit.dependencies.values_mut());
        means.for_each(|mean| *mean *= before / all);
    }
    for (name, unit) in &more.units {
        let sum = digest.units.entry(name.clone()).or_default();
        // Of a unit that was not there before, nothing was used before.
        for (kind, value) in &unit.uses {
            let mean = sum.uses.entry(*kind).or_default();
            *mean += value * after / all;
        }
        for (dependency, rate) in &unit.dependencies {
            *sum.dependencies.entry(dependency.clone()).or_default() += rate * after / all;
        }
        sum.programs.extend(unit.programs.iter().cloned());
        sum.ports.extend(unit.ports.iter().cloned());
        sum.reads.extend(unit.reads.iter().cloned());
    }
    digest.local_second = more.local_second;
    digest.seconds = digest.seconds.saturating_add(more.seconds);
}

fn uses(unit: &UnitUse, seconds: f64) -> BTreeMap<ResourceKind, f64> {
    let each_second = |bytes: u64| bytes as f64 / seconds.max(1e-3);
    let memory = unit.memory_bytes.unwrap_or(unit.rss_bytes);
    BTreeMap::from([
        (ResourceKind::Cpu, unit.cpu),
        (ResourceKind::Memory, memory as f64),
        (ResourceKind::NetworkIn, each_second(unit.network.rx_bytes)),
        (ResourceKind::NetworkOut, each_second(unit.network.tx_bytes)),
        (ResourceKind::DiskRead, each_second(unit.block_read.bytes)),
        (ResourceKind::DiskWrite, each_second(unit.block_write.bytes)),
    ])
}

/// A service that the unit connected to, or is connected to, in the interval.
fn is_dependency(flow: &Flow) -> bool {
    let used = flow.open > 0
        || flow.interval.opened > 0
        || flow.interval.tx_packets > 0
        || flow.interval.rx_packets > 0;
    flow.direction == Direction::Outbound && flow.remote_port != 0 && used
}

fn scope(local: IpAddr, vips: &BTreeSet<IpAddr>) -> Scope {
    if local.is_unspecified() {
        Scope::All
    } else if local.is_loopback() {
        Scope::Loopback
    } else if vips.contains(&local) {
        Scope::Virtual
    } else {
        Scope::Own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootTime, FileUse, FlowCounts, Listener, ProcessUse};

    fn flow(unit: &str, direction: Direction, port: u16, opened: u64) -> Flow {
        Flow {
            unit: unit.into(),
            pid: 7,
            command: "app".into(),
            protocol: Protocol::Tcp,
            direction,
            local: "192.0.2.1".parse().unwrap(),
            local_port: 0,
            remote: "192.0.2.9".parse().unwrap(),
            remote_port: port,
            remote_name: (port == 5_432).then(|| "db.example".to_owned()),
            open: 0,
            total: FlowCounts::default(),
            interval: FlowCounts {
                opened,
                ..FlowCounts::default()
            },
            first_seen: BootTime::default(),
            last_seen: BootTime::default(),
        }
    }

    fn observation() -> Observation {
        let unit = |name: &str, cpu: f64| UnitUse {
            unit: name.into(),
            processes: 1,
            cpu,
            rss_bytes: 1_000,
            network: FlowCounts {
                rx_bytes: 500,
                ..FlowCounts::default()
            },
            ..UnitUse::default()
        };
        let listener = |unit: &str, local: &str, port: u16| Listener {
            unit: unit.into(),
            pid: 7,
            command: "app".into(),
            local: local.parse().unwrap(),
            local_port: port,
            backlog: 0,
            backlog_max: 0,
            overflows: 0,
            overflows_total: 0,
        };
        let file = |path: &str, write: bool| FileUse {
            unit: "app.service".into(),
            path: path.into(),
            write,
            ..FileUse::default()
        };
        Observation {
            interval_ns: 10_000_000_000,
            units: vec![unit("app.service", 0.5), unit("other.service", 1.0)],
            processes: vec![ProcessUse {
                pid: 7,
                unit: "app.service".into(),
                ..ProcessUse::default()
            }],
            flows: vec![
                flow("app.service", Direction::Outbound, 5_432, 20),
                flow("app.service", Direction::Outbound, 80, 0),
                flow("app.service", Direction::Inbound, 443, 9),
                flow("other.service", Direction::Outbound, 25, 9),
            ],
            listeners: vec![
                listener("app.service", "0.0.0.0", 80),
                listener("app.service", "127.0.0.1", 81),
                listener("app.service", "192.0.2.10", 82),
                listener("app.service", "192.0.2.1", 83),
                listener("other.service", "0.0.0.0", 84),
            ],
            files: vec![
                file("/etc/app.conf", false),
                file("/etc/app.state", true),
                file("/etc/hosts", false),
            ],
            ..Observation::default()
        }
    }

    #[test]
    fn only_the_groups_units_and_what_they_really_used_are_in_it() {
        let vips = BTreeSet::from(["192.0.2.10".parse().unwrap()]);
        let programs = BTreeMap::from([(7, "/usr/bin/app".to_owned())]);
        let of = Of {
            is_member: &|unit| unit == "app.service",
            is_ignored: &|path| path == "/etc/hosts",
            vips: &vips,
            programs: &programs,
            local_second: 77,
        };
        let digest = digest(&observation(), &of);
        assert_eq!((digest.local_second, digest.seconds), (77, 10));
        assert_eq!(digest.units.len(), 1);
        let unit = &digest.units["app.service"];
        assert_eq!(unit.uses[&ResourceKind::Cpu], 0.5);
        assert_eq!(unit.uses[&ResourceKind::NetworkIn], 50.0);
        assert_eq!(unit.uses[&ResourceKind::Memory], 1_000.0);
        let (dependency, rate) = unit.dependencies.iter().next().unwrap();
        assert_eq!((dependency.remote.as_str(), *rate), ("db.example", 2.0));
        assert_eq!(unit.dependencies.len(), 1);
        let scopes: Vec<Scope> = unit.ports.iter().map(|port| port.scope).collect();
        assert_eq!(
            scopes,
            [Scope::All, Scope::Loopback, Scope::Virtual, Scope::Own]
        );
        assert_eq!(unit.programs.len(), 1);
        assert_eq!(unit.reads, BTreeSet::from(["/etc/app.conf".to_owned()]));
    }

    #[test]
    fn intervals_together_are_means_by_time() {
        let one = |seconds: u32, cpu: f64, port: u16| {
            let unit = UnitDigest {
                uses: [(ResourceKind::Cpu, cpu)].into(),
                ports: [Port {
                    protocol: Protocol::Tcp,
                    port,
                    scope: Scope::All,
                }]
                .into(),
                ..UnitDigest::default()
            };
            Digest {
                local_second: u64::from(seconds),
                seconds,
                units: [("app.service".to_owned(), unit)].into(),
            }
        };
        let mut digest = Digest::default();
        merge(&mut digest, &one(10, 1.0, 80));
        merge(&mut digest, &one(30, 3.0, 81));
        let unit = &digest.units["app.service"];
        assert_eq!((digest.seconds, digest.local_second), (40, 30));
        assert!((unit.uses[&ResourceKind::Cpu] - 2.5).abs() < 1e-9);
        assert_eq!(unit.ports.len(), 2);
        merge(
            &mut digest,
            &Digest {
                seconds: 40,
                ..Digest::default()
            },
        );
        assert!((digest.units["app.service"].uses[&ResourceKind::Cpu] - 1.25).abs() < 1e-9);
    }
}
