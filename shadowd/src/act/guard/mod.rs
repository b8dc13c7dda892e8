//! The kernel guard: keeps this host silent about a virtual IP whose deadline has passed.
//!
//! Two programs on the interface drop what is asked of a guarded address on the way in (IPv4, IPv6,
//! ARP, neighbour solicitations) and what is said in its name on the way out, from the moment the
//! deadline in their map has passed, or while it is 0. They stay attached when the daemon dies:
//! one that hangs, is stopped or was killed cannot answer beside its successor, because nobody
//! moves the deadline on. A daemon that is started again takes over deadlines and counts, and puts
//! its own programs in the place of the old ones, in one step of the kernel.
//!
//! ```text
//! PINS/INTERFACE/vips                    slot of each address        changes with the configuration
//!                slots                   deadlines and counts        mapped: a deadline is a store
//!                ingress-NETNS-INDEX     the link that holds the     only with TCX (Linux 6.6); a
//!                egress-NETNS-INDEX      program attached            filter of clsact holds itself
//! ```
//!
//! - **Maps of another layout** are replaced by empty ones: all addresses begin closed, as they
//!   do for a daemon that has just begun and owns nothing yet.
//! - **Privileges**: opening takes CAP_BPF and CAP_NET_ADMIN, and a folder that root may write to;
//!   [`Guard::watch`] takes CAP_BPF before Linux 5.19 while `kernel.unprivileged_bpf_disabled` is
//!   set; [`Guard::reattach`] and [`Guard::remove`] take CAP_NET_ADMIN. [`Guard::set_deadline`] and
//!   [`Guard::readings`] are memory accesses: no privilege on any kernel.
//! - **Out of scope**: interfaces that are not Ethernet (refused); other interfaces of the host,
//!   on which Linux answers for the address as well (`arp_ignore`); a host's own processes, which
//!   reach its addresses over the loopback interface; neighbour discovery behind IPv6 extension
//!   headers, unless its IP addresses are guarded themselves; more than one VLAN tag in a frame;
//!   a daemon in a time namespace, whose CLOCK_BOOTTIME is not the kernel's own.
//! - An empty clsact stays on the interface after [`Guard::remove`]: others may use it.
//!
//! This module never decides a deadline and never reads the clock.

mod assign;
mod attach;
mod error;
mod maps;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use shadowd_common::Address;
use shadowd_common::guard::VIPS_MAX;

pub use attach::{AttachError, Attachment, Direction};
pub use error::GuardError;

use super::sys::SharedSlot;
use crate::facts::{BootTime, Mac, Vip};
use assign::{address, key};
use maps::Maps;
use place::Identity;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard.bpf.o"));

/// What the kernel side holds of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The address.
    pub vip: Vip,
    /// From when on nothing passes; none while the address is closed.
    pub deadline: Option<BootTime>,
    /// Packets for it that were dropped on arrival, over all daemons since it is guarded.
    pub dropped_rx: u64,
    /// Packets in its name that were dropped instead of sent.
    pub dropped_tx: u64,
    /// Packets for it that were passed on to the host that serves them.
    pub passed: u64,
}

/// The guard of one interface. Dropped, the kernel goes on guarding: see [`Guard::remove`].
#[derive(Debug)]
pub struct Guard {
    interface: String,
    folder: PathBuf,
    attachment: Attachment,
    kept: bool,
    /// Holds the loaded programs, for an interface that is made again.
    kernel: Ebpf,
    maps: Maps,
    watched: BTreeMap<IpAddr, (Vip, u32)>,
}

impl Guard {
    /// Guards `vips` on an interface of the calling thread's network namespace, under `pins`, a
    /// folder of this host in a BPF file system; takes over what an earlier daemon left there.
    ///
    /// An address that was not guarded before is closed; one that was keeps deadline and counts,
    /// and one that is no longer among `vips` is released.
    ///
    /// # Errors
    /// Any but [`GuardError::NotWatched`]. Where nothing guarded before nothing is left behind,
    /// else the old guard stays.
    pub fn open(interface: &str, pins: &Path, vips: &[Vip]) -> Result<Self, GuardError> {
        match Self::open_as(interface, pins, vips, Attachment::Tcx) {
            Err(GuardError::Attach { source, .. }) if attach::is_unknown(&source) => {
                Self::open_as(interface, pins, vips, Attachment::Clsact)
            }
            opened => opened,
        }
    }

    /// The same, attached as it is said.
    ///
    /// # Errors
    /// As [`Guard::open`].
    pub fn open_as(
        interface: &str,
        pins: &Path,
        vips: &[Vip],
        attachment: Attachment,
    ) -> Result<Self, GuardError> {
        let identity = Identity::of(interface)?;
        place::require_ethernet(interface)?;
        let folder = place::folder(pins, interface);
        let is_first = !folder.exists();
        place::make(&folder)?;
        let opened = Self::load(interface, &folder, attachment).and_then(|mut guard| {
            guard.watch(vips)?;
            guard.attach(&identity)?;
            Ok(guard)
        });
        if opened.is_err() && is_first {
            // The first error is the one to tell.
            let _ = take_away(interface, &folder);
        }
        opened
    }

