//! One look at this host: what is there of what a profile asks for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tracing::warn;

use crate::config::pattern::Glob;
use crate::config::settings::ProfileSettings;
use crate::decide::profile::learn::Asked;
use crate::facts::{
    BootTime, Dependency, FileFact, FileKind, HostInventory, Inventory, Observation, Port,
    Protocol, Scope,
};
use crate::observe::inventory::certificates;
use crate::observe::inventory::units::{self, UnitInventory};
use crate::observe::inventory::{
    FileReader, HashRules, PackageError, Packages, host, reach::Reach,
};
use crate::observe::sys::clock_error_ns;
use crate::run::record::wall_ms;

/// What capture told of longer ago, or two of its ticks where that is more, says nothing of now: it hangs,
/// or has ended.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Processors are busy for a second every now and then, and a minute tells what is left of them: so many
/// looks.
const LOOKS_OF_A_MINUTE: usize = 15;

/// Looks, and remembers what does not change.
pub(super) struct Looker {
    files: FileReader,
    packages: Packages,
    units: Option<UnitInventory>,
    reach: Reach,
    parameters: Vec<String>,
    /// Files that differ from host to host.
    ignore: Vec<Glob>,
    busy: Lately,
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
            ignore: settings.ignore.clone(),
            busy: Lately::default(),
        }
    }

    /// Looks at everything that is asked for. Takes as long as the slowest disk, tool and peer,
    /// each of which is bounded.
    pub async fn look(
        &mut self,
        asked: &Asked,
        dependencies: &BTreeSet<Dependency>,
        observation: Option<&Observation>,
    ) -> Inventory {
        let mut here = Inventory::default();
        self.files.begin();
        self.units(asked, &mut here).await;
        self.packages(asked, &mut here);
        self.files(asked, &mut here);
        here.content.parameters = host::parameters(&self.parameters);
        here.reach = self.reach.look(dependencies).await;
        let now_s = i64::try_from(wall_ms() / 1_000).unwrap_or(i64::MAX);
        here.expiry = certificates::expiry(asked.files.keys(), now_s);
        if observation.is_none() {
            let why = "capture has told nothing lately".to_owned();
            here.unknown.insert(Inventory::CAPTURE.to_owned(), why);
        }
        here.taken = observation.map_or_else(BTreeMap::new, |told| taken(asked, told));
        let folders = asked.files.keys().filter_map(|path| path.rsplit_once('/'));
        let host = observation
            .map(|told| told.host.clone())
            .unwrap_or_default();
        here.host = HostInventory {
            processors: f64::from(host.processors),
            busy: self.busy.mean(host.cpu),
            memory: host.memory_bytes,
            memory_available: host.memory_available_bytes,
            disks: host::disks(folders.map(|(folder, _)| folder)),
            clock_error_ns: clock_error_ns(),
            active: std::mem::take(&mut here.host.active),
            changed_at: std::mem::take(&mut here.host.changed_at),
        };
        here
    }

    /// Whether the next look should come soon: something failed for the first time.
    pub fn is_in_doubt(&self) -> bool {
        self.reach.is_in_doubt()
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
        for (name, mut found) in found {
            if found.active {
                here.host.active.insert(name.clone());
                here.host.changed_at.insert(name.clone(), found.changed_at);
            }
            let ignored = |path: &String| self.ignore.iter().any(|glob| glob.matches(path));
            found.unit.defined_by.retain(|path| !ignored(path));
            here.content.units.insert(name, found.unit);
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

/// What capture told, which it does each `tick`, if that is of now.
pub(super) fn fresh(
    observation: &Observation,
    tick: Duration,
    now: BootTime,
) -> Option<&Observation> {
    let ever = observation.at > BootTime::default();
    let within = TOLD_WITHIN.max(tick * 2);
    (ever && now.since(observation.at) < within).then_some(observation)
}

/// Readings of the last minute, as far as they are known.
#[derive(Debug, Default)]
struct Lately(VecDeque<Option<f64>>);

impl Lately {
    /// Their mean, with one more; none if nothing is known.
    fn mean(&mut self, reading: Option<f64>) -> Option<f64> {
        if self.0.len() >= LOOKS_OF_A_MINUTE {
            self.0.pop_front();
        }
        self.0.push_back(reading);
        let known = self.0.iter().flatten();
        let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), one| (sum + one, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    }
}

/// Whether who listens at an address may keep a unit from listening. Only loopback is surely another
/// address than one that others reach, such as a resolver of the host beside a name server.
fn is_in_the_way(local: IpAddr, wanted: Scope) -> bool {
    match wanted {
        Scope::All => true,
        Scope::Loopback => local.is_unspecified() || local.is_loopback(),
        Scope::Own | Scope::Virtual => !local.is_loopback(),
    }
}

/// Ports of the group's units on which another unit of this host listens.
fn taken(asked: &Asked, observation: &Observation) -> BTreeMap<Port, String> {
    let mut taken = BTreeMap::new();
    for port in &asked.ports {
        let by = observation.listeners.iter().find(|listener| {
            listener.local_port == port.port
                && port.protocol == Protocol::Tcp
                && is_in_the_way(listener.local, port.scope)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_loopback_is_not_in_the_way_of_a_name_server() {
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let scopes = [Scope::All, Scope::Loopback, Scope::Own, Scope::Virtual];
        for (local, blocks) in [
            ("127.0.0.53", [true, true, false, false]),
            ("::1", [true, true, false, false]),
            ("0.0.0.0", [true; 4]),
            ("192.0.2.1", [true, false, true, true]),
        ] {
            let found = scopes.map(|scope| is_in_the_way(at(local), scope));
            assert_eq!(found, blocks, "{local}");
        }
    }

    #[test]
    fn a_busy_second_is_little_of_a_minute_and_a_busy_minute_is_all_of_it() {
        let mut lately = Lately::default();
        assert_eq!(lately.mean(None), None, "nothing is known");
        for _ in 0..LOOKS_OF_A_MINUTE {
            lately.mean(Some(0.1));
        }
        assert!(lately.mean(Some(2.0)).unwrap() < 0.3);
        for _ in 0..LOOKS_OF_A_MINUTE {
            lately.mean(Some(2.0));
        }
        assert!((lately.mean(Some(2.0)).unwrap() - 2.0).abs() < 1e-9);
        assert!((lately.mean(None).unwrap() - 2.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn what_capture_told_long_ago_says_nothing_of_now() {
        let settings = ProfileSettings::default();
        let mut looker = Looker::new(&settings, [0; 32]);
        let at = BootTime::from_nanos(100_000_000_000);
        let mut told = Observation {
            at,
            ..Observation::default()
        };
        (told.host.processors, told.host.cpu) = (4, Some(1.0));
        told.host.memory_bytes = 1 << 30;
        for (seconds, known) in [(0, true), (9, true), (10, false)] {
            let now = at.after(Duration::from_secs(seconds));
            let told = fresh(&told, Duration::from_secs(1), now);
            let (asked, dependencies) = (Asked::default(), BTreeSet::new());
            let here = looker.look(&asked, &dependencies, told).await;
            assert_eq!(here.host.memory > 0, known, "{seconds}");
            assert_eq!(here.host.processors > 0.0, known, "{seconds}");
            assert_eq!(!here.unknown.contains_key(Inventory::CAPTURE), known);
        }
        let slow = Duration::from_secs(60);
        assert!(fresh(&told, slow, at.after(slow)).is_some());
        assert!(fresh(&told, slow, at.after(slow * 2)).is_none());
        assert!(fresh(&Observation::default(), slow, BootTime::default()).is_none());
    }
}
