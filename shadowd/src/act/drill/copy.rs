//! What of a unit its copy has: what runs, as whom, in which environment, within which limits.
//!
//! Left out is what would touch the original: its directories in /run, its pid file, what stops it,
//! what starts it again, its sockets, its order with other units.

use zbus::names::InterfaceName;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, Variant};
use zbus_systemd::systemd1::{ServiceProxy, UnitProxy};

use super::{DrillError, Properties};
use crate::act::hooks::Hooks;

/// Properties that a transient unit takes as a service gives them (org.freedesktop.systemd1(5)).
const AS_THEY_ARE: &[&str] = &[
    "Type",
    "User",
    "Group",
    "SupplementaryGroups",
    "Environment",
    "EnvironmentFiles",
    "PassEnvironment",
    "UMask",
    "Nice",
    "RemainAfterExit",
    "GuessMainPID",
    "NotifyAccess",
    "TimeoutStartUSec",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "LimitNOFILE",
    "LimitNPROC",
    "LimitMEMLOCK",
    "LimitSTACK",
    "MemoryMax",
    "TasksMax",
    "CPUQuotaPerSecUSec",
];
/// A copy writes no larger file (bytes): what it writes lies in memory.
const LARGEST_FILE: u64 = 64 << 20;

type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// What a copy of `unit` has.
pub(super) async fn of(hooks: &Hooks, unit: &str) -> Result<Properties, DrillError> {
    let request = |source| DrillError::Request {
        unit: unit.to_owned(),
        source,
    };
    let unfit = |why: &str| DrillError::Unfit {
        unit: unit.to_owned(),
        why: why.to_owned(),
    };
    let manager = hooks.manager().await.map_err(request)?;
    let path = manager.load_unit(unit.to_owned()).await.map_err(request)?;
    let connection = hooks.connected().await.map_err(request)?;
    let original = UnitProxy::builder(&connection)
        .path(path.clone())
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(request)?;
    if original.load_state().await.map_err(request)? != "loaded" {
        return Err(unfit("systemd has not loaded it"));
    }
    let service = service(&connection, path.clone()).await.map_err(request)?;
    if service.dynamic_user().await.map_err(request)? {
        return Err(unfit(
            "it has a dynamic user; leave it out of group.drill.units",
        ));
    }
    if service.bus_name().await.is_ok_and(|name| !name.is_empty()) {
        return Err(unfit(
            "it takes a name on the bus; leave it out of group.drill.units",
        ));
    }
    let mut properties = Properties::new();
    for (name, commands) in [
        ("ExecStartPre", service.exec_start_pre().await),
        ("ExecStart", service.exec_start().await),
        ("ExecStartPost", service.exec_start_post().await),
    ] {
        let commands = plain(commands.map_err(request)?);
        if !commands.is_empty() {
            properties.push((name, Variant::new(commands)));
        }
    }
    let directory = service.working_directory().await.map_err(request)?;
    if !directory.is_empty() {
        // A missing one is fine: read with `!`, written with `-`.
        let written = directory.strip_prefix('!').map(|path| format!("-{path}"));
        properties.push((
            "WorkingDirectory",
            Variant::new(written.unwrap_or(directory)),
        ));
    }
    properties.extend(as_they_are(&connection, path).await.map_err(request)?);
    properties.push(("LimitFSIZE", Variant::new(LARGEST_FILE)));
    Ok(properties)
}

/// systemd's word for how a service ended.
pub(super) async fn result(connection: &Connection, path: OwnedObjectPath) -> zbus::Result<String> {
    let service = service(connection, path).await?;
    let status = service.exec_main_status().await?;
    Ok(format!("{} {status}", service.result().await?))
}

async fn service(
    connection: &Connection,
    path: OwnedObjectPath,
) -> zbus::Result<ServiceProxy<'static>> {
    ServiceProxy::builder(connection)
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

async fn as_they_are(connection: &Connection, path: OwnedObjectPath) -> zbus::Result<Properties> {
    let proxy = zbus::fdo::PropertiesProxy::builder(connection)
        .destination("org.freedesktop.systemd1")
        .path(path)
        .build()
        .await?;
    let interface = InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Service");
    let mut all = proxy.get_all(interface).await?;
    let mut properties = Properties::new();
    for name in AS_THEY_ARE {
        // An older systemd does not know all of them.
        if let Some(value) = all.remove(*name) {
            properties.push((name, value.into()));
        }
    }
    Ok(properties)
}

/// Commands as a transient unit takes them; how they ended the last time is left out.
fn plain(commands: Vec<Command>) -> Vec<(String, Vec<String>, bool)> {
    let commands = commands.into_iter();
    commands
        .map(|(program, words, may_fail, ..)| (program, words, may_fail))
        .collect()
}
