//! One task for each interface of virtual IPs: hears who claims them, asks peers' kernels.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use tokio::sync::mpsc;
use tracing::debug;

use super::failover::Input;
use crate::config::settings::{GroupSettings, Settings};
use crate::facts::{Name, Vip};
use crate::observe::neighbours::Neighbours;

/// Probes that wait.
const PROBES: usize = 16;

/// The ways to ask peers' kernels, by interface.
pub struct Kernels(BTreeMap<String, (Vec<IpAddr>, mpsc::Sender<IpAddr>)>);

impl Kernels {
    /// Starts the tasks on the current runtime; what they hear goes to `inputs`.
    ///
    /// # Errors
    /// An interface is not there, or its sockets are refused.
    pub fn start(settings: &Settings, inputs: &mpsc::Sender<Input>) -> anyhow::Result<Self> {
        let mut vips: BTreeMap<&str, Vec<Vip>> = BTreeMap::new();
        for group in &settings.groups {
            vips.entry(&group.interface)
                .or_default()
                .extend(&group.vips);
        }
        let peers: Vec<IpAddr> = settings
            .peers
            .iter()
            .flat_map(|peer| &peer.addresses)
            .map(SocketAddr::ip)
            .collect();
        let mut kernels = BTreeMap::new();
        for (interface, vips) in vips {
            let neighbours = Neighbours::open(interface, &vips)
                .with_context(|| format!("the neighbours of {interface} cannot be heard"))?;
            // Others are asked over another link, which says nothing about this one.
            let off_link = neighbours
                .off_link(&peers)
                .unwrap_or_else(|_| peers.clone());
            let on_link = peers
                .iter()
                .filter(|peer| !off_link.contains(peer))
                .copied();
            let (sender, probes) = mpsc::channel(PROBES);
            let task = hear(interface.to_owned(), neighbours, probes, inputs.clone());
            tokio::spawn(task);
            kernels.insert(interface.to_owned(), (on_link.collect(), sender));
        }
        Ok(Self(kernels))
    }

    /// Where the other members of a group are, if on the same link, and the way to ask them.
    pub fn of(
        &self,
        group: &GroupSettings,
        settings: &Settings,
    ) -> Option<(BTreeMap<Name, IpAddr>, mpsc::Sender<IpAddr>)> {
        let (on_link, probes) = self.0.get(&group.interface)?;
        let others = |name| group.members.contains(name) || group.spares.contains(name);
        let members = settings.peers.iter().filter(|peer| others(&peer.name));
        let kernels = members.filter_map(|peer| {
            let mut addresses = peer.addresses.iter().map(SocketAddr::ip);
            let here = addresses.find(|address| on_link.contains(address))?;
            Some((peer.name.clone(), here))
        });
        Some((kernels.collect(), probes.clone()))
    }
}

async fn hear(
    interface: String,
    mut neighbours: Neighbours,
    mut probes: mpsc::Receiver<IpAddr>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        tokio::select! {
            heard = neighbours.recv() => {
                let input = Input::Neighbour(interface.clone(), heard);
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            probe = probes.recv() => {
                let Some(address) = probe else { return };
                if let Err(error) = neighbours.probe(address) {
                    debug!(%error, "a peer's kernel was not asked");
                }
            }
        }
    }
}
