//! One look at this host: what is there of what a profile asks for.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use crate::config::settings::ProfileSettings;
use crate::decide::profile::learn::Asked;
use crate::facts::{
    Dependency, FileFact, FileKind, HostInventory, Inventory, Observation, Port, Protocol,
};
use crate::observe::inventory::certificates;
use crate::observe::inventory::units::{self, UnitInventory};
use crate::observe::inventory::{
    FileReader, HashRules, PackageError, Packages, host, reach::Reach,
};
use crate::observe::sys::clock_error_ns;
use crate::run::record::wall_ms;

/// Looks, and remembers what does not change.
pub(super) struct Looker {
    files: FileReader,
    packages: Packages,
    units: Option<UnitInventory>,
    reach: Reach,
    parameters: Vec<String>,
}

impl Looker {
    /// With what may leave the host, and the group's key.
    pub fn new(settings: &ProfileSettings, key: [u8; 32]) -> Self {
        let rules = HashRules {
            replicated: settings.replicate.clone(),
            secret: settings.secret.clone(),
            key,
        };
        Self {
            files: FileReader::new(rules),
            packages: Packages::default(),
            units: None,
            reach: Reach::default(),
            parameters: settings.parameters.clone(),
        }
    }

    /// Looks at everything that is asked for. Takes as long as the slowest disk, tool and peer,
    /// each of which is bounded.
    pub async fn look(
        &mut self,
        asked: &Asked,
        dependencies: &BTreeSet<Dependency>,
        observation: &Observation,
    ) -> Inventory {
        let mut here = Inventory::default();
        self.units(asked, &mut here).await;
        self.packages(asked, &mut here);
        self.files(asked, &mut here);
        here.content.parameters = host::parameters(&self.parameters);
        here.reach = self.reach.look(dependencies).await;
        let now_s = i64::try_from(wall_ms() / 1_000).unwrap_or(i64::MAX);
        here.expiry = certificates::expiry(asked.files.keys(), now_s);
        here.taken = taken(asked, observation);
        let folders = asked.files.keys().filter_map(|path| path.rsplit_once('/'));
        here.host = HostInventory {
            processors: f64::from(observation.host.processors),
            busy: observation.host.cpu.unwrap_or_default(),
            memory: observation.host.memory_bytes,
            memory_available: observation.host.memory_available_bytes,
            disks: host::disks(folders.map(|(folder, _)| folder)),
            clock_error_ns: clock_error_ns(),
            active: std::mem::take(&mut here.host.active),
        };
        here
    }

    async fn units(&mut self, asked: &Asked, here: &mut Inventory) {
        if self.units.is_none() {
            match UnitInventory::connect().await {
                Ok(units) => self.units = Some(units),
                Err(error) => warn!(%error, "units cannot be looked at"),
            }
        }
        let Some(inventory) = &self.units else {
            for name in &asked.units {
                let why = "systemd cannot be reached".to_owned();
                here.unknown.insert(format!("unit {name}"), why);
            }
            return;
        };
        let rules = self.files.rules();
        let (found, unknown) = units::all(inventory, &asked.units, rules).await;
        // A bus that was restarted takes a new connection.
        let all_failed = !asked.units.is_empty() && unknown.len() == asked.units.len();
        here.unknown.extend(unknown);
        for (name, unit) in found {
            if unit.active {
                here.host.active.insert(name.clone());
            }
            here.content.units.insert(name, unit.unit);
        }
        if all_failed {
            self.units = None;
        }
    }

    fn packages(&mut self, asked: &Asked, here: &mut Inventory) {
        let programs: BTreeSet<String> = asked.programs.values().flatten().cloned().collect();
        let known = self.packages.owners(&programs).and_then(|owners| {
            let mut names: BTreeSet<String> = owners.values().flatten().cloned().collect();
            names.extend(asked.packages.iter().cloned());
            let versions = self.packages.versions(&names)?;
            Ok((owners, versions))
        });
        let (owners, versions) = match known {
            Ok(known) => known,
            Err(PackageError::None) => Default::default(),
            Err(error) => {
                here.unknown
                    .insert("packages".to_owned(), error.to_string());
                return;
            }
        };
        here.content.packages = versions;
        for (unit, programs) in &asked.programs {
            if let Some(unit) = here.content.units.get_mut(unit) {
                let owned = programs.iter().map(|program| {
                    let owner = owners.get(program).cloned().flatten();
                    (program.clone(), owner)
                });
                unit.programs = owned.collect();
            }
        }
    }

    fn files(&mut self, asked: &Asked, here: &mut Inventory) {
        self.files.renew_accounts();
        let content = &here.content.units;
        let unowned = content.values().flat_map(|unit| {
            let programs = unit.programs.iter();
            programs
                .filter(|(_, owner)| owner.is_none())
                .map(|(path, _)| path.clone())
        });
        let unowned = unowned.map(|path| (path, None));
        let mut paths: BTreeMap<String, Option<bool>> = unowned.collect();
        paths.extend(asked.files.clone());
        for (path, plain) in paths {
            match self.files.read_as(&path, plain) {
                Ok(Some(fact)) => drop(here.content.files.insert(path, fact)),
                Ok(None) => {}
                // Nothing of it is known, not even whose it is.
                Err(error) => {
                    let fact = FileFact {
                        kind: FileKind::Unreadable {
                            why: error.to_string(),
                        },
                        owner: String::new(),
                        group: String::new(),
                        mode: 0,
                    };
                    here.content.files.insert(path, fact);
                }
            }
        }
    }
}

/// Ports of the group's units on which another unit of this host listens.
fn taken(asked: &Asked, observation: &Observation) -> BTreeMap<Port, String> {
    let mut taken = BTreeMap::new();
    for port in &asked.ports {
        let by = observation.listeners.iter().find(|listener| {
            listener.local_port == port.port
                && port.protocol == Protocol::Tcp
                && !asked.units.contains(&listener.unit)
        });
        if let Some(by) = by {
            let name = match by.unit.as_str() {
                "-" => format!("{} (process {})", by.command, by.pid),
                unit => unit.to_owned(),
            };
            taken.insert(port.clone(), name);
        }
    }
    taken
}
