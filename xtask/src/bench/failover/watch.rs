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
        Ok(Holding {
            held,
            gains: Vec::new(),
            two_since: None,
            two_ns: 0,
        })
    }

    /// Adds what was seen since.
    pub fn update(&self, holding: &mut Holding) {
        for change in self.changes.try_iter() {
            holding.change(&change);
        }
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
    gains: Vec<(u64, String)>,
    two_since: Option<u64>,
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
    fn change(&mut self, change: &Change) {
        if change.added {
            // An address that is only refreshed is announced as new too.
            if self.held.insert(change.host.clone()) {
                self.gains.push((change.at_ns, change.host.clone()));
            }
        } else {
            self.held.remove(&change.host);
        }
        match (self.held.len() > 1, self.two_since) {
            (true, None) => self.two_since = Some(change.at_ns),
            (false, Some(since)) => {
                self.two_ns += change.at_ns.saturating_sub(since);
                self.two_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The hosts that got the address since `at_ns`, in order.
    pub fn gains_since(&self, at_ns: u64) -> Vec<Gain> {
        let since = self.gains.iter().filter(|(time, _)| *time >= at_ns);
        since
            .map(|(time, host)| Gain {
                after_ms: span_ms(at_ns, *time),
                host: host.clone(),
            })
            .collect()
    }

    /// How long more than one host held it, up to `now_ns`.
    pub fn two_holders_ms(&self, now_ns: u64) -> f64 {
        let open = self
            .two_since
            .map_or(0, |since| now_ns.saturating_sub(since));
        (self.two_ns + open) as f64 / 1e6
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
    fn gains_and_the_time_with_two_holders_are_counted_once() {
        let mut holding = Holding {
            held: BTreeSet::from(["a".to_owned()]),
            gains: Vec::new(),
            two_since: None,
            two_ns: 0,
        };
        for (ms, host, added) in [
            (10, "b", true),
            (12, "b", true), // a refresh
            (15, "a", false),
            (30, "a", true),
        ] {
            let (at_ns, host) = (ms * 1_000_000, host.to_owned());
            holding.change(&Change { at_ns, host, added });
        }
        let gains = holding.gains_since(20_000_000);
        assert_eq!((gains.len(), gains[0].after_ms), (1, 10.0));
        assert_eq!(holding.gains_since(0).len(), 2);
        assert_eq!(holding.two_holders_ms(32_000_000), 7.0);
    }
}
