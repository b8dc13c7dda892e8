//! What of an observation is recorded, and in which form.
//!
//! Recorded is what was active in the interval: of units and processes those that did something, of
//! flows those on which something passed, with what passed and without their totals, of listening
//! sockets those with a queue. So a quiet host writes little, and no count is missing.

use serde::{Deserialize, Serialize};

use super::frame::{HEAD, Head, Kind, MAX_CONTENT};
use super::{HistoryError, slim};
use crate::facts::{Flow, FlowCounts, Listener, Observation};

/// zstd's fastest ordinary level: on records it packs nearly as well as the slower ones.
const LEVEL: i32 = 1;

/// What of `observation` is recorded.
pub fn recorded(observation: &Observation) -> Observation {
    let flow = |flow: &Flow| Flow {
        total: FlowCounts::default(),
        ..flow.clone()
    };
    let active = |flow: &&Flow| flow.interval != FlowCounts::default();
    let busy = |listener: &&Listener| listener.backlog > 0 || listener.overflows > 0;
    let units = observation.units.iter().filter(|unit| unit.is_active());
    let processes = observation.processes.iter();
    Observation {
        host: observation.host.clone(),
        units: units.cloned().collect(),
        processes: processes
            .filter(|process| process.is_active())
            .cloned()
            .collect(),
        flows: observation.flows.iter().filter(active).map(flow).collect(),
        listeners: observation.listeners.iter().filter(busy).cloned().collect(),
        devices: observation.devices.clone(),
        files: observation.files.clone(),
        ..*observation
    }
}

/// Makes frames; keeps its buffers.
pub struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    json: Vec<u8>,
}

impl Packer {
    pub fn new() -> Result<Self, HistoryError> {
        let zstd = zstd::bulk::Compressor::new(LEVEL).map_err(HistoryError::Pack)?;
        let json = Vec::new();
        Ok(Self { zstd, json })
    }

    /// The frame of record `number`: `observation` as it is.
    pub fn frame(
        &mut self,
        number: u64,
        observation: &Observation,
    ) -> Result<Vec<u8>, HistoryError> {
        let content = self.pack(observation)?;
        let mut head = Head::new(Kind::Record, number, &content, self.json.len());
        head.wall_ms = observation.wall_ms;
        head.boot_ns = observation.at.as_nanos();
        head.interval_ns = observation.interval_ns;
        Ok(joined(&head, &content))
    }

    /// `value` as packed JSON.
    pub fn pack<T: Serialize>(&mut self, value: &T) -> Result<Vec<u8>, HistoryError> {
        self.json.clear();
        slim::write(value, &mut self.json).map_err(|error| HistoryError::Pack(error.into()))?;
        if self.json.len() > MAX_CONTENT {
            let error = format!("{} bytes in one record", self.json.len());
            return Err(HistoryError::Pack(std::io::Error::other(error)));
        }
        self.zstd.compress(&self.json).map_err(HistoryError::Pack)
    }

    /// Bytes of the value that was packed last, before it was packed.
    pub fn unpacked(&self) -> usize {
        self.json.len()
    }
}

/// The frame that a file begins with.
pub fn begin(number: u64, boot: &str) -> Vec<u8> {
    let head = Head::new(Kind::Begin, number, boot.as_bytes(), boot.len());
    joined(&head, boot.as_bytes())
}

pub fn joined(head: &Head, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + content.len());
    frame.extend_from_slice(&head.encode());
    frame.extend_from_slice(content);
    frame
}

/// What `content` was packed from; none when it cannot be read.
pub fn unpack<T: for<'de> Deserialize<'de>>(head: &Head, content: &[u8]) -> Option<T> {
    let json = zstd::bulk::decompress(content, head.unpacked).ok()?;
    serde_json::from_slice(&json).ok()
}
