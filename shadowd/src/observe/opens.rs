//! Files opened under the configuration roots, through one ring buffer.
//!
//! The kernel side sends the names on each path and sorts out by the first letters of the first
//! few; here the whole path is compared with the roots.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use aya::include_bytes_aligned;
use aya::maps::{Array, HashMap as KernelMap, MapData, RingBuf};
use shadowd_common::opens::{
    CALLS_MAX, OpenEvent, OpenOffsets, ROOT_NAMES, ROOTS_MAX, Root, TOKEN_BYTES, loss,
};

use super::btf::Btf;
use super::descriptors;
use super::fields::{Field, field, resolve};
use super::limits::Limits;
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use crate::facts::{BootTime, FileOpen, Sample};

/// Most files in one sample; more are counted as dropped.
const OPENS_MAX: usize = 16_384;

const FIELDS: &[Field<OpenOffsets>] = &[
    field!("pt_regs", ["orig_ax"] | ["syscallno"], regs_number),
    field!("task_struct", ["fs"], task_fs),
    field!("file", ["f_inode"], file_inode),
    field!("file", ["f_mode"], file_mode),
    field!("file", ["f_path", "mnt"], file_mount),
    field!("file", ["f_path", "dentry"], file_dentry),
    field!("inode", ["i_mode"], inode_mode),
    field!("inode", ["i_ino"], inode_number),
    field!("inode", ["i_sb"], inode_super),
    field!("super_block", ["s_dev"], super_device),
    field!("dentry", ["d_parent"], dentry_parent),
    field!("dentry", ["d_name", "name"], dentry_name),
    field!("vfsmount", ["mnt_root"], mount_root),
    field!("mount", ["mnt"], mount_inner),
    field!("mount", ["mnt_parent"], mount_parent),
    field!("mount", ["mnt_mountpoint"], mount_point),
    field!("fs_struct", ["root", "mnt"], fs_mount),
    field!("fs_struct", ["root", "dentry"], fs_dentry),
];

const SENTENCES: &[(u32, &str)] = &[
    (loss::OPENS, "the ring buffer of opened files is full"),
    (loss::PATHS, "the path of an opened file is too long"),
];

/// The probe and its ring buffer.
pub struct OpenProbes {
    object: Object,
    roots: Vec<PathBuf>,
    interval: Array<MapData, u32>,
    number: u32,
    events: RingBuf<MapData>,
    losses: Losses,
    /// Dropped on this side of the border.
    dropped: u64,
}

