//! Hosts with another configuration, for as long as a test lasts.

use xtask::lab::Host;

use super::*;

/// The pair, all well, with another configuration. Has the one of before when dropped.
pub struct Configured {
    pub pair: Pair,
    before: Vec<(String, String)>,
}

impl Configured {
    /// `change` is given what the configuration of a host is, and all hosts.
    pub fn take(change: impl Fn(String, &[Host]) -> String) -> Result<Self> {
        let mut all = Self {
            pair: Pair::take()?,
            before: Vec::new(),
        };
        let hosts = all.pair.lab.state().hosts.clone();
        for host in &hosts {
            let before = all.pair.lab.run(&host.name, &["cat", CONFIG])?;
            let after = change(before.clone(), &hosts);
            if after != before {
                all.before.push((host.name.clone(), before));
                all.configure(&host.name, &after)?;
            }
        }
        // A restart that is no pause moves the group.
        let active = all.pair.lab.converge(LONG)?;
        if active != all.pair.active {
            let Pair { active, shadow, .. } = &mut all.pair;
            std::mem::swap(active, shadow);
        }
        Ok(all)
    }

    fn configure(&self, host: &str, text: &str) -> Result<()> {
        let lab = &self.pair.lab;
        let pid = ["systemctl", "show", "-P", "MainPID", DAEMON];
        let before = lab.run(host, &pid)?;
        lab.write_file(host, CONFIG, text)?;
        lab.run(host, &["systemctl", "reload", DAEMON])?;
        lab.wait(LONG, "the daemon to be back", || {
            let back = lab.unit_state(host, DAEMON)? == "active" && lab.run(host, &pid)? != before;
            Ok(back && lab.ask(host, &["status"]).is_ok())
        })?;
        lab.converge(LONG).map(drop)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        for (host, _) in &self.before {
            if let Err(error) = self.pair.lab.heal_with(host, &[DAEMON]) {
                eprintln!("host {host} does not heal: {error:#}");
            }
        }
        for (host, before) in std::mem::take(&mut self.before) {
            if let Err(error) = self.configure(&host, &before) {
                eprintln!("host {host} keeps its configuration: {error:#}");
            }
        }
    }
}
