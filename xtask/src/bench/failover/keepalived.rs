//! keepalived as its operators would set it up for the same task, in the same hosts.
//!
//! Unicast, version 3, adverts as often as shadowd's heartbeats, the highest priorities (the
//! smallest skew), one instance for each family (VRRPv3 has no other way), no sync group (in it a
//! member waits until the others want to be master too), and its process as far ahead of others as
//! shadowd's. The service is checked by a script once a second, which is its shortest interval;
//! its process tracking works in the machine's first network namespace only. Its notify scripts
//! start and stop the unit that runs on the active alone, as shadowd does.

use anyhow::{Context as _, Result, ensure};

use super::system::{member_names, members};
use crate::lab::{COLD, Host, Lab, PEER, VIP_V4, VIP_V6};

const CONFIG: &str = "/etc/keepalived/keepalived.conf";
/// A planned handover is asked for by writing another number than 0 to this file.
const MARKER: &str = "/run/lab-handover";
/// The interval of adverts: 10 ms, its shortest.
const ADVERT_S: &str = "0.01";

/// Writes and checks the configuration on every member; gives the version.
///
/// # Errors
/// keepalived is not there or refuses the configuration, with what it said.
pub fn install(lab: &Lab) -> Result<String> {
    for host in members(lab) {
        lab.write_file(&host.name, CONFIG, &configuration(host, &members(lab)))?;
        lab.run(&host.name, &["keepalived", "--config-test"])
            .context("keepalived refuses the configuration of the bench")?;
    }
    let first = &members(lab)[0].name;
    let version = lab.run(
        first,
        &["dpkg-query", "-W", "-f", "${Version}", "keepalived"],
    )?;
    Ok(version.trim().to_owned())
}

/// Who is master, if all is well: one member holds both addresses, the others are its backups.
///
/// # Errors
/// All is not well; the message says what is not.
pub fn well(lab: &Lab) -> Result<String> {
    let master = lab.holders(VIP_V4.into())?;
    ensure!(master.len() == 1, "{VIP_V4} is held by {master:?}");
    let other = lab.holders(VIP_V6.into())?;
    ensure!(
        other == master,
        "{VIP_V6} is held by {other:?}, {VIP_V4} by {master:?}"
    );
    for name in member_names(lab) {
        let (wanted, cold) = if master[0] == name {
            ("MASTER", "active")
        } else {
            ("BACKUP", "inactive")
        };
        let said = journal(lab, &name)?;
        for instance in ["v4", "v6"] {
            let state = last_state(&said, instance);
            ensure!(
                state == Some(wanted),
                "instance {instance} on host {name} is {state:?}, not {wanted}"
            );
        }
        let state = lab.unit_state(&name, COLD)?;
        ensure!(
            state == cold,
            "{COLD} on host {name} is {state}, not {cold}"
        );
    }
    Ok(master[0].clone())
}

/// Whether a host, and no other, holds both addresses.
///
/// # Errors
/// The kernels cannot be asked.
pub fn is_master(lab: &Lab, host: &str) -> Result<bool> {
    let (v4, v6) = (lab.holders(VIP_V4.into())?, lab.holders(VIP_V6.into())?);
    Ok(v4 == [host] && v6 == v4)
}

/// Tells the master to let go, as its documentation suggests: a file that it tracks.
///
/// # Errors
/// The file cannot be written.
pub fn let_go(lab: &Lab, host: &str) -> Result<()> {
    mark(lab, host, "1\n")
}

/// Lets a host be master again.
///
/// # Errors
/// The file cannot be written.
pub fn allow(lab: &Lab, host: &str) -> Result<()> {
    mark(lab, host, "0\n")
}

/// Takes away what it left on a host.
///
/// # Errors
/// The host cannot be asked to.
pub fn remove_addresses(lab: &Lab, host: &str) -> Result<()> {
    for vip in [format!("{VIP_V4}/24"), format!("{VIP_V6}/64")] {
        // It may hold one of the two only; who waits for them to be gone sees what is left.
        lab.exec(host, &["ip", "address", "delete", &vip, "dev", "eth0"])?;
    }
    Ok(())
}

fn mark(lab: &Lab, host: &str, text: &str) -> Result<()> {
    // From outside: no program has to start first, which would count as part of the handover.
    let path = lab.path_in(host, MARKER)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {MARKER} in host {host}"))
}

