//! What only the running host can tell about a configuration: refused before anything is changed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;

use super::start::ends_on;
use crate::act::units::Units;
use crate::act::vip::Vips;
use crate::config::settings::{PeerSettings, Provision, ProvisionSettings, Settings};
use crate::facts::{HostId, Name, Vip};

/// Why the daemon does not start with a legal configuration.
#[derive(Debug, Error)]
pub enum StartError {
    /// An interface is not there.
    #[error("group {group}: this host has no interface {interface}; it has {present}")]
    NoInterface {
        /// The group.
        group: Name,
        /// The interface it names.
        interface: String,
        /// What there is.
        present: String,
    },
    /// systemd does not know a unit.
    #[error("group {group}: systemd cannot load the unit {unit} (it is {state})")]
    NoUnit {
        /// The group.
        group: Name,
        /// The unit it names.
        unit: Name,
        /// systemd's LoadState.
        state: String,
    },
    /// A virtual IP is in none of the interface's networks.
    #[error(
        "group {group}: no address of {interface} is in the network of the virtual IP {vip}, so \
         neighbours there would not be answered: correct the address or its prefix, or give the \
         interface an address of its own there"
    )]
    OtherNetwork {
        /// The group.
        group: Name,
        /// Its interface.
        interface: String,
        /// The address.
        vip: Vip,
    },
    /// `host.listen` is not an address of this host.
    #[error("host.listen: {address} is not an address of this host")]
    NotOurs {
        /// The address.
        address: IpAddr,
    },
    /// A peer is configured with this host's identity.
    #[error(
        "peer {peer} has the id of this host; run `shadowctl id` on {peer} and use what it prints"
    )]
    OwnId {
        /// The peer.
        peer: Name,
    },
    /// The file that names the identity of the machine's network is unreadable.
    #[error("cannot list the interfaces in {}", path.display())]
    Interfaces {
        /// Where they stand.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Checks that what the settings name is there. `own`: this host's identity, if it has one.
pub async fn check(
    settings: &Settings,
    own: Option<HostId>,
    units: Option<&Units>,
) -> anyhow::Result<()> {
    let same = |peer: &&PeerSettings| Some(peer.id) == own;
    if let Some(peer) = settings.peers.iter().find(same) {
        return Err(StartError::OwnId {
            peer: peer.name.clone(),
        }
        .into());
    }
    // The others may come later: a link that is down must not keep the daemon from its group.
    if let Some(address) = not_ours(settings.host.listen.iter().take(1)) {
        return Err(StartError::NotOurs { address }.into());
    }
    let present = interfaces()?;
    for (group, profile) in settings.groups.iter().zip(&settings.profiles) {
        if !present.contains(&group.interface) {
            return Err(StartError::NoInterface {
                group: group.name.clone(),
                interface: group.interface.clone(),
                present: present.join(", "),
            }
            .into());
        }
        let Some(units) = units else { continue };
        for unit in &group.units {
            let state = units.load_state(&unit.name).await?;
            if state != "loaded" && !comes_later(&profile.provision, &state) {
                let (group, unit) = (group.name.clone(), unit.name.clone());
                return Err(StartError::NoUnit { group, unit, state }.into());
            }
        }
    }
    Ok(())
}

/// Whether shadowd may bring the unit itself: a host without it is one that is to be made ready. Until
/// then it could not own the group.
fn comes_later(may: &ProvisionSettings, state: &str) -> bool {
    match state {
        "not-found" => [may.files, may.packages].contains(&Provision::Apply),
        "masked" => may.units == Provision::Apply,
        _ => false,
    }
}

/// What an operator should know of the paths, in sentences.
pub fn paths(settings: &Settings) -> Vec<String> {
    let ends = ends_on(&settings.host.listen);
    let listen = || settings.host.listen.iter().zip(&ends).enumerate();
    let mut sentences = Vec::new();
    for (place, (address, end)) in listen() {
        let same = |other: &(usize, (&SocketAddr, &Option<String>))| {
            end.is_some() && other.0 < place && other.1.1 == end
        };
        match (end, listen().find(same)) {
            (None, _) => sentences.push(format!(
                "host.listen: {} is not an address of this host: nothing comes over path {}",
                address.ip(),
                place + 1
            )),
            (Some(interface), Some((_, (other, _)))) => sentences.push(format!(
                "host.listen: {other} and {address} are both on {interface}: these paths fail \
                 together"
            )),
            (Some(_), None) => {}
        }
    }
    sentences
}

fn not_ours<'a>(mut addresses: impl Iterator<Item = &'a SocketAddr>) -> Option<IpAddr> {
    let missing = addresses.find(|address| {
        let probe = std::net::UdpSocket::bind((address.ip(), 0));
        probe.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
    });
    missing.map(SocketAddr::ip)
}

/// Checks that this host has every address it shall listen on, and that each virtual IP is in a network of its interface. A daemon that starts only warns:
/// the interface may get its own address later.
pub async fn check_networks(settings: &Settings) -> anyhow::Result<()> {
    if let Some(address) = not_ours(settings.host.listen.iter()) {
        return Err(StartError::NotOurs { address }.into());
    }
    for group in &settings.groups {
        let vips = Vips::open(&group.interface)?;
        if let Some(vip) = vips.without_network(&group.vips).await?.first() {
            return Err(StartError::OtherNetwork {
                group: group.name.clone(),
                interface: group.interface.clone(),
                vip: *vip,
            }
            .into());
        }
    }
    Ok(())
}

fn interfaces() -> Result<Vec<String>, StartError> {
    // Of this process's own network, which a sysfs that was mounted elsewhere does not show.
    let path = PathBuf::from("/proc/self/net/dev");
    let list = || {
        let text = std::fs::read_to_string(&path)?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut names: Vec<String> = lines.map(|(name, _)| name.trim().to_owned()).collect();
        names.sort();
        Ok(names)
    };
    list().map_err(|source| StartError::Interfaces {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_may_be_missing_only_where_shadowd_may_bring_it() {
        let none = ProvisionSettings::default();
        let packages = ProvisionSettings {
            packages: Provision::Apply,
            ..none
        };
        let units = ProvisionSettings {
            units: Provision::Apply,
            ..none
        };
        assert!(!comes_later(&none, "not-found") && !comes_later(&none, "masked"));
        assert!(comes_later(&packages, "not-found") && !comes_later(&packages, "masked"));
        assert!(comes_later(&units, "masked") && !comes_later(&units, "not-found"));
        assert!(!comes_later(&packages, "bad-setting") && !comes_later(&units, "error"));
    }
}
