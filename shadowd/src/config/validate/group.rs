//! Groups: their members and witnesses, what protects them, their addresses and units.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;

use super::{Checked, Source};
use crate::config::error::{ConfigError, line_of};
use crate::config::file;
use crate::config::settings::{GroupSettings, HostSettings, PeerSettings, UnitSettings};
use crate::facts::{Drain, Name, Protection, UnitMode, Vip};

const MAX_MEMBERS: usize = 8;
const MAX_WITNESSES: usize = 5;
const MAX_VIPS: usize = 32;
const MAX_UNITS: usize = 64;
/// Group names travel in every heartbeat.
const MAX_GROUP_NAME: usize = 32;

/// How long connections are served after a handover where nothing else is written.
const DRAIN: Duration = Duration::from_secs(60);

/// What a host is to a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Member,
    Witness,
    Spare,
}

impl Source<'_> {
    /// One group, and what this host is to it.
    pub(super) fn group(
        &self,
        group: &file::Group,
        host: &HostSettings,
        peers: &[PeerSettings],
    ) -> Checked<(Place, GroupSettings)> {
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
        let (spare, spares) = self.spares(group, host, peers)?;
        let (place, members) = self.members(group, host, peers, spare)?;
        let witnesses = self.witnesses(group, host, peers, &members)?;
        let voters = usize::from(place != Place::Spare) + members.len() + witnesses.len();
        let others = members.len() + usize::from(place == Place::Member) - 1;
        let protection = self.protection(group, voters, !witnesses.is_empty())?;
        let lease = self.lease(group, protection, heartbeat, suspect_after)?;
        let (interface, vips) = self.addresses(group, place)?;
        let settings = GroupSettings {
            members,
            priority: self.priority(group.priority.as_ref())?,
            protection,
            heartbeat,
            suspect_after,
            join_wait,
            interface,
            vips,
            units: self.units(&group.unit)?,
            witnesses,
            lease,
            guard: self.guard(group, protection)?,
            drain: self.drain(group)?,
            unanswered_after: self.unanswered_after(group)?,
            promote_unready: group.profile.promote_unready.unwrap_or(true),
            policy: self.policy(group)?,
            redundancy: self.redundancy(group, others)?,
            spares,
            spare,
            name,
        };
        Ok((place, settings))
    }

    fn addresses(&self, group: &file::Group, place: Place) -> Checked<(String, Vec<Vip>)> {
        match (&group.interface, &group.vips) {
            (Some(interface), Some(vips)) => Ok((self.interface(interface)?, self.vips(vips)?)),
            // The same table may be written on all hosts of the group.
            _ if place == Place::Witness => Ok((String::new(), Vec::new())),
            (None, _) => Err(self.missing(
                "group.interface",
                &group.name,
                "the interface of the \
                virtual IPs, such as \"eth0\"; a witness alone needs none",
            )),
            (_, None) => Err(self.missing(
                "group.vips",
                &group.name,
                "1 to 32 virtual IPs; a \
                witness alone needs none",
            )),
        }
    }

    fn missing(
        &self,
        key: &'static str,
        at: &Spanned<String>,
        allowed: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, &at.span()),
            key,
            value: "(missing)".to_owned(),
            allowed: allowed.into(),
        }
    }

    /// What this host is to the group, and the other members.
    fn members(
        &self,
        group: &file::Group,
        host: &HostSettings,
        peers: &[PeerSettings],
        spare: bool,
    ) -> Checked<(Place, Vec<Name>)> {
        let members = &group.members;
        let (own, others) = self.hosts("group.members", members.get_ref(), host, peers)?;
        let written = group.witnesses.as_ref();
        let witness = written
            .into_iter()
            .flat_map(|list| list.get_ref())
            .any(|name| name.get_ref() == host.name.as_str());
        let place = match (own, witness) {
            (true, _) => Place::Member,
            (false, true) => Place::Witness,
            (false, false) if spare => Place::Spare,
            (false, false) => {
                let allowed = format!(
                    "must name this host, {}, here, in witnesses or in spares",
                    host.name
                );
                return Err(self.refuse("group.members", members, allowed));
            }
        };
        let count = others.len() + usize::from(own);
        if !(2..=MAX_MEMBERS).contains(&count) {
            return Err(self.refuse("group.members", members, "a group has 2 to 8 members"));
        }
        Ok((place, others))
    }

    /// The other witnesses.
    fn witnesses(
        &self,
        group: &file::Group,
        host: &HostSettings,
        peers: &[PeerSettings],
        members: &[Name],
    ) -> Checked<Vec<Name>> {
        let Some(written) = &group.witnesses else {
            return Ok(Vec::new());
        };
        let (own, others) = self.hosts("group.witnesses", written.get_ref(), host, peers)?;
        let is_member = |name: &Spanned<String>| {
            let listed = members
                .iter()
                .any(|member| member.as_str() == name.get_ref());
            let me = name.get_ref() == host.name.as_str();
            let mut written = group.members.get_ref().iter();
            listed || (me && written.any(|member| member.get_ref() == name.get_ref()))
        };
        if let Some(both) = written.get_ref().iter().find(|name| is_member(name)) {
            let allowed = "a member votes already: a witness is another host";
            return Err(self.refuse("group.witnesses", both, allowed));
        }
        if others.len() + usize::from(own) > MAX_WITNESSES {
            return Err(self.refuse("group.witnesses", written, "at most 5 witnesses"));
        }
        Ok(others)
    }

    /// Whether this host is among them, and the others, each once and each a peer.
    pub(super) fn hosts(
        &self,
        key: &'static str,
        written: &[Spanned<String>],
        host: &HostSettings,
        peers: &[PeerSettings],
    ) -> Checked<(bool, Vec<Name>)> {
        let mut others = BTreeSet::new();
        let mut own = false;
        for written in written {
            let name: Name = self.parsed(key, written)?;
            let known = peers.iter().any(|peer| peer.name == name);
            if name == host.name {
                own = true;
            } else if !known {
                let allowed = "each is this host or has a [[peer]] table";
                return Err(self.refuse(key, written, allowed));
            } else if !others.insert(name) {
                return Err(self.refuse(key, written, "each host once"));
            }
        }
        Ok((own, others.into_iter().collect()))
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

    fn protection(
        &self,
        group: &file::Group,
        voters: usize,
        witnessed: bool,
    ) -> Checked<Protection> {
        let allowed = "what keeps the group from having two owners must be written out: \
                       \"lease\" (a majority of members and witnesses decides), or \"none\" (a \
                       partition makes two owners until it heals)";
        let Some(written) = &group.protection else {
            return Err(self.missing("group.protection", &group.name, allowed));
        };
        match written.get_ref().as_str() {
            "lease" if voters < 3 => {
                let allowed = "with \"lease\" a group has at least three voters: a pair needs a \
                               witness (witnesses = [\"HOST\"]), or \"none\" written out";
                Err(self.refuse("group.protection", written, allowed))
            }
            "lease" if voters.is_multiple_of(2) => {
                let allowed = format!(
                    "with \"lease\" an odd number of voters: {voters} survive the loss of no more \
                     of them than {} do, so add a witness, or remove one",
                    voters - 1
                );
                Err(self.refuse("group.protection", written, allowed))
            }
            "lease" => Ok(Protection::Lease),
            "none" if witnessed => {
                let allowed = "\"lease\" for a group with witnesses";
                Err(self.refuse("group.protection", written, allowed))
            }
            "none" => Ok(Protection::None),
            _ => Err(self.refuse("group.protection", written, allowed)),
        }
    }

    fn guard(&self, group: &file::Group, protection: Protection) -> Checked<bool> {
        match (&group.guard, protection) {
            (Some(written), Protection::None) => {
                let allowed = "only with protection = \"lease\"";
                Err(self.refuse("group.guard", written, allowed))
            }
            (Some(written), Protection::Lease) => Ok(*written.get_ref()),
            (None, _) => Ok(protection == Protection::Lease),
        }
    }

    fn lease(
        &self,
        group: &file::Group,
        protection: Protection,
        heartbeat: Duration,
        suspect_after: Duration,
    ) -> Checked<Duration> {
        if let (Some(written), Protection::None) = (&group.lease, protection) {
            let allowed = "only with protection = \"lease\"";
            return Err(self.refuse("group.lease", written, allowed));
        }
        // One answer may get lost, and one may be late.
        let shortest = heartbeat * 3;
        let range = shortest..=Duration::from_secs(600);
        let default = suspect_after.max(shortest);
        self.duration("group.lease", group.lease.as_ref(), default, range)
    }

    fn drain(&self, group: &file::Group) -> Checked<Duration> {
        let range = Duration::ZERO..=Drain::LONGEST;
        self.duration("group.drain", group.drain.as_ref(), DRAIN, range)
    }

    fn unanswered_after(&self, group: &file::Group) -> Checked<Option<Duration>> {
        let written = group.unanswered_after.as_ref();
        let range = Duration::from_secs(1)..=Duration::from_secs(600);
        let key = "group.unanswered_after";
        let parse = |_: &Spanned<String>| self.duration(key, written, Duration::ZERO, range);
        written.map(parse).transpose()
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
    pub(super) fn apart<'a>(
        &self,
        written: &file::Group,
        group: &GroupSettings,
        groups: impl Iterator<Item = &'a GroupSettings>,
    ) -> Checked<()> {
        for other in groups {
            if other.name == group.name {
                return Err(self.refuse("group.name", &written.name, "each group once"));
            }
            let shared = |vip: &&Vip| other.vips.iter().any(|own| own.address == vip.address);
            if let Some(vip) = group.vips.iter().find(shared) {
                let allowed = format!("{vip} belongs to the group {} already", other.name);
                let at = written.vips.as_ref();
                return Err(at.map_or_else(
                    || self.missing("group.vips", &written.name, allowed.clone()),
                    |vips| self.refuse("group.vips", vips, allowed.clone()),
                ));
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
