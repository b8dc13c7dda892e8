//! Compares what a profile asks for with what is on this host.

mod room;

use std::collections::BTreeMap;

use crate::facts::{
    Act, Beside, Content, DiskInventory, FileFact, FileKind, Inventory, Item, ItemKind, Name,
    Passage, Profile, Readiness, ResourceKind, ShellWord, UnitMode, UnitProfile, Verdict,
};

/// Less than this is no room: a share of the file system, and bytes.
const DISK_SHARE: f64 = 0.05;
const DISK_BYTES: u64 = 256 << 20;
/// The share of files that can still be made.
const DISK_FILES: f64 = 0.02;
/// Who needs less of a processor than this gets it however busy the others are.
const CPU_ALWAYS: f64 = 0.05;
/// Drop-ins that shadowd writes have names that begin so.
const OWN_DROP_INS: &str = "90-shadowd";
/// A clock that may be off by more is wrong.
const CLOCK_ERROR_NS: u64 = 1_000_000_000;
/// A certificate that expires sooner is as good as expired: seconds.
const CERTIFICATE_LEFT: i64 = 72 * 3_600;

/// What a comparison is of.
pub struct Wanted<'a> {
    /// The group.
    pub group: &'a Name,
    /// The profile.
    pub profile: &'a Profile,
    /// How each unit of the group is kept.
    pub modes: &'a BTreeMap<Name, UnitMode>,
    /// This host owns the group: its units run, and their ports are theirs.
    pub owner: bool,
    /// What is so on the active now.
    pub beside: &'a Beside,
}

/// Compares.
pub fn compare(wanted: &Wanted<'_>, here: &Inventory) -> Readiness {
    let mut list = List {
        here,
        items: Vec::new(),
    };
    let content = &wanted.profile.content;
    for (name, unit) in &content.units {
        list.unit(name, unit, wanted);
    }
    list.packages(content);
    for (path, fact) in &content.files {
        list.file(path, fact);
    }
    list.parameters(content);
    list.reach();
    list.certificates();
    list.disks();
    list.headroom(wanted);
    list.clock();
    list.warmth(wanted);
    let mut items = list.items;
    items.sort_by(|one, other| {
        let order = |item: &Item| (std::cmp::Reverse(item.verdict), item.kind);
        order(one)
            .cmp(&order(other))
            .then_with(|| one.subject.cmp(&other.subject))
    });
    Readiness {
        group: wanted.group.clone(),
        items,
    }
}

struct List<'a> {
    here: &'a Inventory,
    items: Vec<Item>,
}

/// What to do about an item.
enum Remedy {
    /// This, by an operator.
    Operator(String),
    /// This, by an operator or by shadowd.
    Either(Act),
}

