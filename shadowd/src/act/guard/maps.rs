//! The maps of a guard: which address has which slot, and what the slots hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use aya::maps::{HashMap, Map, MapData, MapError, MapType};
use aya::{Ebpf, EbpfLoader};
use shadowd_common::Address;
use shadowd_common::guard::{MMAPABLE, Slot, VIPS_MAX};

use super::assign::changes;
use super::{GuardError, place};
use crate::act::sys::{SharedSlot, Slots};

/// Names of the maps in the object, and of their pins.
const VIPS: (&str, &str) = ("VIPS", "vips");
const SLOTS: (&str, &str) = ("SLOTS", "slots");

/// An entry is made, never overwritten (BPF_NOEXIST).
const NEW: u64 = 1;

/// Both maps of one interface.
#[derive(Debug)]
pub(super) struct Maps {
    addresses: HashMap<MapData, Address, u32>,
    slots: Slots,
}

impl Maps {
    /// Takes them out of the loaded object.
    pub fn take(kernel: &mut Ebpf, interface: &str) -> Result<Self, GuardError> {
        let mut take = |name| kernel.take_map(name).expect("the object has this map");
        let addresses =
            HashMap::try_from(take(VIPS.0)).map_err(|source| GuardError::Addresses {
                interface: interface.to_owned(),
                source,
            })?;
        let slots = match take(SLOTS.0) {
            // Mapped, it stays without its descriptor.
            Map::Array(data) => Slots::map(data.fd().as_fd()),
            _ => Err(io::Error::other("another kind of map")),
        };
        let slots = slots.map_err(|source| GuardError::Deadlines {
            interface: interface.to_owned(),
            source,
        })?;
        Ok(Self { addresses, slots })
    }

    /// What a slot holds.
    pub fn slot(&self, slot: u32) -> Option<&SharedSlot> {
        self.slots.all().get(slot as usize)
    }

    fn held(&self) -> Result<BTreeMap<Address, u32>, MapError> {
        self.addresses.iter().collect()
    }

    /// Holds exactly these from now on: new ones closed, in slots of their own. Gives the slots.
    pub fn hold(&mut self, wanted: &BTreeSet<Address>) -> Result<BTreeMap<Address, u32>, MapError> {
        let mut held = self.held()?;
        if changes(&held, wanted).is_none() {
            // Spoilt: begin anew, closed.
            for address in held.keys() {
                self.addresses.remove(address)?;
            }
            held.clear();
        }
        let changes = changes(&held, wanted).unwrap_or_default();
        for (address, slot) in changes.released {
            self.addresses.remove(&address)?;
            self.clear(slot);
        }
        for (address, slot) in changes.added {
            self.clear(slot);
            self.addresses.insert(address, slot, NEW)?;
        }
        self.held()
    }

    fn clear(&self, slot: u32) {
        if let Some(slot) = self.slot(slot) {
            slot.deadline_ns.store(0, Ordering::Release);
            slot.dropped_rx.store(0, Ordering::Relaxed);
            slot.dropped_tx.store(0, Ordering::Relaxed);
            slot.passed.store(0, Ordering::Relaxed);
            slot.successor_until_ns.store(0, Ordering::Release);
            slot.predecessor_until_ns.store(0, Ordering::Release);
        }
    }
}

/// The addresses that the pinned maps of a folder hold; none if they cannot be used.
pub(super) fn pinned(folder: &Path) -> Result<Vec<Address>, GuardError> {
    if !usable(folder)? {
        return Ok(Vec::new());
    }
    let path = folder.join(VIPS.1);
    let refused = |source| GuardError::Folder {
        path: path.clone(),
        source: io::Error::other(source),
    };
    let map = Map::HashMap(MapData::from_pin(&path).map_err(refused)?);
    let addresses = HashMap::<_, Address, u32>::try_from(map).map_err(refused)?;
    let found: Result<_, MapError> = addresses.keys().collect();
    found.map_err(refused)
}

/// Has the loader take the pinned maps, or make and pin them.
pub(super) fn pin(loader: &mut EbpfLoader<'_>, folder: &Path) {
    for (map, pin) in [VIPS, SLOTS] {
        loader.map_pin_path(map, folder.join(pin));
    }
}

/// Whether the pinned maps can be used; removes them when they are of another layout, or one is
/// missing.
pub(super) fn usable(folder: &Path) -> Result<bool, GuardError> {
    let has = |pin: &str, kind: MapType, flags: u32, key: usize, value: usize| {
        let path = folder.join(pin);
        match MapData::from_pin(&path).and_then(|map| map.info()) {
            Ok(info) => Ok(info.map_type().is_ok_and(|found| found == kind)
                && info.map_flags() & flags == flags
                && info.key_size() as usize == key
                && info.value_size() as usize == value
                && info.max_entries() == VIPS_MAX),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            Err(error) => Err(GuardError::Folder {
                path,
                source: io::Error::other(error),
            }),
        }
    };
    let index = size_of::<u32>();
    let fits = has(VIPS.1, MapType::Hash, 0, size_of::<Address>(), index)?
        && has(SLOTS.1, MapType::Array, MMAPABLE, index, size_of::<Slot>())?;
    if !fits {
        for (_, pin) in [VIPS, SLOTS] {
            place::unpin(&folder.join(pin))?;
        }
    }
    Ok(fits)
}
