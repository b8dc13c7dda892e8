//! A network namespace of a process's own, with its loopback interface up, and its counters.

use std::fs;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

/// Moves this thread, and what it starts, into a new network namespace. It is gone with the last
/// process in it.
///
/// # Errors
/// The kernel refuses it.
pub fn enter_own() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace can be made")?;
    loopback_up()
}

/// Sets the loopback interface up by a netlink message (rtnetlink(7)): RTM_NEWLINK, no attributes.
///
/// # Errors
/// Netlink is not there.
pub fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    const LOOPBACK_INDEX: u32 = 1;
    let up = libc::IFF_UP.cast_unsigned();
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // family, type
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(up.to_ne_bytes());
    message.extend(up.to_ne_bytes()); // which flags to change
    let route = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(route.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    Ok(())
}

/// A counter of this thread's network namespace, such as `TcpExt`, `ListenOverflows`.
///
/// # Errors
/// The kernel has no such counter.
pub fn counter(group: &str, name: &str) -> Result<u64> {
    for file in ["netstat", "snmp"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        if let [names, values] = rows.as_slice()
            && let Some(at) = names.iter().position(|known| *known == name)
        {
            return Ok(values.get(at).context("a value for each name")?.parse()?);
        }
    }
    anyhow::bail!("no counter {group} {name}")
}
