//! Whether interfaces have a link, as the kernel announces it.
//!
//! An interface is up while the kernel says RUNNING and LOWER_UP: set up by the administrator, with
//! carrier, and allowed by what sits on it (a bond without ports is not). One that does not exist
//! is down. This module never changes an interface.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::facts::Mac;

/// Readings that wait for the consumer; above that only the newest of each interface is kept.
const QUEUE: usize = 256;
/// Interfaces that one dump may list.
const MAX_LINKS: usize = 65_536;
const DUMP_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to open the connection again: from the first doubling to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Whether one interface has a link now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarrierReading {
    /// Name of the interface.
    pub interface: String,
    /// Whether it can carry frames.
    pub up: bool,
    /// Its Ethernet address; none while it does not exist, or where it is no Ethernet.
    pub mac: Option<Mac>,
}

/// Why the links cannot be watched.
#[derive(Debug, Error)]
pub enum CarrierError {
    /// The netlink socket could not be opened.
    #[error("the netlink connection for link changes could not be opened")]
    Open(#[source] io::Error),
    /// The links could not be listed.
    #[error("the links could not be listed")]
    List(#[source] rtnetlink::Error),
    /// The kernel did not answer in time.
    #[error("the kernel did not list its links within 5 s")]
    Late,
}

/// Watches links until it is dropped.
#[derive(Debug)]
pub struct CarrierWatch {
    task: JoinHandle<()>,
}

impl Drop for CarrierWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CarrierWatch {
    /// Watches `interfaces` of the calling thread's network namespace on the current tokio runtime.
    /// The receiver gives the state of each first, then every change. A consumer that falls more
    /// than 256 readings behind gets the newest state of each interface.
    ///
    /// # Errors
    /// If netlink cannot be opened or does not answer.
    pub async fn start(
        interfaces: Vec<String>,
    ) -> Result<(Self, mpsc::Receiver<CarrierReading>), CarrierError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut links = Links::new(interfaces);
        let subscription = Subscription::open(&mut links).await?;
        let task = tokio::spawn(watch(links, subscription, sender));
        Ok((Self { task }, receiver))
    }
}

type Messages = Pin<Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send + Sync>>;

/// An open netlink connection that receives every link change.
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
    async fn open(links: &mut Links) -> Result<Self, CarrierError> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
                .map_err(CarrierError::Open)?;
        let messages = Box::pin(messages.map(|(message, _)| message.payload));
        let subscription = Self {
            handle,
            messages,
            task: tokio::spawn(connection),
        };
        subscription.list(links).await?;
        Ok(subscription)
    }

    async fn list(&self, links: &mut Links) -> Result<(), CarrierError> {
        let listed = self
            .handle
            .link()
            .get()
            .execute()
            .take(MAX_LINKS)
            .try_collect::<Vec<_>>();
        let listed = timeout(DUMP_WITHIN, listed)
            .await
            .map_err(|_| CarrierError::Late)?
            .map_err(CarrierError::List)?;
        links.relist(&listed);
        Ok(())
    }
}

async fn watch(mut links: Links, first: Subscription, sender: mpsc::Sender<CarrierReading>) {
    let mut subscription = Some(first);
    let mut wait = RETRY.0;
    loop {
        let Some(open) = subscription.as_mut() else {
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
            subscription = Subscription::open(&mut links).await.ok();
            if subscription.is_some() {
                wait = RETRY.0;
            }
            continue;
        };
        tokio::select! {
            // A change is handed over before the next one is read, while there is room.
            biased;
            permit = sender.reserve(), if links.has_unsent() => match permit {
                Ok(permit) => if let Some(reading) = links.next_unsent() { permit.send(reading) },
                Err(_) => return,
            },
            message = open.messages.next() => match message {
                Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => {
                    links.changed(&link);
                }
                Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                    links.removed(&link);
                }
                // The kernel dropped messages: only a new list is right.
                Some(NetlinkPayload::Overrun(_)) => if open.list(&mut links).await.is_err() {
                    subscription = None;
                },
                Some(_) => {}
                None => subscription = None,
            },
            () = sender.closed() => return,
        }
    }
}

/// What is known of the watched interfaces.
#[derive(Debug)]
struct Links {
    known: BTreeMap<String, Known>,
    unsent: BTreeSet<String>,
}

