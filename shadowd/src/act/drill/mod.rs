//! The place of a drill: a network namespace of its own, copies of units in it, checks.
//!
//! systemd makes all of it and ends all of it. One transient unit, the holder, has a private network
//! and keeps it open; the copies and the checks join that and are bound to the holder, which systemd
//! ends at a deadline of its own: whatever becomes of the daemon, nothing stays. The copies read the
//! host's files and write none of them. This module decides neither when a drill begins nor whether
//! it passed.

mod copy;
mod inside;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use zbus::Variant;
use zbus::proxy::CacheProperties;
use zbus_systemd::systemd1::UnitProxy;

use super::hooks::Hooks;
use crate::config::settings::DrillSettings;
use crate::facts::{Name, Vip};

pub use inside::{InsideError, Probe, ProbeError, hold, probe};

/// Every unit of every drill.
const PATTERN: &str = "shadowd-drill-*";
/// The holder is up within this time.
const HOLD_WITHIN: Duration = Duration::from_secs(15);
/// Between SIGTERM and SIGKILL of a copy: what it holds is thrown away.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// systemd ends the holder so long after the drill should have ended.
const GRACE: Duration = Duration::from_secs(60);
/// Everything is gone within this time.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a unit.
const LOOK: Duration = Duration::from_millis(50);

/// Why a step of a drill failed.
#[derive(Debug, Error)]
pub enum DrillError {
    /// systemd cannot be reached, refused, or did not answer.
    #[error("systemd did not take {unit}")]
    Request {
        /// The unit.
        unit: String,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// The unit ended instead of coming up.
    #[error("{unit} did not come up ({result}): see `journalctl -u {unit}`")]
    Failed {
        /// The unit.
        unit: String,
        /// systemd's word: `exit-code`, `signal`, `timeout`, and others.
        result: String,
    },
    /// It did not come up in time.
    #[error("{unit} was not up after {within:?}: see `journalctl -u {unit}`")]
    Late {
        /// The unit.
        unit: String,
        /// The deadline.
        within: Duration,
    },
    /// The unit cannot be copied.
    #[error("{unit} cannot be drilled: {why}")]
    Unfit {
        /// The unit.
        unit: String,
        /// Why.
        why: String,
    },
    /// Something of a drill is still there.
    #[error("{unit} is still there: stop it with `systemctl stop {unit}`")]
    Remains {
        /// The unit.
        unit: String,
    },
}

/// What the holder is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The directory that is the drill's own; it is there when the holder starts.
    pub directory: PathBuf,
    /// How the interface of the virtual IPs is called.
    pub interface: String,
    /// The virtual IPs.
    pub vips: Vec<Vip>,
    /// Directories that are replaced by empty ones.
    pub scratch: Vec<PathBuf>,
}

/// The place of one drill.
#[derive(Debug)]
pub struct Stage<'a> {
    hooks: &'a Hooks,
    label: String,
    place: Place,
    lasts: Duration,
}

type Properties = Vec<(&'static str, Variant<'static>)>;

impl<'a> Stage<'a> {
    /// The place for a drill of `group`; nothing is there before [`Self::open`].
    pub fn new(
        hooks: &'a Hooks,
        group: &Name,
        settings: &DrillSettings,
        interface: &str,
        vips: &[Vip],
    ) -> Self {
        let label = label(group);
        Self {
            hooks,
            place: Place {
                directory: PathBuf::from(format!("/run/shadowd-drill-{label}")),
                interface: interface.to_owned(),
                vips: vips.to_vec(),
                scratch: settings.scratch.clone(),
            },
            label,
            lasts: settings.deadline,
        }
    }

