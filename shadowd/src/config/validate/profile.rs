//! Profiles: what is learned, what may leave the host, what shadowd may do.

use std::time::Duration;

use toml::Spanned;

use super::{Checked, Source};
use crate::config::file;
use crate::config::pattern::Glob;
use crate::config::profile::{ProfileSettings, Provision, ProvisionSettings};

/// Patterns and names of one list.
const MAX_PATTERNS: usize = 128;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);

impl Source<'_> {
    /// What `[group.profile]` says.
    pub(super) fn profile(&self, group: &file::Group) -> Checked<ProfileSettings> {
        let (table, default) = (&group.profile, ProfileSettings::default());
        let settle = self.duration(
            "group.profile.settle",
            table.settle.as_ref(),
            default.settle,
            SECOND..=DAY,
        )?;
        let forget = self.duration(
            "group.profile.forget",
            table.forget.as_ref(),
            default.forget.max(settle),
            settle..=28 * DAY,
        )?;
        let globs = |key, written, default| self.globs(key, written, default);
        Ok(ProfileSettings {
            learn: table.learn.unwrap_or(default.learn),
            units: globs("group.profile.units", &table.units, default.units)?,
            settle,
            forget,
            replicate: globs(
                "group.profile.replicate",
                &table.replicate,
                default.replicate,
            )?,
            secret: globs("group.profile.secret", &table.secret, default.secret)?,
            ignore: globs("group.profile.ignore", &table.ignore, default.ignore)?,
            parameters: self.parameters(table, default.parameters)?,
            provision: self.provision(&table.provision)?,
        })
    }

    fn globs(
        &self,
        key: &'static str,
        written: &Option<Spanned<Vec<Spanned<String>>>>,
        default: Vec<Glob>,
    ) -> Checked<Vec<Glob>> {
        let Some(list) = written else {
            return Ok(default);
        };
        if list.get_ref().len() > MAX_PATTERNS {
            return Err(self.refuse(key, list, "at most 128 patterns"));
        }
        let globs = list.get_ref().iter();
        globs.map(|one| self.parsed(key, one)).collect()
    }

    fn parameters(&self, table: &file::Profile, default: Vec<String>) -> Checked<Vec<String>> {
        let key = "group.profile.parameters";
        let Some(list) = &table.parameters else {
            return Ok(default);
        };
        if list.get_ref().len() > MAX_PATTERNS {
            return Err(self.refuse(key, list, "at most 128 parameters"));
        }
        let legal = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            !name.is_empty() && name.chars().all(plain) && !name.contains("..")
        };
        let names = list.get_ref().iter();
        names
            .map(|name| match legal(name.get_ref()) {
                true => Ok(name.get_ref().clone()),
                false => {
                    let allowed = "names as sysctl has them, such as \"net.core.somaxconn\"";
                    Err(self.refuse(key, name, allowed))
                }
            })
            .collect()
    }

    fn provision(&self, table: &file::Provision) -> Checked<ProvisionSettings> {
        let one = |key, written: &Option<Spanned<String>>| self.how_far(key, written.as_ref());
        Ok(ProvisionSettings {
            files: one("group.profile.provision.files", &table.files)?,
            packages: one("group.profile.provision.packages", &table.packages)?,
            units: one("group.profile.provision.units", &table.units)?,
            parameters: one("group.profile.provision.parameters", &table.parameters)?,
            cache: one("group.profile.provision.cache", &table.cache)?,
            firewall: one("group.profile.provision.firewall", &table.firewall)?,
        })
    }

    fn how_far(&self, key: &'static str, written: Option<&Spanned<String>>) -> Checked<Provision> {
        let Some(written) = written else {
            return Ok(Provision::default());
        };
        match written.get_ref().as_str() {
            "observe" => Ok(Provision::Observe),
            "suggest" => Ok(Provision::Suggest),
            "apply" => Ok(Provision::Apply),
            _ => {
                let allowed = "\"observe\", \"suggest\" or \"apply\"";
                Err(self.refuse(key, written, allowed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::Settings;

    fn settings(profile: &str) -> Result<Settings, String> {
        let id = crate::facts::HostId::from_bytes([7; 32]);
        let text = format!(
            "[host]\nname = \"a\"\nlisten = \"192.0.2.1:7373\"\n\
             [[peer]]\nname = \"b\"\nid = \"{id}\"\naddress = \"192.0.2.2:7373\"\n\
             [[group]]\nname = \"web\"\nmembers = [\"a\", \"b\"]\npriority = 100\n\
             protection = \"none\"\ninterface = \"eth0\"\nvips = [\"192.0.2.10/24\"]\n\
             heartbeat = \"10ms\"\n{profile}"
        );
        let parsed = crate::config::parse(&text, Path::new("shadowd.toml"));
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_all_is_learned_and_nothing_is_done_or_sent() {
        let profile = settings("").expect("it is valid").profiles.remove(0);
        assert_eq!(profile, ProfileSettings::default());
        assert!(profile.replicate.is_empty());
        assert_eq!(profile.provision.files, Provision::Suggest);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_named() {
        let text = "[group.profile]\nsettle = \"20s\"\nreplicate = [\"/etc/app/*\"]\n\
                    parameters = [\"vm.swappiness\"]\n[group.profile.provision]\nfiles = \"apply\"\n";
        let profile = settings(text).expect("it is valid").profiles.remove(0);
        assert_eq!(profile.settle, Duration::from_secs(20));
        assert!(profile.replicate[0].matches("/etc/app/a.conf"));
        assert_eq!(profile.parameters, ["vm.swappiness"]);
        assert_eq!(profile.provision.files, Provision::Apply);
        for (bad, named) in [
            ("[group.profile]\nsettle = \"0s\"\n", "group.profile.settle"),
            (
                "[group.profile]\nparameters = [\"../x\"]\n",
                "group.profile.parameters",
            ),
            (
                "[group.profile]\nreplicate = [\"\"]\n",
                "group.profile.replicate",
            ),
            (
                "[group.profile.provision]\nfiles = \"yes\"\n",
                "group.profile.provision.files",
            ),
            (
                "[group.profile.provision]\ncache = \"on\"\n",
                "group.profile.provision.cache",
            ),
            (
                "[group.profile.provision]\nfirewall = \"\"\n",
                "group.profile.provision.firewall",
            ),
        ] {
            let error = settings(bad).err().unwrap_or_default();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }
}
