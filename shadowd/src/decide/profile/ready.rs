//! Compares what a profile asks for with what is on this host.

mod room;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{
    Act, Beside, Content, Dependency, DiskInventory, FileFact, FileKind, Inventory, Item, ItemKind,
    Name, Profile, Readiness, ResourceKind, ShellWord, UnitMode, Verdict,
};

/// Less than this is no room: a share of the file system, and bytes.
const DISK_SHARE: f64 = 0.05;
const DISK_BYTES: u64 = 256 << 20;
/// The share of files that can still be made.
const DISK_FILES: f64 = 0.02;
/// Who needs less of a processor than this gets it however busy the others are.
const CPU_ALWAYS: f64 = 0.05;
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
    list.reach(content);
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

    fn reach(&mut self, content: &Content) {
        let units = content.units.values();
        let wanted: BTreeSet<&Dependency> = units.flat_map(|unit| &unit.dependencies).collect();
        for dependency in wanted {
            let (remote, port) = (&dependency.remote, dependency.port);
            let subject = format!("{} {remote}:{port}", dependency.protocol);
            match self.here.reach.get(dependency) {
                Some(Ok(())) => self.ready(ItemKind::Dependency, subject),
                Some(Err(why)) => {
                    let remedy =
                        Remedy::Operator(format!("look at routes, firewalls and {remote}"));
                    self.not_ready(ItemKind::Dependency, subject, why, remedy);
                }
                None => self.cannot_tell(ItemKind::Dependency, subject, "it was not tried lately"),
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
