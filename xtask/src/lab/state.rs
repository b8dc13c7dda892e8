//! The state file: it names everything a lab makes, before it is made.
//!
//! So whoever comes after a crash can remove it all. It is written to a temporary file and renamed.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Hosts a lab can have: names are the letters a to h.
pub const MOST_HOSTS: usize = 8;
/// The name of the witness, if a lab has one.
pub const WITNESS: &str = "w";
/// The spare of a lab.
pub const SPARE: &str = "s";
/// The client's IPv4 address.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The client's IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
/// The virtual IPv4 address, which belongs to shadowd.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The virtual IPv6 address, which belongs to shadowd.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// Everything a lab made, or was about to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Tells this lab's names from another's.
    pub id: String,
    /// Whether it ends with the process that made it.
    pub tied: bool,
    /// Whether shadowd is installed in the hosts.
    pub installed: bool,
    /// Whether the kernel does not guard the virtual IPs, as a test of the tests.
    #[serde(default)]
    pub unguarded: bool,
    /// Where it keeps its files.
    pub directory: PathBuf,
    /// The read-only root file system below every host's own.
    pub base: PathBuf,
    /// Its cgroup2 control group: what lives in it or below belongs to the lab.
    pub cgroup: PathBuf,
    /// Its control group in the v1 cpu hierarchy, where the machine has one.
    pub cpu_cgroup: Option<PathBuf>,
    /// Whether the machine had no mount at the folder of named network namespaces before.
    pub made_netns_mount: bool,
    /// The network namespace of the bridge.
    pub switch: String,
    /// The network namespace of the client.
    pub client: Option<String>,
    /// The hosts.
    pub hosts: Vec<Host>,
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Its name, also that of its port on the bridge.
    pub name: String,
    /// Whether it is a witness: votes, and never owns the group.
    #[serde(default)]
    pub witness: bool,
    /// Whether it is a spare: owns the group only while it is enlisted.
    #[serde(default)]
    pub spare: bool,
    /// Its own IPv4 address.
    pub v4: Ipv4Addr,
    /// Its own IPv6 address.
    pub v6: Ipv6Addr,
    /// Its own IPv4 address on the second link.
    pub second: Ipv4Addr,
    /// Its network namespace.
    pub namespace: String,
    /// Its files: `upper`, `work`, `root`, `console.log`.
    pub directory: PathBuf,
    /// Its cgroup2 control group.
    pub cgroup: PathBuf,
    /// Its v1 cpu control group.
    pub cpu_cgroup: Option<PathBuf>,
}

/// A host's address on the second link: in the upper half of the network for tests, which has a
/// more specific route than the whole.
fn second(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 128 + number)
}

impl State {
    /// Names everything a new lab will make.
    ///
    /// # Errors
    /// The number of hosts is not 1 to [`MOST_HOSTS`], or the machine has no cgroup2 tree.
    pub fn plan(
        hosts: usize,
        witness: bool,
        client: bool,
        tied: bool,
        base: PathBuf,
    ) -> Result<Self> {
        if !(1..=MOST_HOSTS).contains(&hosts) {
            bail!("{hosts} hosts: allowed are 1 to {MOST_HOSTS}");
        }
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        let id = format!("{:06x}", (nanos >> 10) as u64 & 0xff_ffff);
        let directory = home().join(&id);
        let cgroup = super::cgroup::tree()?.join(format!("shadowd-lab-{id}"));
        let cpu_cgroup =
            super::cgroup::cpu_tree().map(|tree| tree.join(format!("shadowd-lab-{id}")));
        let host = |index: usize| {
            let witness = index == hosts;
            let name = match witness {
                true => WITNESS.to_owned(),
                false => char::from(b'a' + index as u8).to_string(),
            };
            let number = index as u8 + 1;
            Host {
                witness,
                spare: false,
                v4: Ipv4Addr::new(192, 0, 2, number),
                second: second(number),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)),
                namespace: format!("shadowd-{id}-{name}"),
                directory: directory.join(&name),
                cgroup: cgroup.join(&name),
                cpu_cgroup: cpu_cgroup.as_ref().map(|tree| tree.join(&name)),
                name,
            }
        };
        Ok(Self {
            tied,
            installed: false,
            unguarded: false,
            base,
            made_netns_mount: false,
            switch: format!("shadowd-{id}-sw"),
            client: client.then(|| format!("shadowd-{id}-client")),
            hosts: (0..hosts + usize::from(witness)).map(host).collect(),
            directory,
            cgroup,
            cpu_cgroup,
            id,
        })
    }

    /// Adds the spare, as the last host.
    pub fn add_spare(&mut self) {
        let Some(last) = self.hosts.last() else {
            return;
        };
        let (name, number) = (SPARE.to_owned(), self.hosts.len() as u8 + 1);
        let beside = |path: &PathBuf| path.with_file_name(&name);
        self.hosts.push(Host {
            witness: false,
            spare: true,
            v4: Ipv4Addr::new(192, 0, 2, number),
            second: second(number),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)),
            namespace: format!("shadowd-{}-{name}", self.id),
            directory: beside(&last.directory),
            cgroup: beside(&last.cgroup),
            cpu_cgroup: last.cpu_cgroup.as_ref().map(beside),
            name,
        });
    }

    /// The hosts that can own the group, but for the spare.
    pub fn members(&self) -> impl Iterator<Item = &Host> {
        let hosts = self.hosts.iter();
        hosts.filter(|host| !host.witness && !host.spare)
    }

    /// Every network namespace.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        let hosts = self.hosts.iter().map(|host| host.namespace.as_str());
        hosts
            .chain([self.switch.as_str()])
            .chain(self.client.as_deref())
    }

    /// The host of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .with_context(|| {
                let names: Vec<_> = self.hosts.iter().map(|host| host.name.as_str()).collect();
                format!("no host {name:?}: this lab has {}", names.join(", "))
            })
    }

    /// Where the supervisor's control group is.
    pub fn supervisor_cgroup(&self) -> PathBuf {
        self.cgroup.join("supervisor")
    }

    /// Writes the state file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<()> {
        let path = file();
        fs::create_dir_all(home())?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the state file; none when no lab is known.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn load() -> Result<Option<Self>> {
        Self::load_from(&file())
    }

    fn load_from(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
                format!(
                    "{} is damaged: remove what it names by hand",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Forgets the lab, once nothing of it is left.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget() -> Result<()> {
        match fs::remove_file(file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The workspace's target directory.
pub fn target() -> PathBuf {
    let workspace = workspace();
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => workspace.join(path),
        None => workspace.join("target"),
    }
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where labs keep their files.
pub fn home() -> PathBuf {
    target().join("lab")
}

fn file() -> PathBuf {
    home().join("state.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_refuses_a_number_of_hosts_it_cannot_name() {
        assert!(State::plan(0, false, false, false, PathBuf::new()).is_err());
        assert!(State::plan(MOST_HOSTS + 1, false, false, false, PathBuf::new()).is_err());
    }

    #[test]
    fn a_damaged_state_file_is_an_error_and_a_missing_one_is_not() {
        let path = std::env::temp_dir().join(format!("lab-state-{}", std::process::id()));
        assert!(matches!(State::load_from(&path), Ok(None)));
        fs::write(&path, b"{").expect("a temporary file can be written");
        assert!(State::load_from(&path).is_err());
        fs::remove_file(&path).expect("it was just written");
    }
}