impl OpenProbes {
    /// Loads and attaches it, for files under `roots` and under what they link to.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(
        prepared: &Prepared,
        limits: Limits,
        roots: &[PathBuf],
    ) -> Result<(Self, Attached), LoadError> {
        let roots = real(roots);
        let offsets = offsets(&prepared.btf)?;
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/opens.bpf.o"));
        let sizes = [("OPENS", limits.opens_bytes)];
        let mut object = prepared.object("opens", bytes, &offsets, &sizes)?;
        let attached = prepared.attach(&mut object, &probes::OPENS);
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let mut known: KernelMap<_, Root, u32> = take("ROOTS")?.try_into()?;
        // Those of a daemon before this one may be others.
        let old: Vec<Root> = known.keys().flatten().collect();
        for root in old {
            known.remove(&root)?;
        }
        for root in &roots {
            known.insert(beginning(root), 1, 0)?;
        }
        let interval: Array<_, u32> = take("INTERVAL")?.try_into()?;
        let mut probes = Self {
            roots,
            number: interval.get(&0, 0)?,
            interval,
            events: take("OPENS")?.try_into()?,
            losses: Losses::take(&mut object, SENTENCES)?,
            dropped: 0,
            object,
        };
        probes.object.settle();
        Ok((probes, attached))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Adds the files of the interval to a sample, each once per control group, and begins the
    /// next interval.
    pub fn drain(&mut self, sample: &mut Sample) {
        self.number = self.number.wrapping_add(1);
        // If it is refused, files that were told are not told again: the tables outlive this.
        let _ = self.interval.set(0, self.number, 0);
        let mut known = HashMap::<(u64, String), usize>::new();
        while let Some(record) = self.events.next() {
            let Some(open) = decode(&record) else {
                continue;
            };
            if !self
                .roots
                .iter()
                .any(|root| Path::new(&open.path).starts_with(root))
            {
                continue;
            }
            let key = (open.cgroup, open.path.clone());
            if let Some(at) = known.get(&key) {
                let first = &mut sample.opens[*at];
                (first.pid, first.at) = (open.pid, open.at);
                first.write |= open.write;
            } else if sample.opens.len() < OPENS_MAX {
                known.insert(key, sample.opens.len());
                sample.opens.push(open);
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Files that could not be told.
    pub fn lost(&mut self) -> u64 {
        self.losses.total() + self.dropped
    }
}

/// The roots, and what they are behind symbolic links; the path of an open file has none.
fn real(roots: &[PathBuf]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = roots.to_vec();
    all.extend(roots.iter().filter_map(|root| root.canonicalize().ok()));
    all.sort();
    all.dedup();
    all.truncate(ROOTS_MAX as usize);
    all
}

fn offsets(btf: &Btf) -> Result<OpenOffsets, LoadError> {
    let mut offsets = resolve(btf, FIELDS)?;
    offsets.descriptors = descriptors::offsets(btf)?;
    offsets.calls = [u32::MAX; CALLS_MAX];
    let calls = [
        libc::SYS_openat,
        libc::SYS_openat2,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat,
    ];
    for (slot, number) in offsets.calls.iter_mut().zip(calls) {
        *slot = u32::try_from(number).unwrap_or(u32::MAX);
    }
    Ok(offsets)
}

/// What the kernel side compares of a root.
fn beginning(root: &Path) -> Root {
    let names = root.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    });
    let mut tokens = Root::default();
    for (slot, name) in tokens.iter_mut().zip(names.take(ROOT_NAMES)) {
        let mut eight = [0; 8];
        let used = name.len().min(TOKEN_BYTES);
        eight[..used].copy_from_slice(&name[..used]);
        *slot = u64::from_ne_bytes(eight);
    }
    tokens
}

/// Reads one record; `None` for one that is none.
pub(super) fn decode(bytes: &[u8]) -> Option<FileOpen> {
    use std::mem::offset_of;
    let four = |at: usize| {
        let part = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(part.try_into().ok()?))
    };
    let eight = |at: usize| {
        let part = bytes.get(at..at + 8)?;
        Some(u64::from_ne_bytes(part.try_into().ok()?))
    };
    let length = four(offset_of!(OpenEvent, length))? as usize;
    let names = bytes.get(offset_of!(OpenEvent, names)..)?;
    let names = names.get(..length)?.strip_suffix(&[0])?;
    let mut path = PathBuf::from("/");
    path.extend(names.rsplit(|byte| *byte == 0).map(OsStr::from_bytes));
    Some(FileOpen {
        pid: four(offset_of!(OpenEvent, tgid))?,
        cgroup: eight(offset_of!(OpenEvent, cgroup))?,
        at: BootTime::from_nanos(eight(offset_of!(OpenEvent, at))?),
        path: path.to_string_lossy().into_owned(),
        write: four(offset_of!(OpenEvent, write))? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(names: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(9_u64.to_ne_bytes());
        bytes.extend(77_u64.to_ne_bytes());
        for word in [5, 1, names.len() as u32, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(names);
        bytes
    }

    #[test]
    fn the_names_of_a_record_are_a_path_from_its_end() {
        let open = decode(&record(b"nginx.conf\0nginx\0etc\0")).expect("a record");
        assert_eq!(open.path, "/etc/nginx/nginx.conf");
        assert_eq!((open.pid, open.cgroup, open.write), (5, 9, true));
        assert_eq!(open.at, BootTime::from_nanos(77));
        assert_eq!(decode(&record(b"nginx.conf\0nginx\0etc")), None);
        assert_eq!(decode(&record(b"")), None);
    }

    #[test]
    fn the_beginning_of_a_root_is_its_first_names() {
        assert_eq!(beginning(Path::new("/")), Root::default());
        let local = beginning(Path::new("/usr/local/etc"));
        let word = |text: &[u8; 8]| u64::from_ne_bytes(*text);
        assert_eq!(
            local,
            [
                word(b"usr\0\0\0\0\0"),
                word(b"local\0\0\0"),
                word(b"etc\0\0\0\0\0"),
                0
            ]
        );
        let deep = beginning(Path::new("/a/b/c/configuration/e"));
        assert_eq!(deep[3], word(b"configu\0"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(open) = decode(&bytes) {
                prop_assert!(open.path.starts_with('/'));
            }
        }
    }
}
