//! A unit of the profile beside the one of this host: how it runs, with what, where it listens.

use super::{List, Remedy, Wanted};
use crate::facts::{Act, Inventory, ItemKind, Passage, UnitMode, UnitProfile};

impl List<'_> {
    pub(super) fn unit(&mut self, name: &str, unit: &UnitProfile, wanted: &Wanted<'_>) {
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
            if let Some(why) = self.unknown(Inventory::CAPTURE).filter(|_| !own) {
                self.cannot_tell(ItemKind::Port, subject, why);
                continue;
            }
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
}

/// Whether a drop-in is what `systemctl set-property` or shadowd wrote: what these set is compared
/// itself.
fn is_by_command(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.contains("/systemd/system.control/") || name == UnitProfile::LIMITS_FILE
}
