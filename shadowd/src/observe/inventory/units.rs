//! Units as systemd has them: enabled or masked, active, limits, environment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, OwnedVariant};
use zbus_systemd::systemd1::ManagerProxy;

use super::environment::environment;
use super::files::HashRules;
use crate::facts::UnitProfile;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(3);
/// More units that trigger one are not looked at.
const TRIGGERS_MAX: usize = 8;

/// Why a unit is not known.
#[derive(Debug, Error)]
pub enum UnitInventoryError {
    /// systemd does not answer.
    #[error("systemd does not answer")]
    Bus(#[source] zbus::Error),
    /// Not in time.
    #[error("systemd did not answer within {} s", CALL_WITHIN.as_secs())]
    Late,
    /// An environment file cannot be read.
    #[error("{path} cannot be read")]
    Environment {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A unit, and whether it is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUnit {
    /// What a profile has of it, without what only use shows.
    pub unit: UnitProfile,
    /// It is active.
    pub active: bool,
    /// When its state changed last, µs since 1970: it was started, or told to read its configuration.
    pub changed_at: u64,
    /// Units that start it at their time or on their event: timers, paths, sockets.
    pub triggered_by: Vec<String>,
}

/// Asks systemd.
pub struct UnitInventory {
    connection: Connection,
}

type Properties = std::collections::HashMap<String, OwnedVariant>;

impl UnitInventory {
    /// Over the system bus.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect() -> Result<Self, UnitInventoryError> {
        let connection = within(Connection::system()).await?;
        Ok(Self { connection })
    }

    /// One unit; none when there is none of that name.
    ///
    /// # Errors
    /// See [`UnitInventoryError`].
    pub async fn unit(
        &self,
        name: &str,
        rules: &HashRules,
    ) -> Result<Option<FoundUnit>, UnitInventoryError> {
        let manager = within(
            ManagerProxy::builder(&self.connection)
                .cache_properties(CacheProperties::No)
                .build(),
        )
        .await?;
        let path = within(manager.load_unit(name.to_owned())).await?;
        let unit = self.properties(&path, UNIT).await?;
        if text(&unit, "LoadState").as_deref() == Some("not-found") {
            return Ok(None);
        }
        let masked = text(&unit, "LoadState").as_deref() == Some("masked");
        let enabled = text(&unit, "UnitFileState").unwrap_or_default();
        let mut found = UnitProfile {
            enabled: if masked { "masked".to_owned() } else { enabled },
            ..UnitProfile::default()
        };
        let fragment = text(&unit, "FragmentPath").filter(|path| !path.is_empty());
        found.defined_by.extend(fragment);
        let drop_ins = list(&unit, "DropInPaths").into_iter();
        // What shadowd wrote here is compared as what it says.
        let foreign = drop_ins.filter(|path| !path.ends_with(UnitProfile::LIMITS_FILE));
        found.defined_by.extend(foreign);
        let active = text(&unit, "ActiveState").unwrap_or_default();
        let active = matches!(active.as_str(), "active" | "reloading" | "refreshing");
        if name.ends_with(".service") && !masked {
            let service = self.properties(&path, SERVICE).await?;
            found.limits = limits(&service);
            let files = environment_files(&service);
            found
                .defined_by
                .extend(files.iter().map(|(path, _)| path.clone()));
            let variables = environment(&list(&service, "Environment"), &files);
            let variables = variables
                .map_err(|(path, source)| UnitInventoryError::Environment { path, source })?;
            let hidden = variables
                .into_iter()
                .map(|(name, value)| (name, rules.hide(&value)));
            found.environment = hidden.collect();
        }
        Ok(Some(FoundUnit {
            unit: found,
            active,
            changed_at: number(&unit, "StateChangeTimestamp").unwrap_or_default(),
            triggered_by: list(&unit, "TriggeredBy"),
        }))
    }

    async fn properties(
        &self,
        path: &OwnedObjectPath,
        interface: &'static str,
    ) -> Result<Properties, UnitInventoryError> {
        let proxy = PropertiesProxy::builder(&self.connection)
            .destination(SYSTEMD)
            .path(path.clone())
            .cache_properties(CacheProperties::No);
        let proxy = within(proxy.build()).await?;
        let interface = interface.try_into().map_err(UnitInventoryError::Bus)?;
        let all = timeout(CALL_WITHIN, proxy.get_all(interface)).await;
        let all = all.map_err(|_| UnitInventoryError::Late)?;
        all.map_err(|source| UnitInventoryError::Bus(source.into()))
    }
}

async fn within<T>(call: impl Future<Output = zbus::Result<T>>) -> Result<T, UnitInventoryError> {
    let answer = timeout(CALL_WITHIN, call).await;
    answer
        .map_err(|_| UnitInventoryError::Late)?
        .map_err(UnitInventoryError::Bus)
}

fn text(properties: &Properties, name: &str) -> Option<String> {
    String::try_from(properties.get(name)?.clone()).ok()
}

fn number(properties: &Properties, name: &str) -> Option<u64> {
    u64::try_from(properties.get(name)?.clone()).ok()
}

fn list(properties: &Properties, name: &str) -> Vec<String> {
    let value = properties.get(name).cloned();
    value
        .and_then(|value| Vec::<String>::try_from(value).ok())
        .unwrap_or_default()
}

/// Path, and whether it may be missing.
fn environment_files(properties: &Properties) -> Vec<(String, bool)> {
    let value = properties.get("EnvironmentFiles").cloned();
    value
        .and_then(|value| Vec::<(String, bool)>::try_from(value).ok())
        .unwrap_or_default()
}

fn limits(properties: &Properties) -> BTreeMap<String, String> {
    let limits = UnitProfile::LIMITS.iter().filter_map(|name| {
        let text = match number(properties, name)? {
            u64::MAX => "infinity".to_owned(),
            number => number.to_string(),
        };
        Some(((*name).to_owned(), text))
    });
    limits.collect()
}

/// Units with these names and those that trigger them, each with why it is not known if it is not.
pub async fn all(
    inventory: &UnitInventory,
    names: &BTreeSet<String>,
    rules: &HashRules,
) -> (BTreeMap<String, FoundUnit>, BTreeMap<String, String>) {
    let (mut found, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    let mut wanted = names.clone();
    while let Some(name) = wanted.pop_first() {
        match inventory.unit(&name, rules).await {
            Ok(Some(unit)) => {
                let triggers = unit.triggered_by.iter().take(TRIGGERS_MAX).cloned();
                // A trigger is triggered by nothing that is not looked at already.
                wanted.extend(triggers.filter(|trigger| {
                    let known = names.contains(trigger) || found.contains_key(trigger);
                    !known && names.contains(&name)
                }));
                found.insert(name, unit);
            }
            Ok(None) => {}
            Err(error) => drop(unknown.insert(format!("unit {name}"), explain(&error))),
        }
    }
    (found, unknown)
}

/// An error with all that led to it.
fn explain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}
