//! Drills: what is brought up, what is demanded of it, and when.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use toml::Spanned;

use super::{Checked, Source};
use crate::config::drill::{CheckKind, CheckSettings, DrillSettings};
use crate::config::file;
use crate::config::notify::CommandSettings;
use crate::config::settings::GroupSettings;
use crate::facts::Name;

const MAX_CHECKS: usize = 32;
const MAX_SCRATCH: usize = 16;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Source<'_> {
    /// How takeovers of one group are rehearsed.
    pub(super) fn drill(
        &self,
        written: &file::Group,
        group: &GroupSettings,
    ) -> Checked<DrillSettings> {
        let drill = &written.drill;
        let deadline = self.duration(
            "group.drill.deadline",
            drill.deadline.as_ref(),
            SECOND * 120,
            SECOND * 5..=HOUR,
        )?;
        let every = drill.every.as_ref();
        let each = |_: &Spanned<String>| {
            self.duration("group.drill.every", every, Duration::ZERO, HOUR..=YEAR)
        };
        if let (Some(window), None) = (&drill.window, every) {
            let allowed = "only with every, such as every = \"1day\"";
            return Err(self.refuse("group.drill.window", window, allowed));
        }
        let window = drill.window.as_ref();
        let window = window.map(|written| self.window("group.drill.window", written));
        Ok(DrillSettings {
            deadline,
            units: self.drilled(drill.units.as_ref(), group)?,
            scratch: self.scratch(drill.scratch.as_ref())?,
            checks: self.checks(&written.check, group)?,
            every: every.map(each).transpose()?,
            window: window.transpose()?,
            return_within: self.duration(
                "group.drill.return_within",
                drill.return_within.as_ref(),
                SECOND * 600,
                SECOND * 10..=HOUR * 24,
            )?,
        })
    }

    fn drilled(
        &self,
        written: Option<&Spanned<Vec<Spanned<String>>>>,
        group: &GroupSettings,
    ) -> Checked<Vec<Name>> {
        let names = group.units.iter().map(|unit| unit.name.clone());
        let Some(written) = written else {
            return Ok(names.collect());
        };
        let names: Vec<Name> = names.collect();
        let known = |name: &&Spanned<String>| {
            let mut names = names.iter();
            names.any(|known| known.as_str() == name.get_ref())
        };
        if let Some(unknown) = written.get_ref().iter().find(|name| !known(name)) {
            return Err(self.refuse("group.drill.units", unknown, "a unit of the group"));
        }
        let wanted = |name: &Name| {
            let mut wanted = written.get_ref().iter();
            wanted.any(|wanted| wanted.get_ref() == name.as_str())
        };
        Ok(names.into_iter().filter(wanted).collect())
    }

    fn scratch(&self, written: Option<&Spanned<Vec<Spanned<String>>>>) -> Checked<Vec<PathBuf>> {
        let Some(written) = written else {
            return Ok(Vec::new());
        };
        if written.get_ref().len() > MAX_SCRATCH {
            return Err(self.refuse("group.drill.scratch", written, "at most 16 directories"));
        }
        let checked = written.get_ref().iter().map(|path| {
            if is_scratch(path.get_ref()) {
                return Ok(PathBuf::from(path.get_ref()));
            }
            let allowed = "the absolute path of a directory below /var, /srv, /opt, /home or \
                           /usr/local, of printable characters without space, : and ..";
            Err(self.refuse("group.drill.scratch", path, allowed))
        });
        checked.collect()
    }

    fn checks(
        &self,
        written: &[file::Check],
        group: &GroupSettings,
    ) -> Checked<Vec<CheckSettings>> {
        let mut names = BTreeSet::new();
        let mut checks = Vec::new();
        for check in written {
            let text = check.name.get_ref();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if text.is_empty() || text.len() > 32 || !text.bytes().all(plain) {
                let allowed = "1 to 32 letters, digits, - and _";
                return Err(self.refuse("group.check.name", &check.name, allowed));
            }
            if !names.insert(text) || names.len() > MAX_CHECKS {
                let allowed = "each check of a group has a name of its own, at most 32 of them";
                return Err(self.refuse("group.check.name", &check.name, allowed));
            }
            checks.push(self.check(check, group)?);
        }
        Ok(checks)
    }

    fn check(&self, check: &file::Check, group: &GroupSettings) -> Checked<CheckSettings> {
        let deadline = self.duration(
            "group.check.deadline",
            check.deadline.as_ref(),
            SECOND * 10,
            SECOND..=HOUR,
        )?;
        if let (Some(status), None) = (&check.status, &check.http) {
            return Err(self.refuse("group.check.status", status, "only with http"));
        }
        if let (Some(user), None) = (&check.user, &check.command) {
            return Err(self.refuse("group.check.user", user, "only with command"));
        }
        let kind = match (&check.command, &check.tcp, &check.http) {
            (Some(command), None, None) => {
                let user = check.user.as_ref();
                CheckKind::Command(CommandSettings {
                    command: self.command("group.check.command", command)?,
                    user: user
                        .map(|user| self.user("group.check.user", user))
                        .transpose()?,
                    deadline,
                })
            }
            (None, Some(tcp), None) => CheckKind::Tcp(self.socket_address("group.check.tcp", tcp)?),
            (None, None, Some(http)) => self.http(http, check.status.as_ref())?,
            _ => {
                let allowed = "a check has one of command = [\"/PROGRAM\", ...], \
                               tcp = \"ADDRESS:PORT\" and http = \"http://ADDRESS/\"";
                return Err(self.refuse("group.check.name", &check.name, allowed));
            }
        };
        Ok(CheckSettings {
            name: self.parsed("group.check.name", &check.name)?,
            live: self.live(check.live.as_ref(), &kind, group)?,
            kind,
            deadline,
        })
    }

    fn live(
        &self,
        written: Option<&Spanned<bool>>,
        kind: &CheckKind,
        group: &GroupSettings,
    ) -> Checked<bool> {
        let at = match kind {
            CheckKind::Command(_) => return Ok(written.is_some_and(|live| *live.get_ref())),
            CheckKind::Tcp(at) | CheckKind::Http { at, .. } => at.ip(),
        };
        let virtual_ip = group.vips.iter().any(|vip| vip.address == at);
        match written {
            Some(live) if *live.get_ref() && !virtual_ip => {
                let allowed = "only for a virtual IP of the group: another address is not the \
                               active's";
                Err(self.refuse("group.check.live", live, allowed))
            }
            Some(live) => Ok(*live.get_ref()),
            None => Ok(virtual_ip),
        }
    }

    fn http(&self, written: &Spanned<String>, status: Option<&Spanned<i64>>) -> Checked<CheckKind> {
        let Some((at, authority, path)) = url(written.get_ref()) else {
            let allowed = "http:// with an address, since names are not resolved in a drill, \
                           such as http://192.0.2.10/health";
            return Err(self.refuse("group.check.http", written, allowed));
        };
        let legal = |status: &u16| (100..600).contains(status);
        let status = match status {
            None => 200,
            Some(written) => u16::try_from(*written.get_ref())
                .ok()
                .filter(legal)
                .ok_or_else(|| self.refuse("group.check.status", written, "from 100 to 599"))?,
        };
        Ok(CheckKind::Http {
            at,
            authority,
            path,
            status,
        })
    }
}

