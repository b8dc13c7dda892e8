//! Whether virtual IPs are on this host's interfaces, as the kernel announces it.
//!
//! Whoever adds or removes one is seen: this daemon, an operator, a network manager that starts
//! again. So an address that was taken away can be put back within milliseconds, and one that
//! appears where it does not belong is found. This module never changes an address.

mod known;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use known::Known;

/// Readings that wait for the consumer; above that only the newest of each pair is kept.
const QUEUE: usize = 256;
/// Interfaces and addresses that one dump may list.
const MAX_LISTED: usize = 65_536;
const DUMP_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to open the connection again: from the first doubling to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Whether an interface has an address now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressReading {
    /// Name of the interface.
    pub interface: String,
    /// The address, without its prefix length: it is there if it is there with any.
    pub address: IpAddr,
    /// Whether it is on the interface. It says nothing of use: the interface may be down, the
    /// address tentative.
    pub present: bool,
}

/// Why the addresses cannot be watched.
#[derive(Debug, Error)]
pub enum AddressesError {
    /// The netlink socket could not be opened.
    #[error("the netlink connection for address changes could not be opened")]
    Open(#[source] io::Error),
    /// The interfaces or addresses could not be listed.
    #[error("the addresses of this host could not be listed")]
    List(#[source] rtnetlink::Error),
    /// The kernel did not answer in time.
    #[error("the kernel did not list its addresses within 5 s")]
    Late,
}

/// Watches addresses until it is dropped.
#[derive(Debug)]
pub struct AddressWatch {
    task: JoinHandle<()>,
}

impl Drop for AddressWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AddressWatch {
    /// Watches the addresses of `expected` on all interfaces of the calling thread's network
    /// namespace, on the current tokio runtime. The receiver gives the state of each expected pair
    /// of interface and address first, and each other interface that has one of the addresses; then
    /// every change. What was taken away and put back at once may be told as present twice. A
    /// consumer that falls more than 256 readings behind gets the newest state of each pair.
    ///
    /// When the kernel drops its messages because there are too many, everything is read anew.
    ///
    /// # Errors
    /// If netlink cannot be opened or does not answer.
    pub async fn start(
        expected: BTreeSet<(String, IpAddr)>,
    ) -> Result<(Self, mpsc::Receiver<AddressReading>), AddressesError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut known = Known::new(expected);
        let subscription = Subscription::open(&mut known).await?;
        let task = tokio::spawn(watch(known, subscription, sender));
        Ok((Self { task }, receiver))
    }
}

type Messages = Pin<Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send + Sync>>;

/// An open netlink connection that receives every change of an address or of a link's name.
struct Subscription {
    handle: Handle,
    messages: Messages,
    task: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscription {
    /// Subscribes first and lists then, so that no change falls between.
    async fn open(known: &mut Known) -> Result<Self, AddressesError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(AddressesError::Open)?;
        let messages = Box::pin(messages.map(|(message, _)| message.payload));
        let subscription = Self {
            handle,
            messages,
            task: tokio::spawn(connection),
        };
        subscription.list(known).await?;
        Ok(subscription)
    }

    async fn list(&self, known: &mut Known) -> Result<(), AddressesError> {
        let listed = async {
            let links = self.handle.link().get().execute();
            let links = links.take(MAX_LISTED).try_collect::<Vec<_>>().await?;
            let addresses = self.handle.address().get().execute();
            let addresses = addresses.take(MAX_LISTED).try_collect::<Vec<_>>().await?;
            Ok((links, addresses))
        };
        let (links, addresses) = timeout(DUMP_WITHIN, listed)
            .await
            .map_err(|_| AddressesError::Late)?
            .map_err(AddressesError::List)?;
        known.relist(&links, &addresses);
        Ok(())
    }
}

async fn watch(mut known: Known, first: Subscription, sender: mpsc::Sender<AddressReading>) {
    let mut subscription = Some(first);
    let mut wait = RETRY.0;
    loop {
        let Some(open) = subscription.as_mut() else {
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
            subscription = Subscription::open(&mut known).await.ok();
            if subscription.is_some() {
                wait = RETRY.0;
            }
            continue;
        };
        tokio::select! {
            // A change is handed over before the next one is read, while there is room.
            biased;
            permit = sender.reserve(), if known.has_unsent() => match permit {
                Ok(permit) => if let Some(reading) = known.next_unsent() { permit.send(reading) },
                Err(_) => return,
            },
            message = open.messages.next() => match message {
                // The kernel dropped messages: only a new list is right.
                Some(NetlinkPayload::Overrun(_)) => if open.list(&mut known).await.is_err() {
                    subscription = None;
                },
                Some(NetlinkPayload::InnerMessage(message)) => known.changed(&message),
                Some(_) => {}
                None => subscription = None,
            },
            () = sender.closed() => return,
        }
    }
}
