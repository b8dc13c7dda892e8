//! Reads the counts of file I/O.

use std::io;

use aya::include_bytes_aligned;
use shadowd_common::files::{FileKey, FileOffsets, FileValue, NUMBERS, kind, loss};

use super::btf::Btf;
use super::descriptors;
use super::fields::{Field, field, resolve};
use super::limits::Limits;
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use super::readings::{Readings, Sums};
use crate::facts::{FileCounts, FileDelta, Sample};

const FIELDS: &[Field<FileOffsets>] = &[
    field!("pt_regs", ["orig_ax"] | ["syscallno"], regs_number),
    field!("pt_regs", ["di"] | ["orig_x0"], regs_first),
    field!("file", ["f_inode"], file_inode),
    field!("inode", ["i_mode"], inode_mode),
];

/// What each system call does, where there is such a one.
const CALLS: &[(libc::c_long, u8)] = &[
    (libc::SYS_read, kind::READ),
    (libc::SYS_pread64, kind::READ),
    (libc::SYS_readv, kind::READ),
    (libc::SYS_preadv, kind::READ),
    (libc::SYS_preadv2, kind::READ),
    (libc::SYS_write, kind::WRITE),
    (libc::SYS_pwrite64, kind::WRITE),
    (libc::SYS_writev, kind::WRITE),
    (libc::SYS_pwritev, kind::WRITE),
    (libc::SYS_pwritev2, kind::WRITE),
    (libc::SYS_openat, kind::OPEN),
    (libc::SYS_openat2, kind::OPEN),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, kind::OPEN),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, kind::OPEN),
    (libc::SYS_sendfile, kind::SEND),
    (libc::SYS_copy_file_range, kind::COPY),
    (libc::SYS_splice, kind::COPY),
];

impl Sums for FileValue {
    fn since(&self, before: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(before.reads),
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            writes: self.writes.saturating_sub(before.writes),
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
            opens: self.opens.saturating_sub(before.opens),
        }
    }
}

/// The probe and its table.
pub struct FileProbes {
    object: Object,
    counts: Readings<FileKey, FileValue>,
    losses: Losses,
}

impl FileProbes {
    /// Loads and attaches it.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(prepared: &Prepared, limits: Limits) -> Result<(Self, Attached), LoadError> {
        let offsets = offsets(&prepared.btf)?;
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/files.bpf.o"));
        let sizes = [("FILES", limits.files), ("FILES_TOLD", limits.files)];
        let mut object = prepared.object("files", bytes, &offsets, &sizes)?;
        let attached = prepared.attach(&mut object, &probes::FILES);
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let counts = Readings::new(take("FILES")?, take("FILES_TOLD")?, limits.files)?;
        let mut probes = Self {
            counts,
            losses: Losses::take(
                &mut object,
                &[(loss::FILES, "the table of file I/O is full")],
            )?,
            object,
        };
        probes.object.settle();
        Ok((probes, attached))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Adds what was counted to a sample.
    ///
    /// # Errors
    ///
    /// The kernel's; what was not read is in the next sample.
    pub fn drain(&mut self, sample: &mut Sample) -> io::Result<()> {
        self.counts.read(|key, value| {
            sample.files.push(FileDelta {
                pid: key.tgid,
                cgroup: key.cgroup,
                counts: FileCounts {
                    reads: value.reads,
                    read_bytes: value.read_bytes,
                    writes: value.writes,
                    write_bytes: value.write_bytes,
                    opens: value.opens,
                },
            });
        })
    }

    /// Reads, writes and opens that the full table refused.
    pub fn lost(&mut self) -> u64 {
        self.losses.total()
    }
}

fn offsets(btf: &Btf) -> Result<FileOffsets, LoadError> {
    let mut offsets = resolve(btf, FIELDS)?;
    let missing = |error: super::btf::LookupError| LoadError::NoField(error.to_string());
    (offsets.regs_second, offsets.regs_third) = match btf.offset("pt_regs", &["si"]) {
        Ok(second) => (second, btf.offset("pt_regs", &["dx"]).map_err(missing)?),
        // Where the registers are a row of numbers, the arguments are the first ones.
        Err(_) => {
            let row = btf.offset("pt_regs", &["regs"]).map_err(missing)?;
            (row + 8, row + 16)
        }
    };
    offsets.descriptors = descriptors::offsets(btf)?;
    for (number, kind) in calls() {
        offsets.kinds[number] = kind;
    }
    Ok(offsets)
}

/// The numbers of the calls that may be about files, each below [`NUMBERS`], and what they do.
pub fn calls() -> impl Iterator<Item = (usize, u8)> {
    CALLS
        .iter()
        .filter_map(|(number, kind)| Some((usize::try_from(*number).ok()?, *kind)))
        .filter(|(number, _)| *number < NUMBERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_interest_has_a_place_of_its_own() {
        let mut numbers: Vec<_> = CALLS.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CALLS.len());
        for number in numbers {
            assert!(usize::try_from(number).is_ok_and(|number| number < NUMBERS));
        }
    }

    #[test]
    fn what_came_since_is_the_difference_of_every_sum() {
        let before = FileValue {
            reads: 1,
            read_bytes: 2,
            writes: 3,
            write_bytes: 4,
            opens: 5,
        };
        let now = FileValue {
            reads: 11,
            read_bytes: 22,
            writes: 33,
            write_bytes: 44,
            opens: 55,
        };
        let since = FileValue {
            reads: 10,
            read_bytes: 20,
            writes: 30,
            write_bytes: 40,
            opens: 50,
        };
        assert_eq!(now.since(&before), since);
    }
}
