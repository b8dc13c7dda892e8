//! Kernel tables of sums that only grow: remembers the last reading and hands out what came since.
//!
//! The kernel side never starts an entry again, so nothing is lost between a reading and the next.
//! An entry goes when it was idle for long; what it counted in that moment is still handed out.
//! The last reading is kept in a table of the same object too, for the daemon that takes both over.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{HashMap as KernelMap, Map, MapData, MapError};

use super::sys;

/// Readings without a change after which an entry goes.
const IDLE_MAX: u32 = 60;
/// The same when the table is nearly full.
const IDLE_CROWDED: u32 = 2;
/// Share of the table, in percent, above which it is nearly full.
const CROWDED: usize = 75;

/// Sums that only grow.
pub trait Sums: Pod + Default + PartialEq {
    /// What came since an earlier reading of the same entry.
    fn since(&self, before: &Self) -> Self;
}

struct Reading<V> {
    value: V,
    idle: u32,
    /// The reading that saw it last.
    seen: u64,
}

/// One table and what was read of it.
pub struct Readings<K, V> {
    map: Map,
    /// The last reading, for a successor.
    told: KernelMap<MapData, K, V>,
    size: usize,
    last: HashMap<K, Reading<V>>,
    count: u64,
}

impl<K: Pod + Default + Eq + Hash, V: Sums> Readings<K, V> {
    /// Of a table with room for `size` entries; `told` is where the last reading is kept, by the
    /// daemon before this one too.
    ///
    /// # Errors
    ///
    /// The kernel's, or `told` is of another type.
    pub fn new(map: Map, told: Map, size: u32) -> Result<Self, MapError> {
        let told = KernelMap::<_, K, V>::try_from(told)?;
        let mut last = HashMap::new();
        for entry in told.iter() {
            let (key, value) = entry?;
            let (idle, seen) = (0, 0);
            last.insert(key, Reading { value, idle, seen });
        }
        Ok(Self {
            map,
            told,
            size: size as usize,
            last,
            count: 0,
        })
    }

    /// Hands out what came since the last time, entry by entry.
    ///
    /// # Errors
    ///
    /// The kernel's. What was not read is handed out the next time.
    pub fn read(&mut self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let Map::HashMap(map) = &self.map else {
            return Ok(()); // the build of the object fixes its type
        };
        let map = map.fd().as_fd();
        self.count += 1;
        let (last, told, count) = (&mut self.last, &mut self.told, self.count);
        sys::look(map, |key: &K, value: &V| {
            let known = last.entry(*key).or_insert(Reading {
                value: V::default(),
                idle: 0,
                seen: count,
            });
            known.seen = count;
            if *value == known.value {
                known.idle += 1;
                return;
            }
            each(key, &value.since(&known.value));
            known.value = *value;
            known.idle = 0;
            // Refused, it would be told again by a successor, and by nobody else.
            let _ = told.insert(key, value, 0);
        })?;
        let crowded = last.len() * 100 >= self.size * CROWDED;
        let patience = if crowded { IDLE_CROWDED } else { IDLE_MAX };
        last.retain(|key, known| {
            if known.seen != count {
                let _ = told.remove(key);
                return false; // somebody else removed it
            }
            if known.idle < patience {
                return true;
            }
            match sys::take::<K, V>(map, key) {
                Ok(Some(value)) if value != known.value => each(key, &value.since(&known.value)),
                Ok(_) => {}
                Err(_) => return true, // the next reading tries again
            }
            let _ = told.remove(key);
            false
        });
        Ok(())
    }
}