    /// Makes the namespace with the virtual IPs. `program` is the daemon's own.
    ///
    /// # Errors
    /// [`DrillError`]; what was begun is for [`clear`].
    pub async fn open(&self, program: &str) -> Result<(), DrillError> {
        let holder = self.holder();
        let words = vec![
            program.to_owned(),
            "--drill-hold".to_owned(),
            text(&self.place).replace('$', "$$"),
        ];
        let name = format!("shadowd-drill-{}", self.label);
        let properties: Properties = vec![
            (
                "Description",
                Variant::new(format!("shadowd: drill of {}", self.label)),
            ),
            ("Type", Variant::new("notify")),
            (
                "ExecStart",
                Variant::new(vec![(program.to_owned(), words, false)]),
            ),
            ("PrivateNetwork", Variant::new(true)),
            ("PrivateIPC", Variant::new(true)),
            ("RuntimeDirectory", Variant::new(vec![name])),
            ("RuntimeDirectoryMode", Variant::new(0o711_u32)),
            ("ProtectSystem", Variant::new("strict")),
            ("NoNewPrivileges", Variant::new(true)),
            ("RuntimeMaxUSec", Variant::new(micros(self.lasts + GRACE))),
            ("TimeoutStopUSec", Variant::new(micros(KILL_AFTER))),
            ("CollectMode", Variant::new("inactive-or-failed")),
        ];
        self.start(&holder, properties, HOLD_WITHIN).await
    }

    /// Brings a copy of `unit` up.
    ///
    /// # Errors
    /// [`DrillError`].
    pub async fn start_copy(&self, unit: &Name, within: Duration) -> Result<(), DrillError> {
        let name = format!("shadowd-drill-{}:unit:{unit}", self.label);
        let mut properties = self.inside();
        properties.extend(copy::of(self.hooks, unit.as_str()).await?);
        properties.push((
            "Description",
            Variant::new(format!("shadowd: drill of {unit}")),
        ));
        properties.push(("KillMode", Variant::new("control-group")));
        properties.push(("TimeoutStopUSec", Variant::new(micros(KILL_AFTER))));
        properties.push(("CollectMode", Variant::new("inactive-or-failed")));
        properties.push(("AddRef", Variant::new(true)));
        self.start(&name, properties, within).await
    }

    /// The name of the unit that a check runs in.
    pub fn check_unit(&self, check: &Name) -> String {
        format!("shadowd-drill-{}:check:{check}.service", self.label)
    }

    /// What puts a check into the place, and what it prints into [`Self::said`].
    pub fn check_properties(&self, check: &Name) -> Properties {
        let mut properties = self.inside();
        let said = self.place.directory.join("said").join(check.as_str());
        let said = said.to_string_lossy().into_owned();
        properties.push(("StandardOutputFileToTruncate", Variant::new(said)));
        properties.push(("StandardError", Variant::new("inherit")));
        properties
    }

    /// The last line that a check printed, at most 200 characters of it.
    pub async fn said(&self, check: &Name) -> String {
        let path = self.place.directory.join("said").join(check.as_str());
        let read = tokio::task::spawn_blocking(move || inside::last_line(&path)).await;
        read.unwrap_or_default()
    }

    fn holder(&self) -> String {
        format!("shadowd-drill-{}.service", self.label)
    }

    /// What every unit of the drill but the holder has.
    fn inside(&self) -> Properties {
        let own = |name: &str| {
            self.place
                .directory
                .join(name)
                .to_string_lossy()
                .into_owned()
        };
        // Recursive (MS_REC), as systemd's own default.
        let bind = |from: String, to: &str| (from, to.to_owned(), false, 16_384_u64);
        let mut binds = vec![
            bind(own("run"), "/run"),
            bind(own("log"), "/var/log"),
            bind(own("tmp"), "/tmp"),
            bind(own("vartmp"), "/var/tmp"),
            bind(own("shm"), "/dev/shm"),
        ];
        for (number, path) in self.place.scratch.iter().enumerate() {
            let from = own(&format!("scratch{number}"));
            binds.push(bind(from, &path.to_string_lossy()));
        }
        let journal = "/run/systemd/journal".to_owned();
        let notify = "/run/systemd/notify".to_owned();
        let told = vec![
            (journal.clone(), journal, true, 16_384_u64),
            (notify.clone(), notify, true, 16_384_u64),
        ];
        let holder = vec![self.holder()];
        vec![
            ("BindsTo", Variant::new(holder.clone())),
            ("After", Variant::new(holder.clone())),
            ("JoinsNamespaceOf", Variant::new(holder)),
            ("PrivateNetwork", Variant::new(true)),
            ("PrivateIPC", Variant::new(true)),
            ("ProtectSystem", Variant::new("strict")),
            ("ProtectHome", Variant::new("read-only")),
            ("PrivateDevices", Variant::new(true)),
            ("ProtectKernelTunables", Variant::new(true)),
            ("ProtectControlGroups", Variant::new(true)),
            ("NoNewPrivileges", Variant::new(true)),
            ("BindPaths", Variant::new(binds)),
            ("BindReadOnlyPaths", Variant::new(told)),
        ]
    }

