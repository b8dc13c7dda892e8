//! The provider of a group: takes what the core wants created, asks, hands the answer back. Nothing
//! waits for it: a group asks for one host at a time.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::failover::Input;
use crate::act::hooks::Hooks;
use crate::act::provider;
use crate::config::settings::{CommandSettings, GroupSettings, PeerSettings, Settings};
use crate::decide::cluster::{Done, Wish};
use crate::facts::{Name, ProviderAnswer, ProviderRequest, ProviderState};

/// The way to a group's provider, if it has one.
#[derive(Clone, Debug, Default)]
pub struct ProviderQueue(Option<mpsc::Sender<Wish>>);

impl ProviderQueue {
    /// Asks for a host; what came of it if it cannot be asked for now.
    pub fn ask(&self, wish: Wish) -> Option<Done> {
        let (host, attempt) = (wish.host.clone(), wish.attempt);
        let detail = match &self.0 {
            None => "no provider is configured here",
            Some(queue) if queue.try_send(wish).is_ok() => return None,
            Some(_) => "the provider is still busy with what was asked before",
        };
        let answer = ProviderAnswer {
            state: ProviderState::Failed,
            detail: detail.to_owned(),
        };
        Some(Done::Provided {
            host,
            attempt,
            answer,
        })
    }
}

struct Provider {
    number: usize,
    host: Name,
    group: GroupSettings,
    peers: Vec<PeerSettings>,
    command: CommandSettings,
    hooks: Arc<Hooks>,
    inputs: mpsc::Sender<Input>,
}

/// One for each group, in the same order. What runs when the daemon ends goes on without it.
pub fn start(settings: &Settings, inputs: &mpsc::Sender<Input>) -> Vec<ProviderQueue> {
    let hooks: Arc<Hooks> = Arc::default();
    let groups = settings.groups.iter().zip(&settings.providers);
    let queues = groups.enumerate().map(|(number, (group, command))| {
        let Some(command) = command.clone() else {
            return ProviderQueue::default();
        };
        let (queue, wishes) = mpsc::channel(1);
        let provider = Provider {
            number,
            host: settings.host.name.clone(),
            group: group.clone(),
            peers: settings.peers.clone(),
            command,
            hooks: Arc::clone(&hooks),
            inputs: inputs.clone(),
        };
        tokio::spawn(provider.work(wishes));
        ProviderQueue(Some(queue))
    });
    queues.collect()
}

impl Provider {
    async fn work(self, mut wishes: mpsc::Receiver<Wish>) {
        while let Some(wish) = wishes.recv().await {
            let answer = match self.request(&wish) {
                Some(request) => provider::ask(&self.hooks, &self.command, &request).await,
                None => ProviderAnswer {
                    state: ProviderState::Failed,
                    detail: "it is not a spare of the configuration".to_owned(),
                },
            };
            let done = Done::Provided {
                host: wish.host,
                attempt: wish.attempt,
                answer,
            };
            let group = self.number;
            // A loop that has ended asks no more.
            let _ = self.inputs.send(Input::Done { group, done }).await;
        }
    }

    /// What is asked for, all of it from the configuration: a provider creates nobody new.
    fn request(&self, wish: &Wish) -> Option<ProviderRequest> {
        let mut peers = self.peers.iter();
        let peer = peers.find(|peer| peer.name == wish.host)?;
        let address = peer.addresses.first()?.to_string();
        self.group
            .spares
            .contains(&wish.host)
            .then(|| ProviderRequest {
                version: ProviderRequest::VERSION,
                group: self.group.name.clone(),
                epoch: wish.epoch.counter,
                reason: wish.reason,
                from: self.host.clone(),
                host: wish.host.clone(),
                id: peer.id,
                address,
                attempt: wish.attempt,
                deadline_s: self.command.deadline.as_secs(),
            })
    }
}
