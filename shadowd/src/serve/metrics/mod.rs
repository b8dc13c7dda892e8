//! The state of the host as OpenMetrics text, for Prometheus and whoever reads the same.
//!
//! Made from the facts the daemon holds anyway, when somebody asks; nothing is measured for it. The
//! number of series is bounded: units beyond the bound are summed in `unit="_other"`, remotes have
//! no series unless asked for.

mod bound;
mod daemon;
mod drills;
mod encode;
mod host;
mod listen;
mod notices;
mod own;
mod paths;
mod profiles;
mod units;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::config::settings::MetricsSettings;
use crate::facts::{Observation, Status};
use bound::{Chosen, Remotes, Units};

pub use listen::{MetricsBindError, MetricsListener};
pub use own::OwnUse;

/// What a scrape is answered as (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Turns facts into text, one scrape after the other.
#[derive(Debug, Default)]
pub struct Metrics {
    settings: MetricsSettings,
    past: Mutex<(Units, Remotes)>,
}

/// What one scrape shows.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    observation: Arc<Observation>,
    own: OwnUse,
    units: Chosen,
    remotes: Vec<(bound::Remote, crate::facts::FlowCounts)>,
}

impl Metrics {
    /// Metrics with the bounds of `settings`.
    pub fn new(settings: MetricsSettings) -> Self {
        Self {
            settings,
            past: Mutex::default(),
        }
    }

    /// One scrape. May take some milliseconds on a host with many units: not for an async worker.
    pub fn text(&self, status: Status, observation: Arc<Observation>, own: OwnUse) -> String {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let (units, remotes) = &mut *past;
        let chosen = units.choose(&observation, self.settings.units);
        let remotes = match self.settings.remotes {
            0 => Vec::new(),
            limit => remotes
                .follow(&observation, limit, &chosen.named)
                .iter()
                .map(|(remote, counts)| (remote.clone(), *counts))
                .collect(),
        };
        drop(past);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot {
            status,
            observation,
            own,
            units: chosen,
            remotes,
        }));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        daemon::daemon(self, &mut encoder)?;
        daemon::failover(self, &mut encoder)?;
        notices::notices(self, &mut encoder)?;
        drills::drills(self, &mut encoder)?;
        profiles::profiles(self, &mut encoder)?;
        daemon::probes(self, &mut encoder)?;
        host::host(self, &mut encoder)?;
        units::units(self, &mut encoder)?;
        units::remotes(self, &mut encoder)
    }
}

#[cfg(test)]
mod tests;
