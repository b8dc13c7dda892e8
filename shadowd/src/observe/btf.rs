//! Reads the kernel's BTF: where a field lies in a structure, how many arguments a tracepoint has.
//!
//! Only what `layout` asks for: structures, unions, typedefs and function prototypes. The bytes
//! come from the kernel but are treated as hostile: every read is checked, every walk bounded.
//! Written here because the crates that do it are LGPL (btf-rs) or keep it private (aya-obj).
//!
//! Format: Documentation/bpf/btf.rst of Linux.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use thiserror::Error;

/// Where the running kernel shows its own.
pub const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// Anonymous structures nest no deeper than this.
const NESTING_MAX: usize = 8;
/// Members looked at for one field, those of anonymous structures included; task_struct has some
/// 300. Anonymous structures that hold each other could be walked for years.
const LOOKS_MAX: u32 = 20_000;

const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;

/// Why a BTF blob cannot be read.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read: the kernel was built without CONFIG_DEBUG_INFO_BTF, or /sys is hidden.
    #[error("{KERNEL} cannot be read")]
    Read(#[source] io::Error),
    /// The bytes are not BTF.
    #[error("malformed BTF at byte {0}")]
    Malformed(usize),
}

/// Why a field or prototype was not found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LookupError {
    /// No structure of that name.
    #[error("the kernel has no struct {0}")]
    NoType(String),
    /// The structure has no such field.
    #[error("the kernel's struct {0} has no field {1}")]
    NoField(String, String),
    /// The field is a bit field or not at a byte boundary.
    #[error("the kernel's {0} is a bit field")]
    BitField(String),
}

