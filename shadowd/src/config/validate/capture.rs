//! `[capture]`.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::{Checked, Source};
use crate::config::file;
use crate::config::settings::{
    CaptureSettings, Choice, CostMeasurement, FilterSettings, LimitSettings, RedactSettings,
    Redaction,
};
use crate::facts::FEATURES;

/// Most entries of a list.
const ENTRIES_MAX: usize = 256;
/// Most configuration roots: each is looked up for every file that is opened.
const PATHS_MAX: usize = 32;
/// What a table may hold.
const RECORDS: RangeInclusive<i64> = 16..=1 << 20;
/// What a buffer may hold.
const BYTES: RangeInclusive<i64> = 1 << 12..=1 << 26;

type List<T> = Option<Spanned<Vec<Spanned<T>>>>;

impl Source<'_> {
    pub(super) fn capture(&self, written: &file::Capture) -> Checked<CaptureSettings> {
        Ok(CaptureSettings {
            tick: self.duration(
                "capture.tick",
                written.tick.as_ref(),
                Duration::from_secs(1),
                Duration::from_millis(100)..=Duration::from_secs(60),
            )?,
            ebpf: written.ebpf.unwrap_or(true),
            cost: self.cost(written.cost.as_ref())?,
            probes_off: self.probes_off(&written.probes_off)?,
            paths: self.paths(&written.paths)?,
            filter: self.filter(written)?,
            redact: self.redact(&written.redact)?,
            limits: self.limits(&written.limits)?,
        })
    }

    fn cost(&self, written: Option<&Spanned<String>>) -> Checked<CostMeasurement> {
        let Some(written) = written else {
            return Ok(CostMeasurement::default());
        };
        match written.get_ref().as_str() {
            "start" => Ok(CostMeasurement::Start),
            "always" => Ok(CostMeasurement::Always),
            "off" => Ok(CostMeasurement::Off),
            _ => {
                let allowed = "\"start\" (a few times, then the right to do so is given up), \
                               \"always\" (each minute) or \"off\"";
                Err(self.refuse("capture.cost", written, allowed))
            }
        }
    }

    fn probes_off(&self, written: &List<String>) -> Checked<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for name in written.iter().flat_map(|list| list.get_ref()) {
            if !FEATURES.contains(&name.get_ref().as_str()) {
                let allowed = format!("one of {}", FEATURES.join(", "));
                return Err(self.refuse("capture.probes_off", name, allowed));
            }
            names.insert(name.get_ref().clone());
        }
        Ok(names)
    }

    fn paths(&self, written: &List<String>) -> Checked<Vec<PathBuf>> {
        let Some(list) = written else {
            return Ok(CaptureSettings::default_paths());
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for written in list.get_ref() {
            let text = written.get_ref();
            let path = Path::new(text);
            // Taken apart and put together again, a path that is normalised stays as it is.
            let normal = path
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            let again: PathBuf = path.components().collect();
            let same = again.as_os_str() == path.as_os_str();
            if !path.is_absolute() || !normal || !same || text.contains('\0') {
                let allowed = "an absolute path without ., .., // and / at its end";
                return Err(self.refuse("capture.paths", written, allowed));
            }
            if paths.contains(&again) {
                return Err(self.refuse("capture.paths", written, "each path once"));
            }
            paths.push(again);
            if paths.len() > PATHS_MAX {
                let allowed = format!("at most {PATHS_MAX} paths");
                return Err(self.refuse("capture.paths", written, allowed));
            }
        }
        Ok(paths)
    }

    fn filter(&self, written: &file::Capture) -> Checked<FilterSettings> {
        let units = &written.units;
        let ports = &written.ports;
        let networks = &written.networks;
        Ok(FilterSettings {
            units: Choice {
                include: self.list("capture.units.include", &units.include)?,
                exclude: self.list("capture.units.exclude", &units.exclude)?,
            },
            ports: Choice {
                include: self.ports("capture.ports.include", &ports.include)?,
                exclude: self.ports("capture.ports.exclude", &ports.exclude)?,
            },
            networks: Choice {
                include: self.list("capture.networks.include", &networks.include)?,
                exclude: self.list("capture.networks.exclude", &networks.exclude)?,
            },
        })
    }

    fn redact(&self, written: &file::Redact) -> Checked<RedactSettings> {
        let with = match &written.with {
            None => Redaction::default(),
            Some(with) => match with.get_ref().as_str() {
                "mark" => Redaction::Mark,
                "hash" => Redaction::Hash,
                _ => {
                    let allowed = "\"mark\" ([redacted]) or \"hash\" (a keyed hash)";
                    return Err(self.refuse("capture.redact.with", with, allowed));
                }
            },
        };
        Ok(RedactSettings {
            commands: self.list("capture.redact.commands", &written.commands)?,
            paths: self.list("capture.redact.paths", &written.paths)?,
            names: self.list("capture.redact.names", &written.names)?,
            with,
        })
    }

    fn limits(&self, written: &file::Limits) -> Checked<LimitSettings> {
        let events = written.events_bytes.as_ref();
        let events_bytes = self.limit("capture.limits.events_bytes", events, BYTES)?;
        if let (Some(bytes), Some(written)) = (events_bytes, events)
            && !bytes.is_power_of_two()
        {
            let allowed = "a power of two, such as 262144";
            return Err(self.refuse("capture.limits.events_bytes", written, allowed));
        }
        let of = |key, value: &Option<Spanned<i64>>| self.limit(key, value.as_ref(), RECORDS);
        Ok(LimitSettings {
            syscalls: of("capture.limits.syscalls", &written.syscalls)?,
            events_bytes,
            kernel_flows: of("capture.limits.kernel_flows", &written.kernel_flows)?,
            sockets: of("capture.limits.sockets", &written.sockets)?,
            listeners: of("capture.limits.listeners", &written.listeners)?,
            flows: of("capture.limits.flows", &written.flows)?,
            processes: of("capture.limits.processes", &written.processes)?,
        })
    }

    fn limit(
        &self,
        key: &'static str,
        written: Option<&Spanned<i64>>,
        range: RangeInclusive<i64>,
    ) -> Checked<Option<u32>> {
        let Some(written) = written else {
            return Ok(None);
        };
        let value = Some(*written.get_ref()).filter(|value| range.contains(value));
        let value = value.and_then(|value| u32::try_from(value).ok());
        value.map(Some).ok_or_else(|| {
            let allowed = format!("from {} to {}", range.start(), range.end());
            self.refuse(key, written, allowed)
        })
    }

    fn ports(&self, key: &'static str, written: &List<i64>) -> Checked<Vec<u16>> {
        self.bounded(key, written)?
            .iter()
            .map(|port| {
                let value = u16::try_from(*port.get_ref()).ok();
                value
                    .filter(|value| *value > 0)
                    .ok_or_else(|| self.refuse(key, port, "a port from 1 to 65535"))
            })
            .collect()
    }

    fn list<T>(&self, key: &'static str, written: &List<String>) -> Checked<Vec<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.bounded(key, written)?
            .iter()
            .map(|entry| self.parsed(key, entry))
            .collect()
    }

    fn bounded<'w, T: Debug>(
        &self,
        key: &'static str,
        written: &'w List<T>,
    ) -> Checked<&'w [Spanned<T>]> {
        let entries = written.as_ref().map_or(&[][..], |list| list.get_ref());
        match entries.get(ENTRIES_MAX) {
            None => Ok(entries),
            Some(one) => Err(self.refuse(key, one, format!("at most {ENTRIES_MAX} entries"))),
        }
    }
}