impl List<'_> {
    fn ready(&mut self, kind: ItemKind, subject: impl Into<String>) {
        self.push(kind, subject, Verdict::Ready, String::new(), None);
    }

    fn not_ready(
        &mut self,
        kind: ItemKind,
        subject: impl Into<String>,
        cause: impl Into<String>,
        remedy: Remedy,
    ) {
        self.push(kind, subject, Verdict::NotReady, cause.into(), Some(remedy));
    }

    fn cannot_tell(
        &mut self,
        kind: ItemKind,
        subject: impl Into<String>,
        cause: impl Into<String>,
    ) {
        self.push(kind, subject, Verdict::CannotTell, cause.into(), None);
    }

    fn push(
        &mut self,
        kind: ItemKind,
        subject: impl Into<String>,
        verdict: Verdict,
        cause: String,
        remedy: Option<Remedy>,
    ) {
        let (remedy, act) = match remedy {
            Some(Remedy::Operator(text)) => (Some(text), None),
            Some(Remedy::Either(act)) => (Some(act.to_string()), Some(act)),
            None => (None, None),
        };
        self.items.push(Item {
            kind,
            subject: subject.into(),
            verdict,
            cause,
            remedy,
            act,
        });
    }

    /// Why something could not be found out, if it could not.
    fn unknown(&self, subject: &str) -> Option<String> {
        self.here.unknown.get(subject).cloned()
    }

    fn unit(&mut self, name: &str, unit: &UnitProfile, wanted: &Wanted<'_>) {
        if let Some(why) = self.unknown(&format!("unit {name}")) {
            return self.cannot_tell(ItemKind::Unit, name, why);
        }
        let Some(here) = self.here.content.units.get(name) else {
            let remedy = Remedy::Operator("install the package or the unit file".into());
            return self.not_ready(ItemKind::Unit, name, "there is no such unit here", remedy);
        };
        let mode = wanted.modes.iter().find(|(unit, _)| unit.as_str() == name);
        let warm = mode.is_some_and(|(_, mode)| *mode == UnitMode::Warm);
        let active = self.here.host.active.contains(name);
        if here.enabled.starts_with("masked") {
            let remedy = Remedy::Either(Act::Unmask { unit: name.into() });
            self.not_ready(ItemKind::Unit, name, "it is masked", remedy);
        } else if here.enabled != unit.enabled {
            let cause = format!("{} here, {} on the active", here.enabled, unit.enabled);
            let command = match unit.enabled.as_str() {
                "enabled" => Remedy::Either(Act::Enable { unit: name.into() }),
                "disabled" => Remedy::Either(Act::Disable { unit: name.into() }),
                _ => Remedy::Operator(format!("systemctl cat {name}")),
            };
            self.not_ready(ItemKind::Unit, name, cause, command);
        } else if warm && !active {
            let remedy = Remedy::Either(Act::Start { unit: name.into() });
            self.not_ready(ItemKind::Unit, name, "it is warm and does not run", remedy);
        } else if let Some((cause, act)) = self.outdated(name, unit, wanted).filter(|_| warm) {
            self.not_ready(ItemKind::Unit, name, cause, Remedy::Either(act));
        } else {
            self.ready(ItemKind::Unit, name);
        }
        if !here.enabled.starts_with("masked") {
            self.changed_here(name, unit, here);
        }
        self.environment(name, unit, here);
        self.limits(name, unit, here);
        self.ports(name, unit, active || wanted.owner);
        self.passages(name, unit, wanted);
    }

    /// Whether the unit runs with what a file said before it became what it is on the active, and what
    /// helps. A file that is not as on the active is told by itself, and comes first.
    fn outdated(
        &self,
        name: &str,
        unit: &UnitProfile,
        wanted: &Wanted<'_>,
    ) -> Option<(String, Act)> {
        let (here, there) = (&self.here.content.files, &wanted.profile.content.files);
        let is_settled = |path: &&String| {
            let (here, there) = (here.get(*path), there.get(*path));
            here.is_some() && here.map(|fact| &fact.kind) == there.map(|fact| &fact.kind)
        };
        let outdated = self.here.outdated.get(name)?.iter().filter(is_settled);
        let outdated: Vec<&String> = outdated.collect();
        let mut defining = outdated
            .iter()
            .filter(|path| unit.defined_by.contains(**path));
        let (path, act) = match defining.next() {
            Some(path) => (path, Act::Restart { unit: name.into() }),
            None => (outdated.first()?, Act::Reload { unit: name.into() }),
        };
        Some((format!("it runs with what {path} said before"), act))
    }

    /// Files that systemd reads for the unit here alone, such as a drop-in with another command.
    fn changed_here(&mut self, name: &str, unit: &UnitProfile, here: &UnitProfile) {
        let others = here.defined_by.difference(&unit.defined_by);
        for path in others.filter(|path| !is_by_command(path)) {
            let cause = format!("it changes {name} here, and is not on the active");
            let remedy = Remedy::Operator(format!("systemctl cat {name}"));
            self.not_ready(ItemKind::File, path, cause, remedy);
        }
    }

    fn environment(&mut self, name: &str, unit: &UnitProfile, here: &UnitProfile) {
        let names = unit.environment.keys().chain(here.environment.keys());
        let names: std::collections::BTreeSet<&String> = names.collect();
        for variable in names {
            let subject = format!("{name}: {variable}");
            let cause = match (
                unit.environment.get(variable),
                here.environment.get(variable),
            ) {
                (Some(there), Some(here)) if there == here => {
                    self.ready(ItemKind::Environment, subject);
                    continue;
                }
                (Some(_), Some(_)) => "it has another value than on the active",
                (Some(_), None) => "it is not set here",
                (None, _) => "it is set here and not on the active",
            };
            let remedy = Remedy::Operator(format!(
                "systemctl show {name} -p Environment -p EnvironmentFiles"
            ));
            self.not_ready(ItemKind::Environment, subject, cause, remedy);
        }
    }

    fn limits(&mut self, name: &str, unit: &UnitProfile, here: &UnitProfile) {
        for (limit, there) in &unit.limits {
            let subject = format!("{name}: {limit}");
            match here.limits.get(limit) {
                Some(here) if here == there => self.ready(ItemKind::Limit, subject),
                Some(here) => {
                    let cause = format!("{here} here, {there} on the active");
                    let set = Remedy::Either(Act::Limit {
                        unit: name.into(),
                        name: limit.clone(),
                        value: there.clone(),
                    });
                    self.not_ready(ItemKind::Limit, subject, cause, set);
                }
                None => self.cannot_tell(ItemKind::Limit, subject, "systemd does not tell it"),
            }
        }
    }

    fn ports(&mut self, name: &str, unit: &UnitProfile, own: bool) {
        for port in &unit.ports {
            let subject = format!("{name}: {} {}", port.protocol, port.port);
            match self.here.taken.get(port).filter(|_| !own) {
                Some(by) => {
                    let (by, number) = (by.clone(), port.port);
                    let remedy = Remedy::Operator(format!("ss -lntup 'sport = {number}'"));
                    self.not_ready(
                        ItemKind::Port,
                        subject,
                        format!("it is taken by {by}"),
                        remedy,
                    );
                }
                None => self.ready(ItemKind::Port, subject),
            }
        }
    }

    /// What the active does not let everybody in to may be closed here as well.
    fn passages(&mut self, name: &str, unit: &UnitProfile, wanted: &Wanted<'_>) {
        let here = self.here;
        for port in unit.ports.intersection(&wanted.beside.open) {
            let subject = format!("{name}: {} {}", port.protocol, port.port);
            match here.passages.get(port) {
                Some(Passage::Open) => self.ready(ItemKind::Firewall, subject),
                Some(Passage::Closed { by, chain, remedy }) => {
                    let remedy = match chain.clone() {
                        Some(chain) => Remedy::Either(Act::Open {
                            unit: name.to_owned(),
                            protocol: port.protocol,
                            port: port.port,
                            chain,
                        }),
                        None => Remedy::Operator(remedy.clone()),
                    };
                    self.not_ready(ItemKind::Firewall, subject, by.clone(), remedy);
                }
                Some(Passage::Unclear(why)) => {
                    self.cannot_tell(ItemKind::Firewall, subject, why.clone());
                }
                // Nothing was found that filters.
                None => {}
            }
        }
    }

    fn packages(&mut self, content: &Content) {
        for (name, there) in &content.packages {
            if let Some(why) = self.unknown("packages") {
                self.cannot_tell(ItemKind::Package, name, why);
                continue;
            }
            let cause = match self.here.content.packages.get(name) {
                Some(here) if here == there => {
                    self.ready(ItemKind::Package, name);
                    continue;
                }
                Some(here) => format!("{} here, {} on the active", here.version, there.version),
                None => "it is not installed".to_owned(),
            };
            let install = Remedy::Either(Act::Install {
                package: name.clone(),
                version: there.version.clone(),
            });
            self.not_ready(ItemKind::Package, name, cause, install);
        }
    }

    fn file(&mut self, path: &str, there: &FileFact) {
        if let FileKind::Unreadable { why } = &there.kind {
            let cause = format!("the active could not read it: {why}");
            return self.cannot_tell(ItemKind::File, path, cause);
        }
        let Some(here) = self.here.content.files.get(path) else {
            return match self.unknown(path) {
                Some(why) => self.cannot_tell(ItemKind::File, path, why),
                None => self.not_ready(ItemKind::File, path, "it is not here", fetch(path, there)),
            };
        };
        if let FileKind::Unreadable { why } = &here.kind {
            return self.cannot_tell(ItemKind::File, path, why.clone());
        }
        if there.kind != here.kind {
            let cause = format!("{} here, {} on the active", here.kind, there.kind);
            self.not_ready(ItemKind::File, path, cause, fetch(path, there));
        } else if (&here.owner, &here.group) != (&there.owner, &there.group) {
            let (owner, group) = (&there.owner, &there.group);
            let cause = format!(
                "it belongs to {}:{} here, to {owner}:{group} on the active",
                here.owner, here.group
            );
            let remedy = Remedy::Either(Act::Own {
                path: path.into(),
                owner: owner.clone(),
                group: group.clone(),
            });
            self.not_ready(ItemKind::File, path, cause, remedy);
        } else if here.mode != there.mode && !matches!(there.kind, FileKind::Link { .. }) {
            let cause = format!(
                "mode {:04o} here, {:04o} on the active",
                here.mode, there.mode
            );
            let remedy = Remedy::Either(Act::Mode {
                path: path.into(),
                mode: there.mode,
            });
            self.not_ready(ItemKind::File, path, cause, remedy);
        } else {
            self.ready(ItemKind::File, path);
        }
    }

    fn parameters(&mut self, content: &Content) {
        for (name, there) in &content.parameters {
            match self.here.content.parameters.get(name) {
                Some(here) if here == there => self.ready(ItemKind::Parameter, name),
                Some(here) => {
                    let cause = format!("{here} here, {there} on the active");
                    let remedy = Remedy::Either(Act::Parameter {
                        name: name.clone(),
                        value: there.clone(),
                    });
                    self.not_ready(ItemKind::Parameter, name, cause, remedy);
                }
                None => self.cannot_tell(ItemKind::Parameter, name, "this kernel does not have it"),
            }
        }
    }

    fn reach(&mut self) {
        let here = self.here;
        for (dependency, reached) in &here.reach {
            let (remote, port) = (&dependency.remote, dependency.port);
            let subject = format!("{} {remote}:{port}", dependency.protocol);
            match reached {
                Ok(()) => self.ready(ItemKind::Dependency, subject),
                Err(why) => {
                    let remedy =
                        Remedy::Operator(format!("look at routes, firewalls and {remote}"));
                    self.not_ready(ItemKind::Dependency, subject, why, remedy);
                }
            }
        }
    }

    fn certificates(&mut self) {
        let here = self.here;
        for (path, left) in &here.expiry {
            if *left >= CERTIFICATE_LEFT {
                self.ready(ItemKind::Certificate, path);
                continue;
            }
            let hours = left.abs() / 3_600;
            let cause = match *left < 0 {
                true => format!("it expired {hours} h ago"),
                false => format!("it expires in {hours} h"),
            };
            let remedy = Remedy::Operator(format!("renew {path}, on the active as well"));
            self.not_ready(ItemKind::Certificate, path, cause, remedy);
        }
    }

    fn disks(&mut self) {
        let here = self.here;
        for (mount, disk) in &here.host.disks {
            match cramped(disk) {
                None => self.ready(ItemKind::Disk, mount),
                Some(cause) => {
                    let place = ShellWord(mount);
                    let remedy = Remedy::Operator(format!("df -h {place}; df -i {place}"));
                    self.not_ready(ItemKind::Disk, mount, cause, remedy);
                }
            }
        }
    }

    fn clock(&mut self) {
        match self.here.host.clock_error_ns {
            Some(error) if error <= CLOCK_ERROR_NS => self.ready(ItemKind::Clock, "clock"),
            Some(error) => {
                let cause = format!("it may be off by {:.1} s", error as f64 / 1e9);
                let remedy = Remedy::Operator("timedatectl timesync-status".into());
                self.not_ready(ItemKind::Clock, "clock", cause, remedy);
            }
            None => self.cannot_tell(
                ItemKind::Clock,
                "clock",
                "the kernel's clock is not synchronised",
            ),
        }
    }
}

