//! Hands what the kernel side logs to the daemon's own log.
//!
//! The kernel side logs each full table once, so a few records are all there ever are: they fit a
//! page, and reading them needs no bound of its own. It never wakes anybody: whoever ticks looks.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// The global of `aya-log-ebpf` that holds the least important level that is logged.
pub const LEVEL: &str = aya_log::LEVEL;
/// For [`LEVEL`]: the verifier removes all that logs.
pub const LEVEL_SILENT: u8 = 0;
/// For [`LEVEL`]: warnings and errors.
pub const LEVEL_WARN: u8 = aya_log::Level::Warn as u8;
/// The map of `aya-log-ebpf`.
pub const MAP: &str = "AYA_LOGS";
/// Bytes of that map; rounded up to a page.
pub const MAP_BYTES: u32 = 4_096;

/// The reading end.
pub struct KernelLog(EbpfLogger<Forward>);

impl KernelLog {
    /// Takes the map out of a loaded object; without it, capture goes on.
    pub fn open(object: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(object, Forward) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                tracing::debug!(%error, "the kernel side's log cannot be read");
                None
            }
        }
    }

    /// Forwards what was logged since the last time.
    pub fn forward(&mut self) {
        self.0.flush();
    }
}

/// Writes records of `log` as events of `tracing`.
struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => tracing::error!("kernel side: {text}"),
            log::Level::Warn => tracing::warn!("kernel side: {text}"),
            _ => tracing::debug!("kernel side: {text}"),
        }
    }

    fn flush(&self) {}
}
