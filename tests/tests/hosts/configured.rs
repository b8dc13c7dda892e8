//! A pair with another configuration for as long as a test lasts.

use xtask::lab::Host;

use super::*;

/// A pair whose members have another configuration; they have their own again when dropped.
pub struct Configured {
    pub pair: Pair,
    before: Vec<(String, String)>,
}

impl Configured {
    /// Both members have more at the end of it.
    pub fn with(tables: &str) -> Result<Self> {
        Self::changed(|text| format!("{text}\n{tables}\n"))
    }

    /// Both members have it changed.
    pub fn changed(change: impl Fn(&str) -> String) -> Result<Self> {
        let pair = Pair::take()?;
        // The shadow first: the group moves at most once.
        let hosts = vec![pair.shadow.clone(), pair.active.clone()];
        Self::changed_on(pair, hosts, change)
    }

    /// All hosts have it changed, and bear what a machine does that is shared with others: it stands
    /// still for longer than the lab's heartbeats allow, and each time the group would move.
    pub fn patient(change: impl Fn(&str) -> String) -> Result<Self> {
        Self::patient_on(Pair::take()?, change)
    }

    /// The same of a pair that was taken already.
    pub fn patient_on(pair: Pair, change: impl Fn(&str) -> String) -> Result<Self> {
        let quick = "heartbeat = \"10ms\"\nsuspect_after = \"27ms\"";
        let slow = "heartbeat = \"100ms\"\nsuspect_after = \"2s\"";
        let witnesses = pair.lab.state().hosts.iter().filter(|host| host.witness);
        let mut hosts: Vec<String> = witnesses.map(|host| host.name.clone()).collect();
        hosts.extend([pair.shadow.clone(), pair.active.clone()]);
        let patient = Self::changed_on(pair, hosts, |text| change(&text.replace(quick, slow)))?;
        let mut texts = patient.before.iter().map(|(_, text)| text);
        ensure!(texts.all(|text| text.contains(quick)), "another lab");
        Ok(patient)
    }

    fn changed_on(pair: Pair, hosts: Vec<String>, change: impl Fn(&str) -> String) -> Result<Self> {
        let mut configured = Self {
            pair,
            before: Vec::new(),
        };
        for host in hosts {
            configured.change(&host, &change)?;
        }
        configured.settled()
    }

    fn settled(mut self) -> Result<Self> {
        self.settle()?;
        Ok(self)
    }

    /// Finds out who is active, after what may have moved the group.
    pub fn settle(&mut self) -> Result<()> {
        let active = self.pair.lab.converge(LONG)?;
        if active != self.pair.active {
            let pair = &mut self.pair;
            std::mem::swap(&mut pair.active, &mut pair.shadow);
        }
        self.wait_for_short_promises()
    }

    /// Every host, witnesses too, has it changed: `change` is given what it is, and all hosts.
    pub fn everywhere(change: impl Fn(&str, &[Host]) -> String) -> Result<Self> {
        let mut configured = Self {
            pair: Pair::take()?,
            before: Vec::new(),
        };
        let hosts = configured.pair.lab.state().hosts.clone();
        for host in &hosts {
            configured.change(&host.name, |text| change(text, &hosts))?;
        }
        configured.settled()
    }

    /// The shadow alone has more at the end of it.
    pub fn shadow_with(tables: &str) -> Result<Self> {
        let pair = Pair::take()?;
        let shadow = pair.shadow.clone();
        let mut configured = Self {
            pair,
            before: Vec::new(),
        };
        configured.change(&shadow, |text| format!("{text}\n{tables}\n"))?;
        Ok(configured)
    }

    fn change(&mut self, host: &str, change: impl Fn(&str) -> String) -> Result<()> {
        let lab = &self.pair.lab;
        let text = lab.run(host, &["cat", CONFIG])?;
        // What earlier tests told and drilled.
        let clean = "rm -f /run/told* /var/lib/shadowd/drills.json";
        lab.run(host, &["sh", "-c", clean])?;
        let changed = change(&text);
        self.before.push((host.to_owned(), text));
        self.write(host, &changed)
    }

    fn write(&self, host: &str, text: &str) -> Result<()> {
        let lab = &self.pair.lab;
        lab.write_file(host, CONFIG, text)?;
        lab.run(host, &["systemctl", "restart", DAEMON])?;
        lab.converge(LONG).map(drop)
    }

    /// For a restart the voters keep everybody else out for seconds: a shadow could not take over.
    pub fn wait_for_short_promises(&self) -> Result<()> {
        let lab = &self.pair.lab;
        lab.wait(LONG, "the promises for a restart to end", || {
            // It may move meanwhile, where a better member gets it back.
            let Ok(active) = lab.well() else {
                return Ok(false);
            };
            let status = lab.ask(&active, &["status"])?;
            let soon = status["now"].as_u64().context("a time")? + 1_000_000_000;
            let deadline = status["groups"][0]["deadline"].as_u64();
            let lease = status["groups"][0]["lease"]["length_ns"].as_u64();
            let soon = soon + lease.unwrap_or_default();
            Ok(deadline.is_some_and(|deadline| deadline < soon))
        })
    }

    /// Waits until a file of a host says it.
    pub fn says(&self, host: &str, path: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        let mut said = String::new();
        let what = format!("{path} of host {host}");
        let waited = self.pair.lab.wait(LONG, &what, || {
            let output = self.pair.lab.exec(host, &["cat", path])?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(output.status.success() && holds(&said))
        });
        waited.with_context(|| format!("it says: {said}"))?;
        Ok(said)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // A test that failed may have left a fault.
        for (host, _) in &self.before {
            if let Err(error) = self.pair.lab.heal_with(host, &[DAEMON]) {
                eprintln!("host {host} does not heal: {error:#}");
            }
        }
        // Or a live drill: the group has to come back by itself.
        for (host, _) in &self.before {
            let end = ["shadowctl", "failover", "drill", GROUP, "--end"];
            let _ = self.pair.lab.exec(host, &end);
        }
        for (host, text) in &self.before {
            if let Err(error) = self.write(host, text) {
                eprintln!("host {host} has not its configuration: {error:#}");
            }
        }
        // Or the next test finds that nobody can take over for seconds.
        if let Err(error) = self.wait_for_short_promises() {
            eprintln!("the promises for a restart do not end: {error:#}");
        }
    }
}
