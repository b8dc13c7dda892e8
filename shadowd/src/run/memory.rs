//! What the daemon before this one left: in the store, and on the interfaces.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::act::vip::{VipError, Vips};
use crate::config::settings::{GroupSettings, Settings};
use crate::facts::{BootTime, KeptPause, Memory, Name, Vip};
use crate::observe::sys::boot_time;
use crate::store::Store;

/// The kernel's id of this boot.
///
/// # Errors
/// The kernel does not say.
pub fn boot_id() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Ok(text.context("cannot read the boot id")?.trim().to_owned())
}

/// Opens the store, takes what was kept in it, in the order of the groups and then of those that
/// this host is a witness of, and removes what an earlier daemon left on the interfaces.
///
/// # Errors
/// The store is not good or does not let go of what was kept; then all addresses are gone. Or one
/// of them cannot be removed.
pub async fn take_over(
    settings: &Settings,
    boot: &str,
) -> anyhow::Result<(Store, Vec<Memory>, Vec<(Name, Vip)>)> {
    match recall(settings, boot) {
        Ok((store, mut memory)) => {
            let released = release_left_over(settings, &mut memory).await?;
            Ok((store, memory, released))
        }
        Err(error) => {
            release_left_over(settings, &mut []).await?;
            Err(error)
        }
    }
}

fn recall(settings: &Settings, boot: &str) -> anyhow::Result<(Store, Vec<Memory>)> {
    let mut store = Store::open(&settings.host.state_dir)?;
    let memory = store.take_memory(boot, boot_time())?;
    let mut memory: BTreeMap<Name, Memory> = memory.into_iter().collect();
    let groups = settings.groups.iter().chain(&settings.witnessed);
    let of = |group: &GroupSettings| memory.remove(&group.name).unwrap_or_default();
    let known = groups.map(of).collect();
    // A group that is not configured any more is not gone on with.
    Ok((store, known))
}

/// Whoever starts does not know who owns a group: what an earlier daemon left on the interfaces is
/// removed before anything that takes time or may fail, so that it cannot answer beside the owner.
/// What it paused with stays for as long as nobody else can own it.
async fn release_left_over(
    settings: &Settings,
    memory: &mut [Memory],
) -> Result<Vec<(Name, Vip)>, VipError> {
    let mut released = Vec::new();
    for (number, group) in settings.groups.iter().enumerate() {
        let paused = memory
            .get_mut(number)
            .map(|memory| &mut memory.kept.pause)
            .filter(|pause| pause.is_some());
        if let Some(pause) = paused {
            if pause
                .as_ref()
                .is_some_and(|one| goes_on(group, one, boot_time()))
            {
                continue;
            }
            // Other addresses, or another interface, are configured now.
            if let Some(old) = pause.take()
                && let Ok(vips) = Vips::open(&old.interface)
            {
                release(&vips, &group.name, &old.vips, &mut released).await?;
            }
        }
        // Without the interface there is no address; `check` refuses it in a moment.
        let Ok(vips) = Vips::open(&group.interface) else {
            continue;
        };
        release(&vips, &group.name, &group.vips, &mut released).await?;
    }
    Ok(released)
}

fn goes_on(group: &GroupSettings, pause: &KeptPause, now: BootTime) -> bool {
    now < pause.deadline && pause.interface == group.interface && pause.vips == group.vips
}

async fn release(
    vips: &Vips,
    group: &Name,
    addresses: &[Vip],
    released: &mut Vec<(Name, Vip)>,
) -> Result<(), VipError> {
    for vip in vips.release_all(addresses).await? {
        released.push((group.clone(), vip));
    }
    Ok(())
}
