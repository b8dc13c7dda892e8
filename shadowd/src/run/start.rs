//! Starts the failover thread, the workers of unit jobs and the watches that feed the loop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use super::addresses::Addresses;
use super::board::Board;
use super::failover::{Failover, Input};
use super::group::GroupRunner;
use super::guards::Guards;
use super::jobs::{Job, Worker};
use super::links::Links;
use super::neighbours::Kernels;
use super::policy;
use super::provider::ProviderQueue;
use super::record::Recorder;
use super::starved::StarvedWatch;
use super::witness::WitnessRunner;
use crate::act::announce::Announcer;
use crate::act::units::Units;
use crate::act::vip::Vips;
use crate::config::settings::{GroupSettings, Settings};
use crate::decide::cluster::{Group, Peer, Witness};
use crate::facts::{Epoch, HostId, Kept, Memory, Name};
use crate::link::{Datagrams, Keyring};
use crate::observe::addresses::AddressWatch;
use crate::observe::carrier::CarrierWatch;
use crate::observe::interfaces::interface_of;
use crate::observe::sys::{boot_time, go_first};
use crate::observe::turns::Turns;
use crate::observe::units::UnitWatch;

/// Unit jobs of a group that wait.
const JOBS: usize = 16;
/// Nice value of the failover thread where it may not be a real-time one (setpriority(2)).
const PRIORITY: i32 = -15;

/// One worker for the unit jobs of each group.
pub fn start_workers(
    settings: &Settings,
    units: Option<&Arc<Units>>,
    inputs: &mpsc::Sender<Input>,
    recorder: &Recorder,
) -> (Vec<mpsc::Sender<Job>>, JoinSet<()>) {
    let mut queues = Vec::new();
    let mut workers = JoinSet::new();
    for (number, group) in settings.groups.iter().enumerate() {
        let (queue, jobs) = mpsc::channel(JOBS);
        queues.push(queue);
        if let Some(units) = units {
            let worker = Worker {
                group: number,
                name: group.name.clone(),
                units: Arc::clone(units),
                inputs: inputs.clone(),
                recorder: recorder.clone(),
            };
            workers.spawn(worker.work(jobs));
        }
    }
    (queues, workers)
}

/// What the failover thread is made of.
pub struct FailoverStart {
    /// The configuration.
    pub settings: Settings,
    /// This host's identity.
    pub id: HostId,
    /// The newest known epoch of each group, then of each group this host is a witness of.
    pub epochs: Vec<Epoch>,
    /// What the daemon before this one left of each, in the same order.
    pub memory: Vec<Memory>,
    /// What silences addresses without a lease.
    pub guards: Guards,
    /// The keys of the peers' datagrams.
    pub keyring: Arc<Keyring>,
    /// The record.
    pub recorder: Recorder,
    /// The way into the loop, for what neighbours say.
    pub inputs: mpsc::Sender<Input>,
    /// The queue of each group's unit jobs.
    pub jobs: Vec<mpsc::Sender<Job>>,
    /// The way to each group's provider.
    pub providers: Vec<ProviderQueue>,
    /// The state for the socket.
    pub board: Arc<Board>,
    /// The turns of a thread of usual priority.
    pub turns: Turns,
}

/// Without real time the loop is ahead of the daemon's own threads only, and a busy machine delays
/// heartbeats by as much as it delays everybody.
fn go_ahead_of_services() {
    let Err(refused) = go_first() else { return };
    warn!(error = %refused, "heartbeats are not real-time: a busy host delays them");
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        warn!(%error, "heartbeats run at ordinary priority");
    }
}

/// How the failover thread ended.
pub type FailoverEnd = oneshot::Receiver<anyhow::Result<Vec<(Name, Kept)>>>;