    /// Makes or takes over the maps, and loads the programs.
    fn load(interface: &str, folder: &Path, attachment: Attachment) -> Result<Self, GuardError> {
        let kept = maps::usable(folder)?;
        let refused = |source| GuardError::Load {
            interface: interface.to_owned(),
            source: Box::new(source),
        };
        let mut loader = EbpfLoader::new();
        // The programs look at no kernel structure.
        loader.btf(None);
        maps::pin(&mut loader, folder);
        let mut kernel = loader.load(OBJECT).map_err(refused)?;
        for direction in Direction::BOTH {
            let loaded = program(&mut kernel, direction).load();
            loaded.map_err(|source| GuardError::Program {
                interface: interface.to_owned(),
                source: Box::new(source),
            })?;
        }
        let maps = Maps::take(&mut kernel, interface)?;
        Ok(Self {
            interface: interface.to_owned(),
            folder: folder.to_owned(),
            attachment,
            kept,
            kernel,
            maps,
            watched: BTreeMap::new(),
        })
    }

    /// Guards exactly these from now on: new ones are closed, others are released.
    ///
    /// # Errors
    /// [`GuardError::TooMany`], [`GuardError::Addresses`].
    pub fn watch(&mut self, vips: &[Vip]) -> Result<(), GuardError> {
        let wanted: BTreeSet<Address> = vips.iter().map(|vip| key(vip.address)).collect();
        if wanted.len() > VIPS_MAX as usize {
            return Err(GuardError::TooMany(self.interface.clone()));
        }
        let held = self.maps.hold(&wanted);
        let held = held.map_err(|source| GuardError::Addresses {
            interface: self.interface.clone(),
            source,
        })?;
        let slot = |vip: &Vip| held.get(&key(vip.address)).copied();
        self.watched = vips
            .iter()
            .filter_map(|vip| Some((vip.address, (*vip, slot(vip)?))))
            .collect();
        Ok(())
    }

    /// Attaches the programs again: to the interface that has the name now, if it was made again,
    /// and where somebody took them off. Nothing is dropped and nothing passes because of it.
    ///
    /// # Errors
    /// [`GuardError::NoInterface`], [`GuardError::NotEthernet`], [`GuardError::Attach`].
    pub fn reattach(&mut self) -> Result<(), GuardError> {
        let identity = Identity::of(&self.interface)?;
        place::require_ethernet(&self.interface)?;
        self.attach(&identity)
    }

    /// Attaches in both directions, then takes away what else an earlier daemon attached.
    fn attach(&mut self, identity: &Identity) -> Result<(), GuardError> {
        for direction in Direction::BOTH {
            let pin = self.folder.join(identity.link(direction));
            let program = program(&mut self.kernel, direction);
            attach::attach(program, &self.interface, direction, self.attachment, &pin)
                .map_err(|source| refused(&self.interface, direction, source))?;
        }
        for direction in Direction::BOTH {
            let used = match self.attachment {
                Attachment::Tcx => {
                    attach::detach_filter(&self.interface, direction)
                        .map_err(|source| refused(&self.interface, direction, source))?;
                    Some(identity)
                }
                Attachment::Clsact => None,
            };
            attach::remove_other_links(&self.folder, used, direction)?;
        }
        Ok(())
    }

    /// Lets packets of these pass until `deadline`; `None` closes them at once. One store each: no
    /// system call, no allocation, no privilege.
    ///
    /// # Errors
    /// [`GuardError::NotWatched`], after all others were set.
    pub fn set_deadline(&self, vips: &[Vip], deadline: Option<BootTime>) -> Result<(), GuardError> {
        let nanos = deadline.map_or(0, BootTime::as_nanos);
        self.each(vips, |slot| {
            slot.deadline_ns.store(nanos, Ordering::Release)
        })
    }

    /// While these are closed, `until` then: serves the connections that have begun here, and
    /// passes what is new on to `successor`. [`Guard::set_deadline`] closes them after this.
    ///
    /// # Errors
    /// [`GuardError::NotWatched`], after all others were set.
    pub fn hand_on(
        &self,
        vips: &[Vip],
        successor: Mac,
        now: BootTime,
        until: BootTime,
    ) -> Result<(), GuardError> {
        self.each(vips, |slot| {
            slot.successor.store(word(successor), Ordering::Relaxed);
            let (now, until) = (now.as_nanos(), until.as_nanos());
            slot.successor_since_ns.store(now, Ordering::Relaxed);
            slot.successor_until_ns.store(until, Ordering::Release);
        })
    }

