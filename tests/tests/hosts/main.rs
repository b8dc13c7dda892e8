//! Every fault on real hosts with a real systemd, and every bad input to a real daemon.
//!
//! Needs a lab that is up: `cargo xtask test hosts` starts one and ends it. Each test begins and
//! ends with a pair that is well: one active, one shadow that could take over, the virtual IPs and
//! the cold unit on the active alone. Nothing sleeps: each step waits on a condition.

#![cfg(feature = "hosts")]

mod capture;
mod configured;
mod detection;
mod drill;
mod explain;
mod faults;
mod golden;
mod groups;
mod hooks;
mod input;
mod live;
mod paths;
mod policy;
mod profile;
mod provision;
mod redundancy;
mod restart;
mod wire;

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask::lab::command::{SHORT, run};
use xtask::lab::{COLD, CONFIG, DAEMON, Fault, GROUP, Lab, VIP_V4, VIP_V6, WARM};

const SOCKET: &str = "/run/shadowd/shadowd.sock";
/// How long anything may take on a busy machine before it counts as broken.
const LONG: Duration = Duration::from_secs(60);
const TAKEOVER: Duration = Duration::from_secs(20);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The pair, all well. Heals what is not well when dropped, so that one failure does not cause others.
struct Pair {
    lab: Lab,
    active: String,
    shadow: String,
    _turn: MutexGuard<'static, ()>,
}

impl Pair {
    fn take() -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::attach()?;
        let active = lab.converge(LONG)?;
        let mut names = lab.state().hosts.iter().map(|host| host.name.clone());
        let shadow = names
            .find(|name| *name != active)
            .context("the lab has one host only")?;
        Ok(Self {
            lab,
            active,
            shadow,
            _turn: turn,
        })
    }

    /// Waits until the shadow owns the group with all that belongs to it.
    fn wait_takeover(&self) -> Result<()> {
        let new = self.shadow.as_str();
        self.lab.wait(TAKEOVER, "the shadow to take over", || {
            Ok(self.lab.view(new)?.role == "active"
                && self.holds_vips(new)?
                && self.lab.unit_state(new, COLD)? == "active")
        })
    }

    fn holds_vips(&self, host: &str) -> Result<bool> {
        for vip in [IpAddr::from(VIP_V4), IpAddr::from(VIP_V6)] {
            if !self.lab.holders(vip)?.iter().any(|holder| holder == host) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Heals the old active: it must return as shadow, the new one must stay.
    fn wait_return(&self) -> Result<()> {
        self.lab.heal(&self.active)?;
        let now = self.lab.converge(LONG)?;
        ensure!(
            now == self.shadow,
            "host {now} is active after the heal, not {}:\n{}",
            self.shadow,
            self.why(&now)
        );
        Ok(())
    }

    /// The group did not move and all is well.
    fn unmoved(&self, epoch: u64) -> Result<()> {
        let now = self.lab.converge(LONG)?;
        let view = self.lab.view(&now)?;
        ensure!(
            now == self.active && view.epoch == epoch,
            "the group moved: {now}, {view:?}\n{}",
            self.why(&now)
        );
        Ok(())
    }

    /// The group did not move; its epoch may have been raised.
    fn unmoved_owner(&self, epoch: u64) -> Result<()> {
        let now = self.lab.converge(LONG)?;
        let newer = self.lab.view(&now)?.epoch;
        ensure!(
            now == self.active && newer >= epoch,
            "the group moved: {now}\n{}",
            self.why(&now)
        );
        Ok(())
    }

    /// What a host says of its last transition, for messages.
    fn why(&self, host: &str) -> String {
        let told = self.lab.run(host, &["shadowctl", "failover", "explain"]);
        told.unwrap_or_else(|error| format!("nothing explains it: {error:#}"))
    }

    fn epoch(&self) -> Result<u64> {
        Ok(self.lab.view(&self.active)?.epoch)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let broken = std::thread::panicking() || self.lab.well().is_err();
        for host in [&self.active, &self.shadow] {
            // A host can be starved and look well.
            let well = !broken && !self.lab.is_unhealed(host);
            if !well && let Err(error) = self.lab.heal(host) {
                eprintln!("host {host} does not heal: {error:#}");
            }
        }
    }
}

/// The sum of every number of this name, anywhere in a document.
fn sum(document: &Value, name: &str) -> u64 {
    match document {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value.as_u64() {
                Some(number) if key == name => number,
                _ => sum(value, name),
            })
            .sum(),
        Value::Array(items) => items.iter().map(|item| sum(item, name)).sum(),
        _ => 0,
    }
}
