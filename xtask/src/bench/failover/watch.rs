//! Who holds the IPv4 virtual IP, from moment to moment, as the hosts' kernels say.
//!
//! Both systems are seen the same way, also while a host starves: nothing runs inside it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::stages::span_ms;
use crate::lab::{Lab, VIP_V4, boot_ns};

/// Watches all hosts until it is dropped.
pub struct Watch {
    children: Vec<Child>,
    changes: Receiver<Change>,
}

struct Change {
    at_ns: u64,
    host: String,
    added: bool,
}

impl Watch {
    /// Begins to watch every host of the lab.
    ///
    /// # Errors
    /// `ip` cannot be started.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (sender, changes) = mpsc::channel();
        let mut watch = Self {
            children: Vec::new(),
            changes,
        };
        for host in &lab.state().hosts {
            // In the lab's own control group, so that it ends with the lab, whatever ends this.
            let line = "echo 0 > \"$0/cgroup.procs\" && exec ip -n \"$1\" -o monitor address";
            let mut child = Command::new("sh")
                .args(["-c", line])
                .arg(lab.state().supervisor_cgroup())
                .arg(&host.namespace)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .context("cannot start `ip monitor`")?;
            let output = child.stdout.take().context("the output is piped")?;
            watch.children.push(child);
            let (sender, host) = (sender.clone(), host.name.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let (Some(added), Ok(at_ns)) = (reading(&line), boot_ns()) else {
                        continue;
                    };
                    let host = host.clone();
                    if sender.send(Change { at_ns, host, added }).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(watch)
    }

    /// Forgets what was seen, and begins with who holds the address now.
    ///
    /// # Errors
    /// The hosts' kernels cannot be asked.
    pub fn begin(&self, lab: &Lab) -> Result<Holding> {
        while self.changes.try_recv().is_ok() {}
        let held = lab.holders(VIP_V4.into())?.into_iter().collect();
        Ok(Holding::new(held, boot_ns()?))
    }

    /// Adds what was seen since, up to now.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn update(&self, holding: &mut Holding) -> Result<()> {
        for change in self.changes.try_iter() {
            holding.change(&change);
        }
        holding.pass(boot_ns()?);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a line of `ip -o monitor address` says that the address came or went.
fn reading(line: &str) -> Option<bool> {
    let (added, rest) = match line.strip_prefix("Deleted ") {
        Some(rest) => (false, rest),
        None => (true, line),
    };
    let mut words = rest.split_whitespace().skip_while(|word| *word != "inet");
    let address = words.nth(1)?.split('/').next()?;
    (address == VIP_V4.to_string()).then_some(added)
}

/// Who held the address, from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    held: BTreeSet<String>,
    since_ns: u64,
    gains: Vec<(u64, String)>,
    /// Who got it last: if that host loses it and gets it again, it has not moved.
    last: Option<String>,
    regains: u32,
    none_ns: u64,
    two_ns: u64,
}

/// A host that got the address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// After the moment in question.
    pub after_ms: f64,
    /// Its name.
    pub host: String,
}

impl Holding {
    fn new(held: BTreeSet<String>, since_ns: u64) -> Self {
        Self {
            last: held.first().filter(|_| held.len() == 1).cloned(),
            held,
            since_ns,
            gains: Vec::new(),
            regains: 0,
            none_ns: 0,
            two_ns: 0,
        }
    }

    fn change(&mut self, change: &Change) {
        self.pass(change.at_ns);
        if change.added {
            // An address that is only refreshed is announced as new too.
            if self.held.insert(change.host.clone()) {
                let before = self.last.replace(change.host.clone());
                match before.as_ref() == Some(&change.host) {
                    true => self.regains += 1,
                    false => self.gains.push((change.at_ns, change.host.clone())),
                }
            }
        } else {
            self.held.remove(&change.host);
        }
    }

    /// Nothing changes up to `now_ns`.
    fn pass(&mut self, now_ns: u64) {
        let span = now_ns.saturating_sub(self.since_ns);
        // Two threads read the two hosts: a change can come a little out of order.
        self.since_ns = self.since_ns.max(now_ns);
        match self.held.len() {
            0 => self.none_ns += span,
            1 => {}
            _ => self.two_ns += span,
        }
    }

    /// The hosts that got the address since `at_ns` from another one, in order.
    pub fn gains_since(&self, at_ns: u64) -> Vec<Gain> {
        let since = self.gains.iter().filter(|(time, _)| *time >= at_ns);
        since
            .map(|(time, host)| Gain {
                after_ms: span_ms(at_ns, *time),
                host: host.clone(),
            })
            .collect()
    }

    /// How often a host lost it and got it again, and none in between.
    pub fn regains(&self) -> u32 {
        self.regains
    }

    /// How long no host held it.
    pub fn no_holder_ms(&self) -> f64 {
        self.none_ns as f64 / 1e6
    }

    /// How long more than one host held it.
    pub fn two_holders_ms(&self) -> f64 {
        self.two_ns as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_address_are_told_from_others() {
        let line = "2: eth0    inet 192.0.2.10/24 scope global secondary eth0\\       valid_lft";
        assert_eq!(reading(line), Some(true));
        assert_eq!(reading(&format!("Deleted {line}")), Some(false));
        assert_eq!(reading("2: eth0    inet 192.0.2.100/24 scope global"), None);
        assert_eq!(
            reading("2: eth0    inet6 2001:db8::10/64 scope global"),
            None
        );
    }

    #[test]
    fn gains_and_the_times_with_two_holders_or_none_are_counted_once() {
        let mut holding = Holding::new(BTreeSet::from(["a".to_owned()]), 1_000_000);
        for (ms, host, added) in [
            (10, "b", true),
            (12, "b", true), // a refresh
            (15, "a", false),
            (30, "a", true),
            (32, "b", false),
            (33, "a", false),
            (33, "a", true), // it has not moved
            (33, "a", false),
        ] {
            let (at_ns, host) = (ms * 1_000_000, host.to_owned());
            holding.change(&Change { at_ns, host, added });
        }
        let gains = holding.gains_since(20_000_000);
        assert_eq!((gains.len(), gains[0].after_ms), (1, 10.0));
        assert_eq!((holding.gains_since(0).len(), holding.regains()), (2, 1));
        holding.pass(40_000_000);
        assert_eq!(holding.two_holders_ms(), 7.0);
        assert_eq!(holding.no_holder_ms(), 7.0);
    }
}
