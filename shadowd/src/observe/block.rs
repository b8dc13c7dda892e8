//! Reads the counts of block I/O.

use std::io;

use aya::include_bytes_aligned;
use shadowd_common::block::{BlockKey, BlockOffsets, BlockValue, OTHER, READ, loss};

use super::btf::Btf;
use super::fields::{Field, field, resolve};
use super::limits::Limits;
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use super::readings::{Readings, Sums};
use crate::facts::{BlockCounts, BlockDelta, Histogram, IoDirection, Sample};

const FIELDS: &[Field<BlockOffsets>] = &[
    field!("request", ["q"], request_queue),
    field!("request", ["cmd_flags"], request_operation),
    field!("request", ["rq_flags"], request_flags),
    field!("request", ["__data_len"], request_bytes),
    field!("gendisk", ["major"], disk_major),
    field!("gendisk", ["first_minor"], disk_minor),
];

/// RQF_IO_STAT and RQF_FLUSH_SEQ while they were macros, up to 6.10 (include/linux/blk-mq.h).
const OLD_FLAGS: (u32, u32) = (1 << 13, 1 << 4);

const SENTENCES: &[(u32, &str)] = &[
    (loss::BLOCK, "the table of block I/O is full"),
    (loss::REQUESTS, "the table of block requests is full"),
];

impl Sums for BlockValue {
    fn since(&self, before: &Self) -> Self {
        let mut latency = self.latency;
        for (mine, theirs) in latency.iter_mut().zip(before.latency) {
            *mine = mine.saturating_sub(theirs);
        }
        Self {
            operations: self.operations.saturating_sub(before.operations),
            bytes: self.bytes.saturating_sub(before.bytes),
            errors: self.errors.saturating_sub(before.errors),
            latency,
        }
    }
}

/// The probes and their table.
pub struct BlockProbes {
    object: Object,
    counts: Readings<BlockKey, BlockValue>,
    losses: Losses,
}

impl BlockProbes {
    /// Loads and attaches them.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(prepared: &Prepared, limits: Limits) -> Result<(Self, Attached), LoadError> {
        let offsets = offsets(&prepared.btf)?;
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/block.bpf.o"));
        let sizes = [
            ("BLOCK", limits.block),
            ("BLOCK_TOLD", limits.block),
            ("REQUESTS", limits.requests),
        ];
        let mut object = prepared.object("block", bytes, &offsets, &sizes)?;
        let attached = prepared.attach(&mut object, &probes::BLOCK);
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let counts = Readings::new(take("BLOCK")?, take("BLOCK_TOLD")?, limits.block)?;
        let mut probes = Self {
            counts,
            losses: Losses::take(&mut object, SENTENCES)?,
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
        self.counts
            .read(|key, value| sample.block.push(delta(key, value)))
    }

    /// Requests that full tables refused.
    pub fn lost(&mut self) -> u64 {
        self.losses.total()
    }
}

fn offsets(btf: &Btf) -> Result<BlockOffsets, LoadError> {
    let mut offsets = resolve(btf, FIELDS)?;
    // Up to 5.16 the request knows its disk, from 5.15 the queue does.
    offsets.queue_disk = btf.offset("request_queue", &["disk"]).unwrap_or(0);
    if offsets.queue_disk == 0 {
        offsets.request_disk = (btf.offset("request", &["rq_disk"]))
            .map_err(|error| LoadError::NoField(error.to_string()))?;
    }
    let arguments = btf.tracepoint_arguments("block_rq_issue");
    offsets.queue_first = u32::from(arguments.is_some_and(|count| count >= 2));
    let bit = |name| {
        let number = btf.constant("rqf_flags", name)?;
        1_u32.checked_shl(number)
    };
    (offsets.counted, offsets.in_sequence) = bit("__RQF_IO_STAT")
        .zip(bit("__RQF_FLUSH_SEQ"))
        .unwrap_or(OLD_FLAGS);
    Ok(offsets)
}

fn delta(key: &BlockKey, value: &BlockValue) -> BlockDelta {
    BlockDelta {
        pid: key.tgid,
        cgroup: key.cgroup,
        device: (key.major, key.minor),
        direction: match key.direction {
            READ => IoDirection::Read,
            OTHER => IoDirection::Other,
            _ => IoDirection::Write,
        },
        counts: BlockCounts {
            operations: value.operations,
            bytes: value.bytes,
            errors: value.errors,
            latency: Histogram::from_counts(value.latency),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_is_the_difference_of_every_sum() {
        let mut before = BlockValue {
            operations: 3,
            bytes: 4_096,
            errors: 1,
            ..BlockValue::default()
        };
        before.latency[9] = 3;
        let mut now = before;
        now.operations += 2;
        now.bytes += 512;
        now.latency[9] += 1;
        now.latency[31] += 1;
        let key = BlockKey {
            direction: OTHER,
            major: 7,
            minor: 1,
            ..BlockKey::default()
        };
        let delta = delta(&key, &now.since(&before));
        assert_eq!(
            (delta.device, delta.direction),
            ((7, 1), IoDirection::Other)
        );
        assert_eq!((delta.counts.operations, delta.counts.bytes), (2, 512));
        assert_eq!((delta.counts.errors, delta.counts.latency.count()), (0, 2));
    }
}