/// One watched interface, as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Its index while it exists.
    index: Option<u32>,
    up: bool,
    mac: Option<Mac>,
}

impl Links {
    fn new(interfaces: Vec<String>) -> Self {
        let unsent = interfaces.iter().cloned().collect();
        Self {
            known: interfaces
                .into_iter()
                .map(|name| (name, Known::default()))
                .collect(),
            unsent,
        }
    }

    fn set(&mut self, name: &str, now: Known) {
        if let Some(known) = self.known.get_mut(name) {
            if (known.up, known.mac) != (now.up, now.mac) {
                self.unsent.insert(name.to_owned());
            }
            *known = now;
        }
    }

    fn changed(&mut self, link: &LinkMessage) {
        let Some(name) = name(link) else { return };
        let index = link.header.index;
        // The index went to another name: the interface was renamed.
        let renamed = |(before, known): (&String, &Known)| {
            (known.index == Some(index) && before != name).then(|| before.clone())
        };
        if let Some(before) = self.known.iter().find_map(renamed) {
            self.set(&before, Known::default());
        }
        let flags = link.header.flags;
        let now = Known {
            index: Some(index),
            up: flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
            mac: mac(link),
        };
        self.set(name, now);
    }

    fn removed(&mut self, link: &LinkMessage) {
        let Some(name) = name(link) else { return };
        // An interface of the same name may have come before the old one's end was read.
        if self
            .known
            .get(name)
            .is_some_and(|known| known.index == Some(link.header.index))
        {
            self.set(name, Known::default());
        }
    }

    fn relist(&mut self, listed: &[LinkMessage]) {
        let there: BTreeSet<_> = listed.iter().filter_map(name).collect();
        let absent: Vec<_> = self
            .known
            .keys()
            .filter(|name| !there.contains(name.as_str()))
            .cloned()
            .collect();
        for name in absent {
            self.set(&name, Known::default());
        }
        for link in listed {
            self.changed(link);
        }
    }

    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn next_unsent(&mut self) -> Option<CarrierReading> {
        let interface = self.unsent.pop_first()?;
        let Known { up, mac, .. } = *self.known.get(&interface)?;
        Some(CarrierReading { interface, up, mac })
    }
}

fn mac(link: &LinkMessage) -> Option<Mac> {
    let mut attributes = link.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

/// The name in a message about an interface itself. A bridge sends messages of its own family about
/// its ports, which say nothing of the port's link: leaving a bridge is not vanishing.
fn name(link: &LinkMessage) -> Option<&str> {
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        if up {
            link.header.flags = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
        }
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link
    }

    fn unsent(links: &mut Links) -> Vec<(String, bool)> {
        std::iter::from_fn(|| links.next_unsent())
            .map(|r| (r.interface, r.up))
            .collect()
    }

    #[test]
    fn each_interface_is_reported_first_and_then_at_changes_only() {
        let mut links = Links::new(vec!["a".to_owned(), "b".to_owned()]);
        links.relist(&[link(2, "a", true), link(3, "other", true)]);
        assert_eq!(
            unsent(&mut links),
            [("a".to_owned(), true), ("b".to_owned(), false)]
        );
        links.changed(&link(2, "a", true));
        links.changed(&link(3, "other", false));
        assert!(!links.has_unsent());
        links.changed(&link(2, "a", false));
        assert_eq!(unsent(&mut links), [("a".to_owned(), false)]);
    }

    #[test]
    fn renaming_and_removing_are_down_and_a_bridge_port_is_not() {
        let mut links = Links::new(vec!["a".to_owned()]);
        links.relist(&[link(2, "a", true)]);
        unsent(&mut links);
        let mut port = link(2, "a", false);
        port.header.interface_family = AddressFamily::Bridge;
        links.removed(&port);
        links.changed(&port);
        assert!(!links.has_unsent());
        links.changed(&link(2, "b", true));
        assert_eq!(unsent(&mut links), [("a".to_owned(), false)]);
        links.changed(&link(5, "a", true));
        assert_eq!(unsent(&mut links), [("a".to_owned(), true)]);
        links.removed(&link(2, "a", true));
        assert!(!links.has_unsent(), "that was the old one");
        links.removed(&link(5, "a", true));
        assert_eq!(unsent(&mut links), [("a".to_owned(), false)]);
    }
}
