//! Network namespaces: one for each host, one for the bridges, one for the client.
//!
//! Every link is made inside these namespaces; the machine's own never sees one. The bridge has a
//! namespace of its own so that a host's port can go down, and frames can be dropped between
//! ports, without the host knowing: this is what a switch does.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result};

use super::command::{SHORT, command, output_always, run};
use super::state::{CLIENT_V4, CLIENT_V6, Host, State};

const NAMED: &str = "/run/netns";

/// Whether the folder of named network namespaces is a mount already.
pub fn named_mounted() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| {
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(NAMED))
    })
}

/// Makes the namespaces, the bridge and every port.
///
/// # Errors
/// `ip` fails.
pub fn make(state: &State) -> Result<()> {
    for namespace in state.namespaces() {
        run(command("ip", &["netns", "add", namespace]), None, SHORT)?;
    }
    batch(
        &state.switch,
        "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
         link add br1 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
         link set lo up\nlink set br0 up\nlink set br1 up\n",
    )?;
    for host in &state.hosts {
        port(state, &host.namespace, &port_name(&host.name))?;
        addresses(&host.namespace, host.v4, host.v6)?;
        second_port(state, host)?;
    }
    if let Some(client) = &state.client {
        port(state, client, &port_name("client"))?;
        addresses(client, CLIENT_V4, CLIENT_V6)?;
        // The probe opens a thousand connections a second.
        inside(
            client,
            "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range",
        )?;
    }
    Ok(())
}

fn port(state: &State, namespace: &str, name: &str) -> Result<()> {
    // Duplicate address detection would keep a static address silent for a second.
    inside(
        namespace,
        "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad",
    )?;
    plug(state, "br0", name, (namespace, "eth0"))?;
    batch(namespace, "link set lo up\nlink set eth0 up\n")
}

/// A cable from a port of a bridge to an interface in a namespace.
fn plug(
    state: &State,
    bridge: &str,
    port: &str,
    (namespace, interface): (&str, &str),
) -> Result<()> {
    batch(
        &state.switch,
        &format!(
            "link add name {port} type veth peer name {interface} netns {namespace}\n\
             link set {port} master {bridge}\nlink set {port} up\n"
        ),
    )
}

/// A link between the hosts alone: no virtual IP and no client. Nothing uses it until it is told.
fn second_port(state: &State, host: &Host) -> Result<()> {
    let (name, namespace) = (second_port_name(&host.name), &host.namespace);
    plug(state, "br1", &name, (namespace, "eth1"))?;
    let second = host.second;
    batch(
        namespace,
        &format!("link set eth1 up\naddr add {second}/25 dev eth1\n"),
    )
}

fn addresses(namespace: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    batch(
        namespace,
        &format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"),
    )
}

/// Gives a host the addresses it boots with, and only these.
///
/// # Errors
/// `ip` fails.
pub fn reset_addresses(host: &Host) -> Result<()> {
    batch(&host.namespace, "addr flush dev eth0 scope global\n")?;
    addresses(&host.namespace, host.v4, host.v6)
}

/// Runs `ip` commands, one a line, in a namespace.
///
/// # Errors
/// One of them fails.
pub fn batch(namespace: &str, lines: &str) -> Result<()> {
    run(
        command("ip", &["-n", namespace, "-batch", "-"]),
        Some(lines.as_bytes()),
        SHORT,
    )
    .map(drop)
}

/// Runs a line of shell in a namespace.
///
/// # Errors
/// It fails.
pub fn inside(namespace: &str, line: &str) -> Result<String> {
    run(
        command("ip", &["netns", "exec", namespace, "sh", "-c", line]),
        None,
        SHORT,
    )
}

/// The bridge's port of a host or of the client.
pub fn port_name(host: &str) -> String {
    format!("port-{host}")
}

/// The port of a host on the second link.
pub fn second_port_name(host: &str) -> String {
    format!("back-{host}")
}

/// Sets a host's port of the bridge up or down: the host at its end sees its carrier come or go.
///
/// # Errors
/// `ip` fails.
pub fn set_port(state: &State, host: &str, up: bool) -> Result<()> {
    set(state, &port_name(host), up)
}

/// The same on the second link.
///
/// # Errors
/// `ip` fails.
pub fn set_second_port(state: &State, host: &str, up: bool) -> Result<()> {
    set(state, &second_port_name(host), up)
}

fn set(state: &State, port: &str, up: bool) -> Result<()> {
    let word = if up { "up" } else { "down" };
    let arguments = ["-n", &state.switch, "link", "set", port, word];
    run(command("ip", &arguments), None, SHORT).map(drop)
}

/// Drops frames at the bridge. `rules` are the rules of one chain; they replace the host's others.
///
/// # Errors
/// `nft` fails.
pub fn filter(state: &State, host: &str, rules: &[String]) -> Result<()> {
    let mut text = format!(
        "table bridge lab_{host} {{}}\ndelete table bridge lab_{host}\n\
         table bridge lab_{host} {{ chain cut {{ type filter hook forward priority 0;\n"
    );
    for rule in rules {
        text.push_str(rule);
        text.push('\n');
    }
    text.push_str("}\n}\n");
    nft(state, &text)
}

/// Drops no more frames for a host's sake.
///
/// # Errors
/// `nft` fails.
pub fn unfilter(state: &State, host: &str) -> Result<()> {
    nft(
        state,
        &format!("table bridge lab_{host} {{}}\ndelete table bridge lab_{host}\n"),
    )
}

fn nft(state: &State, text: &str) -> Result<()> {
    let arguments = ["netns", "exec", &state.switch, "nft", "-f", "-"];
    run(command("ip", &arguments), Some(text.as_bytes()), SHORT).map(drop)
}

/// Removes the namespaces that are still there.
///
/// # Errors
/// One cannot be removed.
pub fn remove(state: &State) -> Result<()> {
    for namespace in state.namespaces() {
        if Path::new(NAMED).join(namespace).exists() {
            let output = output_always(command("ip", &["netns", "del", namespace]), SHORT)?;
            super::command::checked("ip netns del", output)?;
        }
    }
    let empty = || std::fs::read_dir(NAMED).is_ok_and(|mut names| names.next().is_none());
    if state.made_netns_mount && named_mounted() && empty() {
        nix::mount::umount(NAMED).with_context(|| format!("cannot unmount {NAMED}"))?;
    }
    Ok(())
}