/// Starts the failover thread; returns once it has its sockets, with where it reports its end.
pub async fn start_failover(
    start: FailoverStart,
    inbox: mpsc::Receiver<Input>,
) -> anyhow::Result<FailoverEnd> {
    let (ready, is_ready) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let work = move || {
        // This thread alone goes first, so that heartbeats never wait behind the services they
        // guard, and the services wait for nothing else of the daemon.
        go_ahead_of_services();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        runtime.block_on(async {
            match start.build(inbox).await {
                Ok(failover) => {
                    let _ = ready.send(Ok(()));
                    let result = failover.run().await.context("the datagram socket failed");
                    let _ = ended.send(result);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    };
    std::thread::Builder::new()
        .name("failover".to_owned())
        .spawn(work)?;
    is_ready
        .await
        .map_err(|_| anyhow!("the failover thread ended while starting"))??;
    Ok(end)
}

impl FailoverStart {
    async fn build(self, inbox: mpsc::Receiver<Input>) -> anyhow::Result<Failover> {
        let listen = &self.settings.host.listen;
        let peers = self.settings.peers.iter().flat_map(|peer| &peer.addresses);
        let peers = peers.map(SocketAddr::ip);
        let datagrams = Datagrams::bind(listen, peers, Arc::clone(&self.keyring))
            .with_context(|| format!("cannot listen on {listen:?} (UDP)"))?;
        let kernels = Kernels::start(&self.settings, &self.inputs)?;
        let mut groups = Vec::new();
        for (number, settings) in self.settings.groups.iter().enumerate() {
            groups.push(self.group(number, settings, &kernels).await?);
        }
        let witnessed = self.settings.witnessed.iter().enumerate();
        let first = groups.len();
        let witnessed = witnessed.map(|(number, settings)| self.witness(first + number, settings));
        let witnessed = witnessed.collect();
        let links = Links::new(
            &self.settings,
            ends_on(listen),
            self.recorder.clone(),
            boot_time(),
        );
        let starved = StarvedWatch::new(self.turns, self.recorder);
        Ok(Failover::new(
            groups, witnessed, links, datagrams, inbox, self.board, starved,
        ))
    }

    async fn group(
        &self,
        number: usize,
        settings: &GroupSettings,
        kernels: &Kernels,
    ) -> anyhow::Result<GroupRunner> {
        let vips = Vips::open(&settings.interface)?;
        let announcer = Announcer::open(&settings.interface)?;
        let newest = self.epochs[number];
        for vip in vips.without_network(&settings.vips).await? {
            self.board.note(format!(
                "group {}: {} has no address in the network of {vip}; neighbours there may not be \
                 answered: give the interface one",
                settings.name, settings.interface
            ));
        }
        let mut others = self.peers(&settings.members);
        others.extend(self.peers(&settings.spares));
        let witnesses = self.peers(&settings.witnesses);
        let now = boot_time();
        let mut core = Group::new(settings.clone(), self.me(), others, &witnesses, newest, now);
        let memory = &self.memory[number];
        let held = if core.remember(memory, now) {
            vips.held(&settings.vips).await?
        } else {
            if memory.kept.pause.is_some() {
                // The pause was too long, or is not good for what is configured now.
                vips.release_all(&settings.vips).await?;
            }
            Vec::new()
        };
        let (jobs, recorder) = (self.jobs[number].clone(), self.recorder.clone());
        policy::restore(&mut core, &recorder, now)?;
        let guard = self.guards.of(settings);
        let kernels = kernels
            .of(settings, &self.settings)
            .context("every interface of a group has its neighbours")?;
        let addresses = Addresses::new(vips, settings.vips.clone(), announcer).holding(held);
        let runner = GroupRunner::new(core, addresses, jobs, recorder, guard, kernels);
        let provider = self.providers[number].clone();
        Ok(runner.with_provider(provider))
    }

    fn witness(&self, number: usize, settings: &GroupSettings) -> WitnessRunner {
        let newest = self.epochs[number];
        let mut members = self.peers(&settings.members);
        members.extend(self.peers(&settings.spares));
        let others = self.peers(&settings.witnesses);
        let (me, now) = (self.me(), boot_time());
        let mut core = Witness::new(settings.clone(), &me, members, &others, newest, now);
        core.remember(&self.memory[number]);
        WitnessRunner::new(core, self.recorder.clone())
    }

    fn me(&self) -> Peer {
        Peer {
            name: self.settings.host.name.clone(),
            id: self.id,
        }
    }

    fn peers(&self, names: &[Name]) -> Vec<Peer> {
        let peers = &self.settings.peers;
        let peer = |name: &Name| {
            let peer = peers.iter().find(|peer| peer.name == *name)?;
            let (name, id) = (peer.name.clone(), peer.id);
            Some(Peer { name, id })
        };
        names.iter().filter_map(peer).collect()
    }
}

/// The interface of this host's end of each path, where there are several and it has one now.
pub(super) fn ends_on(listen: &[SocketAddr]) -> Vec<Option<String>> {
    if listen.len() < 2 {
        return Vec::new();
    }
    let ends = listen.iter().map(|address| interface_of(address.ip()));
    ends.collect()
}

/// What watches the host until it is dropped.
pub type Watches = (CarrierWatch, AddressWatch, Option<UnitWatch>);

/// Watches links, addresses and units and hands every change to the failover loop.
pub async fn watch_host(
    settings: &Settings,
    inputs: &mpsc::Sender<Input>,
) -> anyhow::Result<Watches> {
    policy::watch_the_day(settings, inputs);
    let groups = settings.groups.iter();
    let interfaces: BTreeSet<String> = groups
        .map(|group| group.interface.clone())
        .chain(ends_on(&settings.host.listen).into_iter().flatten())
        .collect();
    let (carrier, mut readings) = CarrierWatch::start(interfaces.into_iter().collect()).await?;
    let queue = inputs.clone();
    tokio::spawn(async move {
        while let Some(reading) = readings.recv().await {
            let _ = queue.send(Input::Carrier(reading)).await;
        }
    });
    let vips = settings.groups.iter().flat_map(|group| {
        let vips = group.vips.iter();
        vips.map(|vip| (group.interface.clone(), vip.address))
    });
    let (addresses, mut readings) = AddressWatch::start(vips.collect()).await?;
    let queue = inputs.clone();
    tokio::spawn(async move {
        while let Some(reading) = readings.recv().await {
            let _ = queue.send(Input::Address(reading)).await;
        }
    });
    let names = settings.groups.iter().flat_map(|group| &group.units);
    let names: Vec<Name> = names.map(|unit| unit.name.clone()).collect();
    if names.is_empty() {
        return Ok((carrier, addresses, None));
    }
    let (units, mut readings) = UnitWatch::start(names).await?;
    let queue = inputs.clone();
    tokio::spawn(async move {
        while let Some(reading) = readings.recv().await {
            let _ = queue.send(Input::Unit(reading)).await;
        }
    });
    Ok((carrier, addresses, Some(units)))
}
