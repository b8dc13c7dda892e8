//! The kernel's guards of the virtual IPs that leases protect: one for each interface.
//!
//! They are opened before capabilities are given up, and stay in the kernel when the daemon ends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tracing::{error, warn};

use crate::act::guard::{self, Guard, GuardError};
use crate::act::vip::{VipError, Vips};
use crate::config::settings::{GroupSettings, Settings};
use crate::facts::{BootTime, HostId, Mac, Protection, Vip, VipGuard};
use crate::observe::boot_time;

/// Where BPF objects are pinned (bpffs).
const BPFFS: &str = "/sys/fs/bpf";

/// All guards of this host, by interface.
#[derive(Clone)]
pub struct Guards(BTreeMap<String, Shared>);

type Shared = Arc<Mutex<Guard>>;

/// Removes the addresses that are guarded and will not be with these settings: whatever put them on
/// the interface, nobody would keep them silent. A daemon that was killed before the configuration
/// was changed leaves such.
///
/// # Errors
/// An address cannot be removed; then its guard has to stay.
pub async fn release_forgotten(settings: &Settings, id: HostId) -> anyhow::Result<()> {
    for (interface, mut addresses) in guard::guarded(&pins(id))? {
        for group in settings.groups.iter().filter(|group| is_guarded(group)) {
            let has = |address: &IpAddr| group.vips.iter().any(|vip| vip.address == *address);
            addresses.retain(|address| group.interface != interface || !has(address));
        }
        let vips = match Vips::open(&interface) {
            // What is gone has no address.
            Err(VipError::NoInterface { .. }) => continue,
            opened => opened?,
        };
        for address in vips.release_forgotten(&addresses).await? {
            warn!(%address, interface, "removed: a group had it that is not configured any more");
        }
    }
    Ok(())
}

impl Guards {
    /// Guards the addresses of every group with a lease; takes over what an earlier daemon left,
    /// and takes away what is not configured any more.
    ///
    /// # Errors
    /// The kernel cannot guard an interface, so a lease on it would be worth nothing.
    pub fn open(settings: &Settings, id: HostId) -> anyhow::Result<Self> {
        let pins = pins(id);
        let mut vips: BTreeMap<&str, Vec<Vip>> = BTreeMap::new();
        for group in settings.groups.iter().filter(|group| is_guarded(group)) {
            vips.entry(&group.interface)
                .or_default()
                .extend(&group.vips);
        }
        let mut guards = BTreeMap::new();
        for (interface, vips) in &vips {
            let guard = Guard::open(interface, &pins, vips).with_context(|| {
                format!(
                    "the kernel cannot guard the virtual IPs of interface {interface}, which \
                     protection = \"lease\" relies on; guard = false in the group does without"
                )
            })?;
            // What an earlier daemon served has ended with the addresses that it left.
            let _ = guard.end_connections(vips);
            guards.insert((*interface).to_owned(), Arc::new(Mutex::new(guard)));
        }
        let kept: Vec<&str> = vips.keys().copied().collect();
        if let Err(error) = sweep(&pins, &kept) {
            let why = format!("{:#}", anyhow::Error::from(error));
            warn!(
                why,
                "guards of addresses that are not configured any more may be left"
            );
        }
        Ok(Self(guards))
    }

    /// The guard of one group; none without a lease.
    pub fn of(&self, group: &GroupSettings) -> Option<GroupGuard> {
        let shared = self.0.get(&group.interface).filter(|_| is_guarded(group))?;
        Some(GroupGuard {
            shared: Arc::clone(shared),
            vips: group.vips.clone(),
            until: None,
            handed_on: false,
        })
    }
}

fn is_guarded(group: &GroupSettings) -> bool {
    group.protection == Protection::Lease && group.guard
}

/// This host's folder: hosts that share a kernel may share its BPF file system.
fn pins(id: HostId) -> PathBuf {
    Path::new(BPFFS).join("shadowd").join(id.to_string())
}

fn sweep(pins: &Path, kept: &[&str]) -> Result<(), GuardError> {
    if pins.exists() {
        guard::sweep(pins, kept)
    } else {
        Ok(())
    }
}

/// Takes all guards of this host away: afterwards the kernel keeps nothing silent.
///
/// # Errors
/// A pin cannot be removed.
pub fn remove(id: HostId) -> Result<(), GuardError> {
    sweep(&pins(id), &[])
}

/// What silences the addresses of one group.
pub struct GroupGuard {
    shared: Shared,
    vips: Vec<Vip>,
    until: Option<BootTime>,
    handed_on: bool,
}

impl GroupGuard {
    /// Lets the addresses answer until then. Costs nothing when nothing changed.
    pub fn let_answer(&mut self, until: BootTime) {
        if self.until == Some(until) {
            return;
        }
        let deadline = (until > BootTime::default()).then_some(until);
        if deadline.is_some() && self.handed_on {
            // Closed means closed the next time.
            self.end_connections();
        }
        if self.set(|guard, vips| guard.set_deadline(vips, deadline)) {
            self.until = Some(until);
        }
    }

    /// Answers for nothing new any more, and serves the connections that there are until then;
    /// whether that is so.
    pub fn hand_on(&mut self, successor: Mac, until: BootTime) -> bool {
        let now = boot_time();
        self.handed_on = self.set(|guard, vips| guard.hand_on(vips, successor, now, until));
        if self.handed_on {
            self.let_answer(BootTime::default());
        }
        self.handed_on
    }

    /// Whether this daemon has it answer for nothing.
    pub fn is_closed(&self) -> bool {
        self.until == Some(BootTime::default())
    }

    /// Until then, passes segments of unknown connections on to who had the addresses before, if
    /// anybody had.
    pub fn take_over(&self, predecessor: Option<(Mac, BootTime)>) {
        let now = boot_time();
        self.set(|guard, vips| guard.take_over(vips, predecessor, now));
    }

    /// Serves no connections any more while it answers for nothing.
    pub fn end_connections(&mut self) {
        self.handed_on = !self.set(Guard::end_connections);
    }

    fn set(&self, set: impl FnOnce(&Guard, &[Vip]) -> Result<(), GuardError>) -> bool {
        let guard = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let done = set(&guard, &self.vips);
        if let Err(error) = &done {
            // Each of them was opened with the guard: a bug, and the addresses stay silent.
            error!(%error, "the guard was not set");
        }
        done.is_ok()
    }

    /// The interface is back, perhaps as another one of the same name; whether it is guarded.
    pub fn reattach(&mut self) -> bool {
        let mut guard = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = guard.reattach() {
            let why = format!("{:#}", anyhow::Error::from(error));
            error!(why, "the virtual IPs are not guarded");
            return false;
        }
        true
    }

    /// What it let pass until when, and what it dropped.
    pub fn readings(&self) -> Vec<VipGuard> {
        let guard = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let readings = guard.readings().into_iter();
        readings
            .filter(|reading| self.vips.contains(&reading.vip))
            .map(|reading| VipGuard {
                vip: reading.vip,
                until: reading.deadline,
                dropped_rx: reading.dropped_rx,
                dropped_tx: reading.dropped_tx,
                passed: reading.passed,
            })
            .collect()
    }
}
