//! The two systems that are compared. One runs at a time; a switch is complete when the kernels of
//! all hosts have let the virtual IPs go.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;

use super::keepalived;
use crate::lab::interrupt;
use crate::lab::{DAEMON, GROUP, Host, Lab, PEER, VIP_V4, VIP_V6, WARM, boot_ns};

/// How long a system may take until all is well, on a busy machine.
pub const TO_SETTLE: Duration = Duration::from_secs(60);
/// How long it may take to end.
const TO_END: Duration = Duration::from_secs(30);
/// Members of the pair; hosts beyond them (a witness) run shadowd alone.
const MEMBERS: usize = 2;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// keepalived: the peer.
    Keepalived,
    /// shadowd: ours.
    Shadowd,
}

/// The hosts that can own the virtual IPs.
pub fn members(lab: &Lab) -> Vec<&Host> {
    lab.state().hosts.iter().take(MEMBERS).collect()
}

/// Their names.
pub fn member_names(lab: &Lab) -> Vec<String> {
    let members = members(lab).into_iter();
    members.map(|host| host.name.clone()).collect()
}

/// The member that is not `active`.
///
/// # Errors
/// The lab has one host only.
pub fn standby(lab: &Lab, active: &str) -> Result<String> {
    let mut names = member_names(lab).into_iter();
    names
        .find(|name| name != active)
        .context("a pair has two hosts")
}

impl System {
    /// In the order of turns.
    pub const BOTH: [Self; 2] = [Self::Keepalived, Self::Shadowd];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keepalived => "keepalived",
            Self::Shadowd => "shadowd",
        }
    }

    /// Its unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Keepalived => PEER,
            Self::Shadowd => DAEMON,
        }
    }

    /// The hosts that it runs on.
    fn hosts(self, lab: &Lab) -> Vec<String> {
        match self {
            Self::Keepalived => member_names(lab),
            Self::Shadowd => {
                let hosts = lab.state().hosts.iter();
                hosts.map(|host| host.name.clone()).collect()
            }
        }
    }

    /// Starts it everywhere; gives who is active once all is well.
    ///
    /// # Errors
    /// It does not start, or nobody becomes active.
    pub fn begin(self, lab: &Lab) -> Result<String> {
        for (place, host) in self.hosts(lab).iter().enumerate() {
            lab.run(host, &["systemctl", "start", "--no-block", self.unit()])?;
            if self == Self::Keepalived && place == 0 {
                // Its instances know nothing of each other: started together, one family could
                // settle on either host.
                let what = "keepalived to be master of both families";
                lab.wait(TO_SETTLE, what, || keepalived::is_master(lab, host))?;
            }
        }
        self.settle(lab)
    }

    /// Waits until all is well; gives who is active.
    ///
    /// # Errors
    /// It is not within [`TO_SETTLE`]; the message says what was not.
    pub fn settle(self, lab: &Lab) -> Result<String> {
        let what = format!("{} to be well", self.name());
        let mut last = Err(anyhow!("not looked at"));
        let waited = lab.wait(TO_SETTLE, &what, || {
            last = self.well(lab);
            Ok(last.is_ok())
        });
        match (waited, last) {
            (Ok(()), last) => last,
            (Err(late), Err(reason)) => Err(reason.context(late.to_string())),
            (Err(late), Ok(_)) => Err(late),
        }
    }

    /// Prints why `host` has become active; keepalived keeps no record of it.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn explain(self, lab: &Lab, host: &str, what: &str) -> Result<()> {
        if self == Self::Shadowd {
            println!("{what}, as host {host} explains it:");
            println!("{}", lab.run(host, &["shadowctl", "failover", "explain"])?);
        }
        Ok(())
    }

    fn well(self, lab: &Lab) -> Result<String> {
        match self {
            Self::Keepalived => keepalived::well(lab),
            Self::Shadowd => {
                // A daemon that still loads its probes has other things to do.
                for host in self.hosts(lab) {
                    ensure!(probes_loaded(lab, &host)?, "host {host} still loads probes");
                }
                lab.well()
            }
        }
    }

    /// Ends it everywhere, the active last, and waits until no kernel holds a virtual IP.
    ///
    /// # Errors
    /// It does not end, or leaves an address.
    pub fn end(self, lab: &Lab) -> Result<()> {
        let holders = lab.holders(VIP_V4.into())?;
        let mut hosts = self.hosts(lab);
        hosts.sort_by_key(|host| holders.contains(host));
        for host in &hosts {
            lab.run(host, &["systemctl", "stop", self.unit()])?;
            if self == Self::Shadowd {
                // The kernel would keep the addresses silent for whoever comes next, too.
                lab.run(host, &["shadowd", "--remove-guards"])?;
            }
        }
        let left = || -> Result<Vec<String>> {
            let vips = [IpAddr::from(VIP_V4), IpAddr::from(VIP_V6)];
            let held: Result<Vec<_>> = vips.into_iter().map(|vip| lab.holders(vip)).collect();
            Ok(held?.concat())
        };
        let what = format!("the virtual IPs to be gone after {}", self.name());
        let gone = || lab.wait(TO_END, &what, || Ok(left()?.is_empty()));
        if self == Self::Keepalived && gone().is_err() {
            interrupt::check()?;
            let holders = left()?;
            println!("keepalived has ended and left its addresses on {holders:?}: removed");
            holders
                .iter()
                .try_for_each(|host| keepalived::remove_addresses(lab, host))?;
        }
        gone().with_context(|| format!("still held by {:?}", left().unwrap_or_default()))
    }

    /// Asks for a planned handover; gives the moment before, on `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// It is refused.
    pub fn hand_over(self, lab: &Lab, from: &str) -> Result<u64> {
        let at = boot_ns()?;
        match self {
            Self::Keepalived => keepalived::let_go(lab, from)?,
            Self::Shadowd => {
                lab.run(from, &["shadowctl", "failover", "handover", GROUP])?;
            }
        }
        Ok(at)
    }

    /// Undoes what was done to a host, and starts what ended there.
    ///
    /// # Errors
    /// A step fails.
    pub fn heal(self, lab: &Lab, host: &str) -> Result<()> {
        lab.heal_with(host, &[WARM, self.unit()])?;
        match self {
            Self::Keepalived => keepalived::allow(lab, host),
            Self::Shadowd => Ok(()),
        }
    }
}

fn probes_loaded(lab: &Lab, host: &str) -> Result<bool> {
    let status = lab.ask(host, &["status"])?;
    let probes = status["capture"]["probes"].as_array();
    Ok(probes.is_some_and(|probes| {
        !probes.is_empty()
            && probes
                .iter()
                .all(|probe| !probe["hook"].is_null() || !probe["degraded"].is_null())
    }))
}
