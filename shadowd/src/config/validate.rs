//! From the file as written to settings that hold: ranges, formats and relations.

mod capture;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::error::{ConfigError, line_of};
use super::file;
use super::settings::{
    GroupSettings, HistorySettings, HostSettings, MetricsSettings, PeerSettings, Settings,
    UnitSettings,
};
use crate::facts::{HostId, Name, Protection, UnitMode, Vip};

const MAX_PEERS: usize = 64;
const MAX_GROUPS: usize = 16;
const MAX_MEMBERS: usize = 8;
const MAX_VIPS: usize = 32;
const MAX_UNITS: usize = 64;
/// Group names travel in every heartbeat.
const MAX_GROUP_NAME: usize = 32;

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
    for written in &file.group {
        let group = source.group(written, &host, &peers)?;
        source.apart(written, &group, &groups)?;
        groups.push(group);
    }
    let capture = source.capture(&file.capture)?;
    let metrics = source.metrics(&file.metrics, &host)?;
    let history = source.history(&file.history)?;
    Ok(Settings {
        host,
        peers,
        groups,
        capture,
        metrics,
        history,
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
            if address == host.listen {
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

    fn host(&self, host: &file::Host) -> Checked<HostSettings> {
        Ok(HostSettings {
            name: self.parsed("host.name", &host.name)?,
            listen: self.socket_address("host.listen", &host.listen)?,
            state_dir: self.absolute(
                "host.state_dir",
                host.state_dir.as_ref(),
                "/var/lib/shadowd",
            )?,
            socket: self.absolute(
                "host.socket",
                host.socket.as_ref(),
                "/run/shadowd/shadowd.sock",
            )?,
        })
    }

    fn peers(&self, file: &file::File, host: &HostSettings) -> Checked<Vec<PeerSettings>> {
        let mut peers: Vec<PeerSettings> = Vec::new();
        for written in &file.peer {
            let peer = PeerSettings {
                name: self.parsed("peer.name", &written.name)?,
                id: self.parsed::<HostId>("peer.id", &written.id)?,
                address: self.socket_address("peer.address", &written.address)?,
            };
            if peer.name == host.name || peers.iter().any(|other| other.name == peer.name) {
                let allowed = "each host has a name of its own";
                return Err(self.refuse("peer.name", &written.name, allowed));
            }
            if peers.iter().any(|other| other.id == peer.id) {
                return Err(self.refuse("peer.id", &written.id, "each host has an id of its own"));
            }
            if peer.address == host.listen
                || peers.iter().any(|other| other.address == peer.address)
            {
                let allowed = "each host listens on an address of its own";
                return Err(self.refuse("peer.address", &written.address, allowed));
            }
            if peer.address.is_ipv4() != host.listen.is_ipv4() {
                let allowed = "of the same family as host.listen";
                return Err(self.refuse("peer.address", &written.address, allowed));
            }
            peers.push(peer);
            if peers.len() > MAX_PEERS {
                return Err(self.refuse("peer.name", &written.name, "a host has at most 64 peers"));
            }
        }
        Ok(peers)
    }

    fn group(
        &self,
        group: &file::Group,
        host: &HostSettings,
        peers: &[PeerSettings],
    ) -> Checked<GroupSettings> {
        let name: Name = self.parsed("group.name", &group.name)?;
        if name.as_str().len() > MAX_GROUP_NAME {
            let allowed = "a group's name has at most 32 characters";
            return Err(self.refuse("group.name", &group.name, allowed));
        }
        let ms = Duration::from_millis;
        let longest = Duration::from_secs(600);
        let heartbeat = self.duration(
            "group.heartbeat",
            group.heartbeat.as_ref(),
            ms(100),
            ms(5)..=Duration::from_secs(10),
        )?;
        let suspect_after = self.duration(
            "group.suspect_after",
            group.suspect_after.as_ref(),
            heartbeat * 3,
            heartbeat * 2..=longest,
        )?;
        let join_wait = self.duration(
            "group.join_wait",
            group.join_wait.as_ref(),
            (suspect_after * 10)
                .max(Duration::from_secs(3))
                .min(longest),
            suspect_after..=longest,
        )?;
        Ok(GroupSettings {
            members: self.members(&group.members, host, peers)?,
            priority: self.priority(group.priority.as_ref())?,
            protection: self.protection(group)?,
            heartbeat,
            suspect_after,
            join_wait,
            interface: self.interface(&group.interface)?,
            vips: self.vips(&group.vips)?,
            units: self.units(&group.unit)?,
            name,
        })
    }

    fn members(
        &self,
        members: &Spanned<Vec<Spanned<String>>>,
        host: &HostSettings,
        peers: &[PeerSettings],
    ) -> Checked<Vec<Name>> {
        let mut others = BTreeSet::new();
        let mut own = false;
        for written in members.get_ref() {
            let name: Name = self.parsed("group.members", written)?;
            if name == host.name {
                own = true;
            } else if !peers.iter().any(|peer| peer.name == name) {
                let allowed = "each member is this host or has a [[peer]] table";
                return Err(self.refuse("group.members", written, allowed));
            } else if !others.insert(name) {
                return Err(self.refuse("group.members", written, "each member once"));
            }
        }
        if !own {
            let allowed = format!("must name this host, {}", host.name);
            return Err(self.refuse("group.members", members, allowed));
        }
        if others.is_empty() || others.len() >= MAX_MEMBERS {
            return Err(self.refuse("group.members", members, "a group has 2 to 8 members"));
        }
        Ok(others.into_iter().collect())
    }

    fn priority(&self, priority: Option<&Spanned<i64>>) -> Checked<u8> {
        let Some(written) = priority else {
            return Ok(100);
        };
        let value = u8::try_from(*written.get_ref())
            .ok()
            .filter(|value| *value > 0);
        value.ok_or_else(|| self.refuse("group.priority", written, "from 1 to 255"))
    }

    fn protection(&self, group: &file::Group) -> Checked<Protection> {
        let allowed = "what keeps the group from having two owners must be written out; this \
                       version knows \"none\": a partition makes two owners until it heals";
        match &group.protection {
            Some(written) if written.get_ref() == "none" => Ok(Protection::None),
            Some(written) => Err(self.refuse("group.protection", written, allowed)),
            None => Err(ConfigError::Value {
                path: self.path.to_owned(),
                line: line_of(self.text, &group.name.span()),
                key: "group.protection",
                value: "(missing)".to_owned(),
                allowed: allowed.to_owned(),
            }),
        }
    }

    fn interface(&self, interface: &Spanned<String>) -> Checked<String> {
        let name = interface.get_ref();
        // IFNAMSIZ is 16 with the closing zero; dev_valid_name in net/core/dev.c.
        let letters = name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        if name.is_empty() || name.len() > 15 || !letters || name == "." || name == ".." {
            let allowed = "an interface's name: 1 to 15 characters without space, / and :";
            return Err(self.refuse("group.interface", interface, allowed));
        }
        Ok(name.clone())
    }

    fn vips(&self, vips: &Spanned<Vec<Spanned<String>>>) -> Checked<Vec<Vip>> {
        let mut seen = BTreeSet::new();
        let mut parsed = Vec::new();
        for written in vips.get_ref() {
            let vip: Vip = self.parsed("group.vips", written)?;
            if !seen.insert(vip.address) {
                return Err(self.refuse("group.vips", written, "each address once"));
            }
            parsed.push(vip);
        }
        if parsed.is_empty() || parsed.len() > MAX_VIPS {
            return Err(self.refuse("group.vips", vips, "a group has 1 to 32 virtual IPs"));
        }
        Ok(parsed)
    }

    fn units(&self, units: &[file::Unit]) -> Checked<Vec<UnitSettings>> {
        let mut parsed: Vec<UnitSettings> = Vec::new();
        for written in units {
            let name: Name = self.parsed("group.unit.name", &written.name)?;
            let is_service = name.as_str().ends_with(".service") && name.as_str() != ".service";
            if !is_service || parsed.iter().any(|unit| unit.name == name) {
                let allowed = "a service unit's full name, such as nginx.service, each once";
                return Err(self.refuse("group.unit.name", &written.name, allowed));
            }
            let mode = match written.mode.get_ref().as_str() {
                "warm" => UnitMode::Warm,
                "cold" => UnitMode::Cold,
                _ => {
                    let allowed = "\"warm\" (runs on every member) or \"cold\" (on the active)";
                    return Err(self.refuse("group.unit.mode", &written.mode, allowed));
                }
            };
            parsed.push(UnitSettings { name, mode });
            if parsed.len() > MAX_UNITS {
                let allowed = "a group has at most 64 units";
                return Err(self.refuse("group.unit.name", &written.name, allowed));
            }
        }
        Ok(parsed)
    }

    /// Two groups share no name, no address and no unit: each would fail over with either.
    fn apart(
        &self,
        written: &file::Group,
        group: &GroupSettings,
        groups: &[GroupSettings],
    ) -> Checked<()> {
        for other in groups {
            if other.name == group.name {
                return Err(self.refuse("group.name", &written.name, "each group once"));
            }
            let shared = |vip: &&Vip| other.vips.iter().any(|own| own.address == vip.address);
            if let Some(vip) = group.vips.iter().find(shared) {
                let allowed = format!("{vip} belongs to the group {} already", other.name);
                return Err(self.refuse("group.vips", &written.vips, allowed));
            }
            let shared = |unit: &&file::Unit| {
                other
                    .units
                    .iter()
                    .any(|own| own.name.as_str() == unit.name.get_ref())
            };
            if let Some(unit) = written.unit.iter().find(shared) {
                let allowed = format!("belongs to the group {} already", other.name);
                return Err(self.refuse("group.unit.name", &unit.name, allowed));
            }
        }
        Ok(())
    }
}
