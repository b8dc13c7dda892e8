//! What the hosts of a lab say of their group, and what their kernels say of the virtual IPs.
//!
//! Hosts are asked through `shadowctl --json`, as an operator would. Who holds an address is read
//! from the kernel, so a host that is frozen or lies is seen all the same.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::command::{SHORT, command, run};
use super::{COLD, GROUP, Lab, VIP_V4, VIP_V6};

/// The group as one host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its own role: `joining`, `shadow`, `active` or `stopped`.
    pub role: String,
    /// Who is active, by its own knowledge.
    pub active: Option<String>,
    /// The counter of the newest epoch it knows.
    pub epoch: u64,
    /// Whether every member could own the group and none is suspected.
    pub all_eligible: bool,
}

impl Lab {
    /// Asks a host's daemon: `shadowctl --json` with these arguments.
    ///
    /// # Errors
    /// The host or its daemon does not answer, or refuses.
    pub fn ask(&self, host: &str, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["shadowctl", "--json"], arguments].concat();
        let said = self.run(host, &arguments)?;
        serde_json::from_str(&said).with_context(|| format!("host {host} answered no JSON: {said}"))
    }

    /// The group as a host sees it.
    ///
    /// # Errors
    /// The host's daemon does not answer, or does not know the group.
    pub fn view(&self, host: &str) -> Result<View> {
        let status = self.ask(host, &["status"])?;
        let groups = status["groups"].as_array();
        let group = groups
            .and_then(|groups| groups.iter().find(|group| group["group"] == GROUP))
            .with_context(|| format!("host {host} does not know group {GROUP}"))?;
        let members = group["members"].as_array();
        let members: Vec<&Value> = members
            .into_iter()
            .flatten()
            .filter(|member| member["spare"] != true)
            .collect();
        let is_spare = self.state().host(host)?.spare;
        let well = |member: &Value| member["eligible"] == true && member["suspected"] == false;
        Ok(View {
            role: group["role"].as_str().unwrap_or_default().to_owned(),
            active: group["active"].as_str().map(str::to_owned),
            epoch: group["epoch"]["counter"].as_u64().unwrap_or_default(),
            all_eligible: (group["eligible"] == true || is_spare)
                && members.len() == self.state().members().count()
                && members.into_iter().all(well),
        })
    }

    /// The hosts whose kernels hold an address now.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn holders(&self, address: IpAddr) -> Result<Vec<String>> {
        let mut holders = Vec::new();
        let wanted = address.to_string();
        for host in &self.state().hosts {
            let arguments = ["-n", &host.namespace, "-j", "addr", "show", "dev", "eth0"];
            let links: Value = serde_json::from_str(&run(command("ip", &arguments), None, SHORT)?)?;
            let addresses = links[0]["addr_info"].as_array().map(Vec::as_slice);
            if addresses
                .unwrap_or_default()
                .iter()
                .any(|entry| entry["local"] == wanted.as_str())
            {
                holders.push(host.name.clone());
            }
        }
        Ok(holders)
    }

    /// The active, if all is well: every host agrees on it and on the epoch, all others are
    /// shadows that could take over, and it alone holds every virtual IP and runs the cold unit.
    ///
    /// # Errors
    /// All is not well; the message says what is not.
    pub fn well(&self) -> Result<String> {
        let mut agreed: Option<(String, u64)> = None;
        for host in self.state().members() {
            let view = self.view(&host.name)?;
            let active = view.active.clone().context("nobody is active")?;
            let role = if active == host.name {
                "active"
            } else {
                "shadow"
            };
            if view.role != role || !view.all_eligible {
                bail!("host {} says {view:?}", host.name);
            }
            let (first, epoch) = agreed.get_or_insert((active.clone(), view.epoch));
            if (&*first, *epoch) != (&active, view.epoch) {
                bail!(
                    "hosts disagree: {first} in epoch {epoch}, or {active} in {}",
                    view.epoch
                );
            }
        }
        let (active, _) = agreed.context("no hosts")?;
        for vip in [IpAddr::from(VIP_V4), IpAddr::from(VIP_V6)] {
            let holders = self.holders(vip)?;
            if holders != [active.clone()] {
                bail!("{vip} is held by {holders:?}, the active is {active}");
            }
        }
        for host in self.state().members() {
            let state = self.unit_state(&host.name, COLD)?;
            if (state == "active") != (host.name == active) {
                bail!(
                    "{COLD} is {state} on host {}, the active is {active}",
                    host.name
                );
            }
        }
        Ok(active)
    }

    /// Waits until all is well; gives the active. See [`Lab::well`].
    ///
    /// # Errors
    /// It is not within `deadline`; the message says what was not at the end.
    pub fn converge(&self, deadline: Duration) -> Result<String> {
        let mut last = Err(anyhow::anyhow!("not looked at"));
        let waited = self.wait(deadline, "the hosts to agree", || {
            last = self.well();
            Ok(last.is_ok())
        });
        match (waited, last) {
            (Err(late), Err(reason)) => Err(reason.context(late.to_string())),
            (Err(late), Ok(_)) => Err(late),
            (Ok(()), last) => last,
        }
    }

    /// Events of a host after number `since`, oldest first, at most 1000.
    ///
    /// # Errors
    /// The host's daemon does not answer.
    pub fn events(&self, host: &str, since: u64) -> Result<Vec<Value>> {
        let since = since.to_string();
        let mut answer = self.ask(host, &["events", "--since", &since, "--limit", "1000"])?;
        match answer["events"].take() {
            Value::Array(events) => Ok(events),
            other => bail!("host {host} answered no events: {other}"),
        }
    }

    /// The number of a host's newest event; 0 when it has none.
    ///
    /// # Errors
    /// The host's daemon does not answer.
    pub fn newest_event(&self, host: &str) -> Result<u64> {
        let answer = self.ask(host, &["events", "--limit", "1"])?;
        Ok(answer["events"][0]["seq"].as_u64().unwrap_or_default())
    }
}