/// Whether a drop-in is what `systemctl set-property` or shadowd wrote: what these set is compared
/// itself.
fn is_by_command(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.contains("/systemd/system.control/") || name.starts_with(OWN_DROP_INS)
}

/// How a file gets here: shadowd has the contents that may leave the active.
fn fetch(path: &str, there: &FileFact) -> Remedy {
    let own = !matches!(
        there.kind,
        FileKind::Regular {
            replicated: false,
            ..
        }
    );
    match own {
        true => Remedy::Either(Act::Copy {
            path: path.into(),
            fact: there.clone(),
        }),
        false => Remedy::Operator(format!(
            "copy {path} from the active: its content is not replicated"
        )),
    }
}

fn cramped(disk: &DiskInventory) -> Option<String> {
    let share = disk.free as f64 / disk.size.max(1) as f64;
    if disk.read_only {
        Some("it is mounted read-only".to_owned())
    } else if share < DISK_SHARE || disk.free < DISK_BYTES.min(disk.size / 4) {
        let free = amount(ResourceKind::Memory, disk.free as f64);
        Some(format!("{free} free, {:.1} %", share * 100.0))
    } else if disk.files_free < DISK_FILES {
        Some(format!(
            "{:.1} % of the inodes free",
            disk.files_free * 100.0
        ))
    } else {
        None
    }
}

fn amount(kind: ResourceKind, value: f64) -> String {
    match kind {
        ResourceKind::Cpu => format!("{value:.1} processors"),
        _ => format!("{:.0} MiB", value / f64::from(1 << 20)),
    }
}

#[cfg(test)]
#[path = "ready_tests.rs"]
mod tests;
