//! From the file as written to settings that hold: ranges, formats and relations.

mod capture;
mod drill;
mod group;
mod hosts;
mod notify;
mod policy;
mod profile;
mod redundancy;
mod repository;

use std::fmt::Debug;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::error::{ConfigError, line_of};
use super::file;
use super::settings::{GroupSettings, HistorySettings, HostSettings, MetricsSettings, Settings};
use crate::facts::Name;
use group::Place;

const MAX_GROUPS: usize = 16;

/// The text behind the spans, for error messages.
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

type Checked<T> = Result<T, ConfigError>;

pub(super) fn validate(file: file::File, text: &str, path: &Path) -> Checked<Settings> {
    let source = Source { text, path };
    let host = source.host(&file.host)?;
    let peers = source.peers(&file, &host)?;
    if file.group.len() > MAX_GROUPS {
        let name = &file.group[MAX_GROUPS].name;
        return Err(source.refuse("group.name", name, "a host has at most 16 groups"));
    }
    let mut groups: Vec<GroupSettings> = Vec::new();
    let mut witnessed: Vec<GroupSettings> = Vec::new();
    let mut drills = Vec::new();
    let mut providers = Vec::new();
    let mut profiles = Vec::new();
    for written in &file.group {
        let (place, group) = source.group(written, &host, &peers)?;
        source.apart(written, &group, groups.iter().chain(&witnessed))?;
        match place {
            Place::Member | Place::Spare => {
                drills.push(source.drill(written, &group)?);
                providers.push(source.provider(written, group.redundancy.provider)?);
                profiles.push(source.profile(written)?);
                groups.push(group);
            }
            Place::Witness => witnessed.push(group),
        }
    }
    let capture = source.capture(&file.capture)?;
    let metrics = source.metrics(&file.metrics, &host)?;
    let history = source.history(&file.history)?;
    let own: Vec<Name> = groups.iter().map(|group| group.name.clone()).collect();
    let notify = source.notify(&file, &own)?;
    let repository = source.repository(&file.repository, &host.state_dir)?;
    Ok(Settings {
        host,
        peers,
        groups,
        witnessed,
        capture,
        metrics,
        history,
        notify,
        drills,
        providers,
        profiles,
        repository,
    })
}

impl Source<'_> {
    fn refuse<T: Debug>(
        &self,
        key: &'static str,
        value: &Spanned<T>,
        allowed: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, &value.span()),
            key,
            value: self
                .text
                .get(value.span())
                .map_or_else(|| format!("{value:?}"), str::to_owned),
            allowed: allowed.into(),
        }
    }

    fn parsed<T>(&self, key: &'static str, value: &Spanned<String>) -> Checked<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        value
            .get_ref()
            .parse()
            .map_err(|error: T::Err| self.refuse(key, value, error.to_string()))
    }

    fn socket_address(
        &self,
        key: &'static str,
        value: &Spanned<String>,
    ) -> Checked<std::net::SocketAddr> {
        let address: Option<std::net::SocketAddr> = value.get_ref().parse().ok();
        let legal = |address: &std::net::SocketAddr| {
            address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
        };
        address.filter(legal).ok_or_else(|| {
            let allowed = "an address of one host with a port from 1 to 65535, \
                           such as 192.0.2.1:7373 or [2001:db8::1]:7373";
            self.refuse(key, value, allowed)
        })
    }

    fn metrics(&self, written: &file::Metrics, host: &HostSettings) -> Checked<MetricsSettings> {
        let remote = written.allow_remote.unwrap_or(false);
        let mut settings = MetricsSettings::default();
        if let Some(value) = &written.listen {
            let address = self.socket_address("metrics.listen", value)?;
            if !address.ip().is_loopback() && !remote {
                let allowed = "a loopback address, such as 127.0.0.1:9464: anybody who reaches \
                               another one reads what runs here; write allow_remote = true if \
                               that is meant";
                return Err(self.refuse("metrics.listen", value, allowed));
            }
            if host.listen.contains(&address) {
                return Err(self.refuse("metrics.listen", value, "another port than host.listen"));
            }
            settings.listen = Some(address);
        }
        for (key, value, bound, from) in [
            ("metrics.units", &written.units, &mut settings.units, 1),
            (
                "metrics.remotes",
                &written.remotes,
                &mut settings.remotes,
                0,
            ),
        ] {
            let Some(value) = value else { continue };
            let number = usize::try_from(*value.get_ref()).ok();
            *bound = number
                .filter(|number| (from..=10_000).contains(number))
                .ok_or_else(|| self.refuse(key, value, format!("from {from} to 10000")))?;
        }
        Ok(settings)
    }

    fn duration(
        &self,
        key: &'static str,
        value: Option<&Spanned<String>>,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Checked<Duration> {
        let Some(value) = value else {
            return Ok(default);
        };
        let parsed = humantime::parse_duration(value.get_ref()).ok();
        parsed
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| {
                let [from, to] = [range.start(), range.end()]
                    .map(|end| humantime::format_duration(*end).to_string());
                self.refuse(
                    key,
                    value,
                    format!("a duration from {from} to {to}, such as 250ms"),
                )
            })
    }

    fn history(&self, history: &file::History) -> Checked<HistorySettings> {
        let hour = Duration::from_secs(3_600);
        let max_age = self.duration(
            "history.max_age",
            history.max_age.as_ref(),
            hour * 24 * 7,
            hour..=hour * 24 * 3_650,
        )?;
        let full_resolution = self.duration(
            "history.full_resolution",
            history.full_resolution.as_ref(),
            (hour * 2).min(max_age),
            hour / 6..=max_age,
        )?;
        Ok(HistorySettings {
            record: history.record.unwrap_or(true),
            max_bytes: self.size("history.max_size", history.max_size.as_ref())?,
            max_age,
            full_resolution,
        })
    }

    /// Bytes, in binary units (IEC 80000-13).
    fn size(&self, key: &'static str, value: Option<&Spanned<String>>) -> Checked<u64> {
        const MIB: u64 = 1 << 20;
        let Some(value) = value else {
            return Ok(256 * MIB);
        };
        let read = |text: &str| -> Option<u64> {
            let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
            let (number, unit) = text.split_at(digits);
            let unit = match unit.trim_start() {
                "MiB" => MIB,
                "GiB" => MIB << 10,
                "TiB" => MIB << 20,
                _ => return None,
            };
            number.parse::<u64>().ok()?.checked_mul(unit)
        };
        let legal = |bytes: &u64| (16 * MIB..=MIB << 20).contains(bytes);
        read(value.get_ref().trim())
            .filter(legal)
            .ok_or_else(|| self.refuse(key, value, "a size from 16MiB to 1TiB, such as 256MiB"))
    }

    fn absolute(
        &self,
        key: &'static str,
        value: Option<&Spanned<String>>,
        default: &str,
    ) -> Checked<std::path::PathBuf> {
        let Some(value) = value else {
            return Ok(default.into());
        };
        if value.get_ref().starts_with('/') && !value.get_ref().contains('\0') {
            return Ok(value.get_ref().into());
        }
        Err(self.refuse(key, value, "an absolute path"))
    }
}