/// What it has written since it was last started.
fn journal(lab: &Lab, host: &str) -> Result<String> {
    let id = lab.run(host, &["systemctl", "show", "-P", "InvocationID", PEER])?;
    let invocation = format!("_SYSTEMD_INVOCATION_ID={}", id.trim());
    lab.run(
        host,
        &["journalctl", "-q", "-o", "cat", "-n", "200", &invocation],
    )
}

/// The state that an instance entered last.
fn last_state<'a>(journal: &'a str, instance: &str) -> Option<&'a str> {
    let start = format!("({instance}) Entering ");
    let mut states = journal.lines().filter_map(|line| {
        let (_, rest) = line.split_once(start.as_str())?;
        rest.split(' ').next()
    });
    states.next_back()
}

fn configuration(own: &Host, members: &[&Host]) -> String {
    let place = members.iter().position(|host| host.name == own.name);
    let priority = 254 - place.unwrap_or_default();
    let mut text = format!(
        "global_defs {{\n  router_id {}\n  script_user root\n  enable_script_security\n\
         \x20 vrrp_version 3\n  vrrp_rt_priority 1\n}}\n\
         vrrp_script web {{\n  script \"/usr/bin/curl -sf -m 1 -o /dev/null http://127.0.0.1/stats\"\n\
         \x20 interval 1\n  timeout 1\n  fall 2\n  rise 1\n}}\n\
         track_file handover {{\n  file {MARKER}\n  weight 0\n  init_file 0 overwrite\n}}\n",
        own.name
    );
    let peers = || members.iter().filter(|host| host.name != own.name);
    let v4: Vec<String> = peers().map(|host| host.v4.to_string()).collect();
    let v6: Vec<String> = peers().map(|host| host.v6.to_string()).collect();
    let families = [
        ("v4", 51, own.v4.to_string(), v4, format!("{VIP_V4}/24")),
        ("v6", 52, own.v6.to_string(), v6, format!("{VIP_V6}/64")),
    ];
    for (name, id, source, peers, vip) in families {
        let notify = match name {
            "v4" => notify(),
            _ => String::new(),
        };
        text.push_str(&format!(
            "vrrp_instance {name} {{\n  state BACKUP\n  nopreempt\n  interface eth0\n\
             \x20 virtual_router_id {id}\n  priority {priority}\n  advert_int {ADVERT_S}\n\
             \x20 unicast_src_ip {source}\n  unicast_peer {{\n    {}\n  }}\n\
             \x20 virtual_ipaddress {{\n    {vip} dev eth0\n  }}\n\
             \x20 track_script {{\n    web\n  }}\n  track_file {{\n    handover\n  }}\n{notify}}}\n",
            peers.join("\n    "),
        ));
    }
    text
}

/// The unit runs where the address is.
fn notify() -> String {
    let events = [
        ("master", "start"),
        ("backup", "stop"),
        ("fault", "stop"),
        ("stop", "stop"),
    ];
    let line = |(event, verb)| {
        format!("  notify_{event} \"/usr/bin/systemctl --no-block {verb} {COLD}\"\n")
    };
    events.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::lab::State;

    #[test]
    fn a_host_speaks_to_every_other_member_in_both_families() {
        let state =
            State::plan(3, false, false, false, PathBuf::new()).expect("three hosts are allowed");
        let members: Vec<&Host> = state.hosts.iter().collect();
        let text = configuration(members[1], &members);
        assert!(text.contains("priority 253\n") && text.contains("advert_int 0.01\n"));
        assert!(text.contains(
            "unicast_src_ip 192.0.2.2\n  unicast_peer {\n    192.0.2.1\n    192.0.2.3\n"
        ));
        assert!(text.contains("unicast_src_ip 2001:db8::2\n  unicast_peer {\n    2001:db8::1\n"));
        assert!(
            text.contains("192.0.2.10/24 dev eth0") && text.contains("2001:db8::10/64 dev eth0")
        );
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn the_last_state_of_an_instance_counts() {
        let said = "(v4) Entering BACKUP STATE (init)\n(v6) Entering BACKUP STATE (init)\n\
                    (v4) Entering MASTER STATE\nscript ok\n";
        assert_eq!(last_state(said, "v4"), Some("MASTER"));
        assert_eq!(last_state(said, "v6"), Some("BACKUP"));
        assert_eq!(last_state("", "v4"), None);
    }
}