    async fn start(
        &self,
        name: &str,
        properties: Properties,
        within: Duration,
    ) -> Result<(), DrillError> {
        let request = |source| DrillError::Request {
            unit: name.to_owned(),
            source,
        };
        let owned = properties.into_iter();
        let owned = owned.map(|(name, value)| Ok((name.to_owned(), value.try_into_owned()?)));
        let owned = owned.collect::<zbus::Result<Vec<_>>>().map_err(request)?;
        let manager = self.hooks.manager().await.map_err(request)?;
        manager
            .start_transient_unit(name.to_owned(), "fail".to_owned(), owned, Vec::new())
            .await
            .map_err(request)?;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.is_up(name).await? {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(DrillError::Late {
            unit: name.to_owned(),
            within,
        })
    }

    async fn is_up(&self, name: &str) -> Result<bool, DrillError> {
        let look = async {
            let path = self
                .hooks
                .manager()
                .await?
                .load_unit(name.to_owned())
                .await?;
            let connection = self.hooks.connected().await?;
            let unit = UnitProxy::builder(&connection)
                .path(path.clone())
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            // The job first: a unit whose start has not begun is inactive as well.
            let has_job = unit.job().await?.0 != 0;
            let state = unit.active_state().await?;
            if has_job || !matches!(state.as_str(), "inactive" | "failed") {
                return Ok(Ok(!has_job && state == "active"));
            }
            Ok(Err(copy::result(&connection, path)
                .await
                .unwrap_or_else(|_| "gone".to_owned())))
        };
        match look.await {
            Ok(Ok(up)) => Ok(up),
            Ok(Err(result)) => Err(DrillError::Failed {
                unit: name.to_owned(),
                result,
            }),
            Err(source) => Err(DrillError::Request {
                unit: name.to_owned(),
                source,
            }),
        }
    }
}

/// The name of the unit that a check of a live drill runs in.
pub fn live_check_unit(group: &Name, check: &Name) -> String {
    format!("shadowd-drill-{}:live:{check}.service", label(group))
}

/// Ends whatever there is of any drill; gives the names of what there was.
///
/// # Errors
/// [`DrillError`]: something may be left.
pub async fn clear(hooks: &Hooks) -> Result<Vec<String>, DrillError> {
    let request = |source| DrillError::Request {
        unit: PATTERN.to_owned(),
        source,
    };
    let manager = hooks.manager().await.map_err(request)?;
    let deadline = Instant::now() + GONE_WITHIN;
    let mut found: Vec<String> = Vec::new();
    loop {
        let patterns = vec![PATTERN.to_owned()];
        let units = manager.list_units_by_patterns(Vec::new(), patterns).await;
        let units = units.map_err(request)?;
        let mut left = None;
        for (name, _, _, state, ..) in units {
            // What has ended is forgotten once nobody refers to it.
            let _ = manager.unref_unit(name.clone()).await;
            if matches!(state.as_str(), "inactive" | "failed") {
                let _ = manager.reset_failed_unit(name.clone()).await;
                continue;
            }
            if !found.contains(&name) {
                // One that ends meanwhile needs no word.
                let _ = manager.stop_unit(name.clone(), "replace".to_owned()).await;
                found.push(name.clone());
            }
            left = Some(name);
        }
        match left {
            None => return Ok(found),
            Some(unit) if Instant::now() >= deadline => return Err(DrillError::Remains { unit }),
            Some(_) => sleep(LOOK).await,
        }
    }
}

fn text(place: &Place) -> String {
    // Strings, numbers and addresses: encoding them does not fail.
    serde_json::to_string(place).unwrap_or_default()
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A group's name as part of a unit's name and of a path.
fn label(group: &Name) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let letters = group.as_str().chars();
    letters
        .map(|letter| if plain(letter) { letter } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_letters_of_a_group_reach_no_path() {
        let label = |name: &str| label(&name.parse().expect("a name"));
        assert_eq!(label("web-1.a"), "web-1.a");
        assert_eq!(label("a:b%c"), "a_b_c");
    }
}