/// A parsed BTF blob.
pub struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Offset of each type's record; index 0 is void.
    types: Vec<usize>,
    /// Structures, unions, enumerations and typedefs by name.
    named: HashMap<String, Vec<u32>>,
}

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    ///
    /// When the kernel shows none, or shows something else.
    pub fn of_kernel() -> Result<Self, BtfError> {
        let bytes = fs::read(Path::new(KERNEL)).map_err(BtfError::Read)?;
        Self::parse(bytes)
    }

    /// Reads a blob in this host's byte order.
    ///
    /// # Errors
    ///
    /// When a length or offset points outside of the blob.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        if bytes.len() < 24 || bytes[..2] != 0xeb9f_u16.to_ne_bytes() {
            return Err(BtfError::Malformed(0));
        }
        let mut btf = Self {
            bytes,
            strings: 0,
            types: vec![0],
            named: HashMap::new(),
        };
        let header = btf.word(4)? as usize;
        let start = header + btf.word(8)? as usize;
        let end = start + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        let mut at = start;
        while at < end {
            let (name, info) = (btf.word(at)?, btf.word(at + 4)?);
            let size = 12 + Self::extra(info).ok_or(BtfError::Malformed(at))?;
            let id = btf.types.len() as u32;
            btf.types.push(at);
            let named = matches!(
                kind(info),
                KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_TYPEDEF
            );
            if name != 0 && named {
                let name = btf.string(name).to_owned();
                btf.named.entry(name).or_default().push(id);
            }
            at += size;
        }
        Ok(btf)
    }

    /// Offset in bytes of a field, reached through embedded structures: `["ns", "inum"]`.
    ///
    /// Anonymous structures and unions are looked through.
    ///
    /// # Errors
    ///
    /// When the structure or one of the fields is not there, or is no whole byte.
    pub fn offset(&self, structure: &str, path: &[&str]) -> Result<u32, LookupError> {
        let missing = || LookupError::NoType(structure.to_owned());
        let mut current = *self
            .named
            .get(structure)
            .and_then(|ids| ids.iter().find(|id| self.is_composite(**id)))
            .ok_or_else(missing)?;
        let mut bits = 0_u32;
        for field in path {
            let (offset, next) = self
                .field(current, field, NESTING_MAX, &mut { LOOKS_MAX })
                .ok_or_else(|| LookupError::NoField(structure.to_owned(), (*field).to_owned()))?;
            bits = bits.saturating_add(offset);
            current = self.strip(next);
        }
        if !bits.is_multiple_of(8) {
            return Err(LookupError::BitField(format!(
                "{structure}.{}",
                path.join(".")
            )));
        }
        Ok(bits / 8)
    }

    /// Whether a field of a structure is a pointer.
    pub fn is_pointer(&self, structure: &str, path: &[&str]) -> bool {
        let mut current = self
            .named
            .get(structure)
            .and_then(|ids| ids.iter().copied().find(|id| self.is_composite(*id)));
        for field in path {
            current = current
                .and_then(|id| self.field(id, field, NESTING_MAX, &mut { LOOKS_MAX }))
                .map(|(_, next)| self.strip(next));
        }
        current
            .and_then(|id| self.info(id))
            .is_some_and(|info| kind(info) == KIND_PTR)
    }

    /// How many arguments a tracepoint hands to its probes; `None` if the kernel has no such one.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        // typedef void (*btf_trace_NAME)(void *data, ...), include/trace/bpf_probe.h
        let id = *self
            .named
            .get(&format!("btf_trace_{tracepoint}"))?
            .first()?;
        let pointer = self.target(id)?;
        let prototype = self.target(pointer)?;
        let info = self.info(prototype)?;
        (kind(info) == KIND_FUNC_PROTO)
            .then_some((info & 0xffff) as usize)?
            .checked_sub(1)
    }

    /// The value of a name of an enumeration; `None` if the kernel has no such one.
    pub fn constant(&self, enumeration: &str, name: &str) -> Option<u32> {
        let is_enum = |id: &&u32| self.info(**id).is_some_and(|info| kind(info) == KIND_ENUM);
        let id = *self.named.get(enumeration)?.iter().find(is_enum)?;
        let record = *self.types.get(id as usize)?;
        let count = (self.info(id)? & 0xffff) as usize;
        let mut entries = (0..count).map(|index| record + 12 + index * 8);
        let at = entries.find(|at| {
            let entry = self.word(*at);
            entry.is_ok_and(|entry| self.string(entry) == name)
        })?;
        self.word(at + 4).ok()
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        let four = self
            .bytes
            .get(at..at.saturating_add(4))
            .ok_or(BtfError::Malformed(at))?;
        Ok(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
    }

    fn string(&self, offset: u32) -> &str {
        let tail = self
            .bytes
            .get(self.strings + offset as usize..)
            .unwrap_or_default();
        let end = tail.iter().position(|byte| *byte == 0).unwrap_or(0);
        std::str::from_utf8(&tail[..end]).unwrap_or_default()
    }

    /// Bytes that follow the 12 of every record.
    fn extra(info: u32) -> Option<usize> {
        let count = (info & 0xffff) as usize;
        Some(match kind(info) {
            1 | 14 | 17 => 4,                 // INT, VAR, DECL_TAG
            KIND_PTR | 7..=12 | 16 | 18 => 0, // FWD .. FUNC, FLOAT, TYPE_TAG
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => count * 12, // DATASEC, ENUM64
            KIND_ENUM | KIND_FUNC_PROTO => count * 8,
            _ => return None,
        })
    }

    fn info(&self, id: u32) -> Option<u32> {
        if id == 0 {
            return None;
        }
        self.word(self.types.get(id as usize)? + 4).ok()
    }

    fn target(&self, id: u32) -> Option<u32> {
        self.word(self.types.get(id as usize)? + 8).ok()
    }

    fn is_composite(&self, id: u32) -> bool {
        self.info(id)
            .is_some_and(|info| matches!(kind(info), KIND_STRUCT | KIND_UNION))
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> u32 {
        for _ in 0..NESTING_MAX {
            match self.info(id).map(kind) {
                // TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
                Some(8..=11 | 18) => id = self.target(id).unwrap_or(0),
                _ => break,
            }
        }
        id
    }

    /// Offset in bits and type of a field.
    fn field(&self, id: u32, name: &str, depth: usize, looks: &mut u32) -> Option<(u32, u32)> {
        let record = *self.types.get(id as usize)?;
        let info = self.info(id).filter(|_| self.is_composite(id))?;
        for index in 0..(info & 0xffff) as usize {
            *looks = looks.checked_sub(1)?;
            let at = record + 12 + index * 12;
            let member = self.string(self.word(at).ok()?);
            let target = self.word(at + 4).ok()?;
            let raw = self.word(at + 8).ok()?;
            // With the kind flag the upper byte is the width of a bit field.
            let bits = if info >> 31 != 0 {
                raw & 0xff_ffff
            } else {
                raw
            };
            if member == name {
                return Some((bits, target));
            }
            if member.is_empty() && depth > 0 {
                let inner = self.strip(target);
                if let Some((more, found)) = self.field(inner, name, depth - 1, looks) {
                    return Some((bits.saturating_add(more), found));
                }
            }
        }
        None
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_structures_that_hold_themselves_end() {
        let strings = b"\0outer\0";
        let mut words = vec![1, KIND_STRUCT << 24 | 400, 8];
        for _ in 0..400 {
            words.extend([0, 1, 0]);
        }
        let types: Vec<u8> = words
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        blob.extend(
            lengths
                .iter()
                .flat_map(|length| (*length as u32).to_ne_bytes()),
        );
        blob.extend(types);
        blob.extend(strings);
        let btf = Btf::parse(blob).expect("its lengths are right");
        let missing = LookupError::NoField("outer".to_owned(), "x".to_owned());
        assert_eq!(btf.offset("outer", &["x"]), Err(missing));
    }

    /// `struct outer { int a; union { struct inner *p; int q; }; }`, `struct inner { int b; }`,
    /// `typedef void (*btf_trace_x)(void *, int)`.
    fn blob() -> Vec<u8> {
        let strings = b"\0outer\0a\0p\0q\0inner\0b\0btf_trace_x\0int\0flags\0one\0two\0";
        let at = |name: &str| {
            let needle = [b"\0", name.as_bytes(), b"\0"].concat();
            strings
                .windows(needle.len())
                .position(|w| w == needle)
                .expect("present") as u32
                + 1
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let words: Vec<u32> = [
            vec![at("int"), info(1, 0), 4, 32],                           // 1
            vec![at("inner"), info(4, 1), 4, at("b"), 1, 0],              // 2
            vec![0, info(2, 0), 2],                                       // 3
            vec![0, info(5, 2), 8, at("p"), 3, 0, at("q"), 1, 0],         // 4
            vec![at("outer"), info(4, 2), 16, at("a"), 1, 0, 0, 4, 64],   // 5
            vec![0, info(13, 2), 0, 0, 3, 0, 1],                          // 6
            vec![0, info(2, 0), 6],                                       // 7
            vec![at("btf_trace_x"), info(8, 0), 7],                       // 8
            vec![at("flags"), info(6, 2), 4, at("one"), 1, at("two"), 9], // 9
        ]
        .concat();
        let types = words.len() as u32 * 4;
        let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        for word in [24, 0, types, types, strings.len() as u32] {
            blob.extend(word.to_ne_bytes());
        }
        blob.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        blob.extend(strings);
        blob
    }

    #[test]
    fn fields_are_found_through_anonymous_unions() {
        let btf = Btf::parse(blob()).expect("well-formed");
        assert_eq!(btf.offset("outer", &["a"]), Ok(0));
        assert_eq!(btf.offset("outer", &["p"]), Ok(8));
        assert!(btf.is_pointer("outer", &["p"]));
        assert!(!btf.is_pointer("outer", &["q"]));
        assert!(matches!(
            btf.offset("outer", &["b"]),
            Err(LookupError::NoField(..))
        ));
        assert!(matches!(
            btf.offset("absent", &["b"]),
            Err(LookupError::NoType(_))
        ));
        assert_eq!(btf.tracepoint_arguments("x"), Some(1));
        assert_eq!(btf.tracepoint_arguments("y"), None);
        assert_eq!(btf.constant("flags", "two"), Some(9));
        assert_eq!(btf.constant("flags", "three"), None);
        assert_eq!(btf.constant("outer", "a"), None);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_a_miss_and_never_a_panic() {
        let good = blob();
        for length in 0..good.len() {
            let _ = Btf::parse(good[..length].to_vec()).map(|btf| btf.offset("outer", &["p"]));
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = Btf::parse(bad).map(|btf| {
                let _ = btf.tracepoint_arguments("x");
                let _ = btf.constant("flags", "two");
                btf.offset("outer", &["p"])
            });
        }
    }
}