/// A directory that may be hidden from a service without hiding what it runs from.
fn is_scratch(path: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let below = ["/var/", "/srv/", "/opt/", "/home/", "/usr/local/"];
    path.bytes().all(legal)
        && Path::new(path).components().all(plain)
        && below
            .iter()
            .any(|root| path.strip_prefix(root).is_some_and(|rest| !rest.is_empty()))
}

fn url(text: &str) -> Option<(SocketAddr, String, String)> {
    let uri: Uri = text.parse().ok()?;
    if uri.scheme_str() != Some("http") || uri.authority()?.as_str().contains('@') {
        return None;
    }
    let host = uri.host()?;
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    let at = SocketAddr::new(address, uri.port_u16().unwrap_or(80));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let legal = at.port() != 0 && !address.is_unspecified() && !address.is_multicast();
    legal.then(|| {
        (
            at,
            uri.authority().map(ToString::to_string).unwrap_or_default(),
            path.to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_an_address_since_there_is_no_resolver() {
        let read = |text: &str| url(text).map(|(at, _, path)| (at.to_string(), path));
        let at = |at: &str, path: &str| Some((at.to_owned(), path.to_owned()));
        assert_eq!(read("http://192.0.2.10"), at("192.0.2.10:80", "/"));
        assert_eq!(
            read("http://[2001:db8::10]:8080/a?b"),
            at("[2001:db8::10]:8080", "/a?b")
        );
        for bad in [
            "https://192.0.2.10/",
            "http://example.com/",
            "http://me@192.0.2.10/",
            "http://0.0.0.0/",
            "192.0.2.10:80",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn scratch_hides_no_programs_and_no_configuration() {
        for good in ["/var/lib/nginx", "/srv/data"] {
            assert!(is_scratch(good), "{good}");
        }
        for bad in [
            "/",
            "/etc/x",
            "/usr/lib",
            "/var/",
            "/var/../etc",
            "/var/a:b",
            "var/x",
            "/run/x",
        ] {
            assert!(!is_scratch(bad), "{bad}");
        }
    }
}