    /// `until` then, passes segments of connections that this host does not know on to
    /// `predecessor`, who had these addresses before; none: nobody had. To be said before
    /// [`Guard::set_deadline`] opens them.
    ///
    /// # Errors
    /// [`GuardError::NotWatched`], after all others were set.
    pub fn take_over(
        &self,
        vips: &[Vip],
        predecessor: Option<(Mac, BootTime)>,
        now: BootTime,
    ) -> Result<(), GuardError> {
        self.each(vips, |slot| {
            let (mac, until) = predecessor.unwrap_or_default();
            slot.predecessor.store(word(mac), Ordering::Relaxed);
            let (now, until) = (now.as_nanos(), until.as_nanos());
            slot.predecessor_since_ns.store(now, Ordering::Relaxed);
            slot.predecessor_until_ns.store(until, Ordering::Release);
        })
    }

    /// Ends what [`Guard::hand_on`] began: closed means closed.
    ///
    /// # Errors
    /// [`GuardError::NotWatched`], after all others were set.
    pub fn end_connections(&self, vips: &[Vip]) -> Result<(), GuardError> {
        self.each(vips, |slot| {
            slot.successor_until_ns.store(0, Ordering::Release)
        })
    }

    fn each(&self, vips: &[Vip], mut set: impl FnMut(&SharedSlot)) -> Result<(), GuardError> {
        let mut unknown = None;
        for vip in vips {
            match self.slot(vip) {
                Some(slot) => set(slot),
                None => unknown = unknown.or(Some(*vip)),
            }
        }
        match unknown {
            None => Ok(()),
            Some(vip) => Err(GuardError::NotWatched {
                interface: self.interface.clone(),
                vip,
            }),
        }
    }

    fn slot(&self, vip: &Vip) -> Option<&SharedSlot> {
        let (_, slot) = self.watched.get(&vip.address)?;
        self.maps.slot(*slot)
    }

    /// What the kernel side holds, in the order of the addresses.
    pub fn readings(&self) -> Vec<Reading> {
        let read = |(vip, slot): &(Vip, u32)| {
            let slot = self.maps.slot(*slot)?;
            let deadline = slot.deadline_ns.load(Ordering::Acquire);
            Some(Reading {
                vip: *vip,
                deadline: (deadline != 0).then(|| BootTime::from_nanos(deadline)),
                dropped_rx: slot.dropped_rx.load(Ordering::Relaxed),
                dropped_tx: slot.dropped_tx.load(Ordering::Relaxed),
                passed: slot.passed.load(Ordering::Relaxed),
            })
        };
        self.watched.values().filter_map(read).collect()
    }

    /// Whether deadlines and counts are those of an earlier daemon.
    pub const fn is_kept(&self) -> bool {
        self.kept
    }

    /// How the programs are attached.
    pub const fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Stops guarding: detaches everything and removes the pins. A TCX link goes a moment after its
    /// pin; the kernel does that by itself.
    ///
    /// # Errors
    /// [`GuardError::Attach`], [`GuardError::Folder`]; then something still guards.
    pub fn remove(self) -> Result<(), GuardError> {
        take_away(&self.interface, &self.folder)
    }
}

/// The interfaces that are guarded under `pins`, with the addresses.
///
/// # Errors
/// [`GuardError::Folder`].
pub fn guarded(pins: &Path) -> Result<Vec<(String, Vec<IpAddr>)>, GuardError> {
    let mut found = Vec::new();
    for name in place::names(pins)? {
        let addresses = maps::pinned(&pins.join(&name))?;
        let addresses = addresses.into_iter().map(address).collect();
        found.push((place::interface(&name), addresses));
    }
    Ok(found)
}

/// Stops guarding every interface under `pins` but those in `kept`: what an earlier configuration
/// had. Without any kept this is the clean-up of an uninstallation.
///
/// # Errors
/// As [`Guard::remove`].
pub fn sweep(pins: &Path, kept: &[&str]) -> Result<(), GuardError> {
    for name in place::names(pins)? {
        let interface = place::interface(&name);
        if !kept.contains(&interface.as_str()) {
            take_away(&interface, &pins.join(&name))?;
        }
    }
    Ok(())
}

fn take_away(interface: &str, folder: &Path) -> Result<(), GuardError> {
    for direction in Direction::BOTH {
        attach::detach_filter(interface, direction)
            .map_err(|source| refused(interface, direction, source))?;
    }
    place::remove(folder)
}

/// An Ethernet address as the kernel side compares it: its first byte lowest.
fn word(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn program(kernel: &mut Ebpf, direction: Direction) -> &mut SchedClassifier {
    kernel
        .program_mut(direction.program())
        .and_then(|program| program.try_into().ok())
        .expect("the object is built with both classifiers")
}

fn refused(interface: &str, direction: Direction, source: AttachError) -> GuardError {
    GuardError::Attach {
        interface: interface.to_owned(),
        direction,
        source: Box::new(source),
    }
}
