//! This host, the others, and the paths between them.

use std::net::SocketAddr;

use super::{Checked, Source};
use crate::config::file;
use crate::config::settings::{HostSettings, PeerSettings};
use crate::config::several::Several;
use crate::facts::{HostId, PathNumber};

const MAX_PEERS: usize = 64;

impl Source<'_> {
    pub(super) fn host(&self, host: &file::Host) -> Checked<HostSettings> {
        Ok(HostSettings {
            name: self.parsed("host.name", &host.name)?,
            listen: self.socket_addresses("host.listen", &host.listen)?,
            state_dir: self.absolute(
                "host.state_dir",
                host.state_dir.as_ref(),
                "/var/lib/shadowd",
            )?,
            socket: self.absolute(
                "host.socket",
                host.socket.as_ref(),
                "/run/shadowd/shadowd.sock",
            )?,
        })
    }

    pub(super) fn peers(
        &self,
        file: &file::File,
        host: &HostSettings,
    ) -> Checked<Vec<PeerSettings>> {
        let mut peers: Vec<PeerSettings> = Vec::new();
        for written in &file.peer {
            let peer = PeerSettings {
                name: self.parsed("peer.name", &written.name)?,
                id: self.parsed::<HostId>("peer.id", &written.id)?,
                addresses: self.socket_addresses("peer.address", &written.address)?,
            };
            if peer.name == host.name || peers.iter().any(|other| other.name == peer.name) {
                let allowed = "each host has a name of its own";
                return Err(self.refuse("peer.name", &written.name, allowed));
            }
            if peers.iter().any(|other| other.id == peer.id) {
                return Err(self.refuse("peer.id", &written.id, "each host has an id of its own"));
            }
            self.paths_to(&written.address, &peer.addresses, host, &peers)?;
            peers.push(peer);
            if peers.len() > MAX_PEERS {
                return Err(self.refuse("peer.name", &written.name, "a host has at most 64 peers"));
            }
        }
        Ok(peers)
    }

    /// Each address of a peer is nobody else's, and is reached from the one of this host that
    /// stands in the same place.
    fn paths_to(
        &self,
        written: &Several,
        addresses: &[SocketAddr],
        host: &HostSettings,
        others: &[PeerSettings],
    ) -> Checked<()> {
        for (place, (address, value)) in addresses.iter().zip(&written.values).enumerate() {
            let refuse = |allowed: &str| Err(self.refuse("peer.address", value, allowed));
            let taken = |other: &PeerSettings| other.addresses.contains(address);
            if host.listen.contains(address) || others.iter().any(taken) {
                return refuse("each host listens on an address of its own");
            }
            match host.listen.get(place) {
                None => {
                    return refuse(
                        "at most as many as host.listen has: each is reached from the one in the \
                         same place there",
                    );
                }
                Some(own) if own.is_ipv4() != address.is_ipv4() => {
                    return refuse(
                        "of the same family as the one of host.listen in the same place",
                    );
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// One address for each link, none twice.
    fn socket_addresses(&self, key: &'static str, written: &Several) -> Checked<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for value in &written.values {
            let address = self.socket_address(key, value)?;
            if addresses.iter().any(|other| other.ip() == address.ip()) {
                return Err(self.refuse(key, value, "each address once"));
            }
            if addresses.len() == PathNumber::COUNT {
                return Err(self.refuse(key, value, "at most 4 addresses"));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }
}
