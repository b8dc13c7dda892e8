//! A kernel object at work: its maps, programs and links, made by this process or kept from the
//! one before it.
//!
//! Whoever holds the descriptors keeps the programs running and the counts alive. They can be
//! handed on ([`Object::descriptors`]), so that a restarted daemon goes on where the old one was
//! and nothing that happened in between is lost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, MapType};

use super::LoadError;

/// Descriptors that a daemon left for its successor, by name.
pub type Descriptors = BTreeMap<String, OwnedFd>;

/// The kinds of descriptor; part of their names.
const MAP: &str = "map";
const PROGRAM: &str = "program";
const LINK: &str = "link";

/// A kernel object at work.
pub struct Object {
    /// Every name starts with this: which object, and of which build and settings.
    prefix: String,
    /// Those that nobody has taken yet.
    maps: BTreeMap<String, Map>,
    descriptors: Descriptors,
    /// What loads programs; none in an object that was kept, or once all is attached.
    loader: Option<Ebpf>,
    /// Why its tables are smaller than they should be.
    pub(super) reduced: Option<String>,
    kept: bool,
}

impl Object {
    /// What was just loaded.
    ///
    /// # Errors
    ///
    /// The process has no descriptors left.
    pub(super) fn fresh(prefix: String, mut loader: Ebpf) -> Result<Self, LoadError> {
        // Sections of settings (.rodata) are for the programs, which hold them.
        let names: Vec<String> = loader
            .maps()
            .map(|(name, _)| name.to_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        let mut object = Self {
            prefix,
            maps: BTreeMap::new(),
            descriptors: Descriptors::new(),
            loader: None,
            reduced: None,
            kept: false,
        };
        for name in names {
            let Some(map) = loader.take_map(&name) else {
                continue;
            };
            if let Some(data) = data(&map) {
                let kept = data.fd().as_fd().try_clone_to_owned();
                object.keep(MAP, &name, kept.map_err(LoadError::Descriptors)?);
            }
            object.maps.insert(name, map);
        }
        object.loader = Some(loader);
        Ok(object)
    }

    /// What a daemon of the same build and settings left; none if it left nothing.
    ///
    /// # Errors
    ///
    /// A map is not what its name says.
    pub(super) fn kept(prefix: String, left: &mut Descriptors) -> Result<Option<Self>, LoadError> {
        let begin = format!("{prefix}-");
        let names: Vec<String> = left
            .keys()
            .filter(|name| name.starts_with(&begin))
            .cloned()
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        let mut object = Self {
            prefix,
            maps: BTreeMap::new(),
            descriptors: Descriptors::new(),
            loader: None,
            reduced: None,
            kept: true,
        };
        for name in names {
            let Some(descriptor) = left.remove(&name) else {
                continue;
            };
            if let Some(map) = name.strip_prefix(&format!("{begin}{MAP}-")) {
                let copy = descriptor.try_clone().map_err(LoadError::Descriptors)?;
                object.maps.insert(map.to_owned(), open(copy)?);
            }
            object.descriptors.insert(name, descriptor);
        }
        Ok(Some(object))
    }

    /// Whether a daemon before this one loaded it.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Takes a map out; none if the object has no such map or it was taken.
    pub fn take_map(&mut self, name: &str) -> Option<Map> {
        self.maps.remove(name)
    }

    /// A program that was loaded, for what attaches or runs it.
    pub fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.descriptor(PROGRAM, name)
    }

    /// Where a program goes that is called after those of this object.
    pub(super) fn after(&self) -> Option<OwnedFd> {
        self.descriptor(MAP, "AFTER")?.try_clone_to_owned().ok()
    }

    /// Whether a program is attached.
    pub fn is_attached(&self, program: &str) -> bool {
        self.descriptor(LINK, program).is_some()
    }

    /// Everything that a successor needs, by name.
    pub fn descriptors(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.descriptors
            .iter()
            .map(|(name, descriptor)| (name.as_str(), descriptor.as_fd()))
    }

    /// Forgets how programs are loaded: what runs is held by its descriptors.
    pub fn settle(&mut self) {
        self.loader = None;
    }

    pub(super) fn loader(&mut self) -> Option<&mut Ebpf> {
        self.loader.as_mut()
    }

    pub(super) fn keep_program(&mut self, name: &str, descriptor: OwnedFd) {
        self.keep(PROGRAM, name, descriptor);
    }

    /// Keeps what holds a program attached.
    pub fn keep_link(&mut self, name: &str, descriptor: OwnedFd) {
        self.keep(LINK, name, descriptor);
    }

    /// Lets a program go, attached or not.
    pub(super) fn drop_program(&mut self, name: &str) {
        for kind in [LINK, PROGRAM] {
            self.descriptors.remove(&self.full(kind, name));
        }
    }

    fn descriptor(&self, kind: &str, name: &str) -> Option<BorrowedFd<'_>> {
        self.descriptors
            .get(&self.full(kind, name))
            .map(AsFd::as_fd)
    }

    fn keep(&mut self, kind: &str, name: &str, descriptor: OwnedFd) {
        self.descriptors.insert(self.full(kind, name), descriptor);
    }

    fn full(&self, kind: &str, name: &str) -> String {
        format!("{}-{kind}-{name}", self.prefix)
    }
}

/// The map behind aya's type; none for kinds that the kernel side does not use.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::Queue(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Stack(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}

/// A map from its descriptor.
fn open(descriptor: OwnedFd) -> Result<Map, MapError> {
    let data = MapData::from_fd(descriptor)?;
    Ok(match data.info()?.map_type()? {
        MapType::Array => Map::Array(data),
        MapType::PerCpuArray => Map::PerCpuArray(data),
        MapType::ProgramArray => Map::ProgramArray(data),
        MapType::Hash => Map::HashMap(data),
        MapType::LruHash => Map::LruHashMap(data),
        MapType::PerCpuHash => Map::PerCpuHashMap(data),
        MapType::LruPerCpuHash => Map::PerCpuLruHashMap(data),
        MapType::Queue => Map::Queue(data),
        MapType::RingBuf => Map::RingBuf(data),
        MapType::SkStorage => Map::SkStorage(data),
        MapType::Stack => Map::Stack(data),
        _ => Map::Unsupported(data),
    })
}

/// The beginning of an object's names: its own, and what tells its build and settings from others.
pub(super) fn prefix(name: &str, parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    format!("{name}-{}", &hasher.finalize().to_hex()[..16])
}
