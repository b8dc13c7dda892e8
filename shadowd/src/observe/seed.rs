//! Who listens already when capture starts.
//!
//! The probe is attached first and this runs after it, so a socket that begins to listen in
//! between is in both, and the kernel's own entry stays. Sees the daemon's network namespace only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use procfs::net::TcpState;
use procfs::process::{FDTarget, all_processes};
use shadowd_common::Address;
use shadowd_common::sockets::{ListenerKey, Owner};

use super::cgroups::Cgroups;
use super::processes;

/// The listening sockets of network namespace `netns`, with the process that holds each.
pub fn listeners(netns: u32, cgroups: &Cgroups) -> BTreeMap<ListenerKey, Owner> {
    let mut sockets: Vec<(u64, SocketAddr)> = Vec::new();
    for table in [procfs::net::tcp(), procfs::net::tcp6()] {
        let rows = table.unwrap_or_default();
        let listening = rows.into_iter().filter(|row| row.state == TcpState::Listen);
        sockets.extend(listening.map(|row| (row.inode, row.local_address)));
    }
    let holders = holders(&sockets.iter().map(|(inode, _)| *inode).collect(), cgroups);
    let mut owners = BTreeMap::<ListenerKey, Owner>::new();
    for (inode, address) in sockets {
        let Some((tgid, cgroup)) = holders.get(&inode).copied() else {
            continue;
        };
        let key = ListenerKey {
            netns,
            port: u32::from(address.port()),
            address: kernel_address(address.ip()),
        };
        let owner = owners.entry(key).or_insert(Owner {
            cgroup,
            tgid,
            sockets: 0,
        });
        owner.sockets += 1;
    }
    owners
}

/// Process and control group that hold each socket. Of several holders the oldest is taken, which
/// is the parent of a pre-forking server, but not pid 1, which only keeps sockets for others.
pub fn holders(wanted: &HashSet<u64>, cgroups: &Cgroups) -> HashMap<u64, (u32, u64)> {
    let mut found = HashMap::<u64, (u32, u64)>::new();
    let Ok(all) = all_processes() else {
        return found;
    };
    for process in all.flatten() {
        let Ok(pid) = u32::try_from(process.pid()) else {
            continue;
        };
        let Ok(descriptors) = process.fd() else {
            continue;
        };
        let held = descriptors
            .flatten()
            .filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) if wanted.contains(&inode) => Some(inode),
                _ => None,
            });
        let mut group = None;
        for inode in held {
            let group = *group.get_or_insert_with(|| {
                processes::cgroup_path(&process)
                    .and_then(|path| cgroups.id(&path))
                    .unwrap_or(0)
            });
            let better = found
                .get(&inode)
                .is_none_or(|(other, _)| *other == 1 || (pid != 1 && pid < *other));
            if better {
                found.insert(inode, (pid, group));
            }
        }
    }
    found
}

/// The address as the kernel side writes it.
pub fn kernel_address(address: IpAddr) -> Address {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = Address::default();
    for (word, four) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    }
    words
}

/// The address as people write it: IPv4-mapped is IPv4.
pub fn address(words: Address) -> IpAddr {
    let mut octets = [0; 16];
    for (four, word) in octets.chunks_exact_mut(4).zip(words) {
        four.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::"] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(address(kernel_address(ip)), ip);
        }
    }
}
