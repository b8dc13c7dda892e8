//! Virtual IPs on one interface, through one netlink connection opened at start.
//!
//! An address is installed with the full prefix length (/32, /128) whatever prefix is written, so
//! that owning or losing it changes nothing else on the host:
//! - With its network's prefix an IPv4 address could become the primary of that network. Then it
//!   would be the source of new connections, and removing it would remove the host's own addresses
//!   with it (`promote_secondaries` is 0 by default). As a /32 it holds no network, so the kernel
//!   prefers the host's own address towards every neighbour and gateway.
//! - It brings no route and takes none away; the route of its network comes with the host's own
//!   address there. [`Vips::without_network`] finds the addresses that have none.
//! - IPv6 is added without duplicate address detection, which would cost more than a second, and
//!   with a preferred lifetime of zero: a deprecated address serves, but is not chosen as a source
//!   (RFC 6724, rule 3).
//!
//! This module never decides who owns an address and never announces it.

mod message;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::address::AddressMessage;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rtnetlink::Handle;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::epochs::{EpochError, Epochs};
use crate::facts::{Epoch, Vip};
use message::{added, host_prefix, local, removed, removed_exactly};

/// How long the kernel may take to acknowledge. It takes a fraction of a millisecond; this bounds
/// the wait for the lock that all changes of the host's network share.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(1);

/// One address may be there with several prefix lengths; each round removes one of each.
const REMOVAL_ROUNDS: usize = 4;

/// Addresses of one interface that are looked at; a host has far fewer.
const MAX_ADDRESSES: usize = 65_536;

/// Why virtual IPs could not be changed or read.
#[derive(Debug, Error)]
pub enum VipError {
    /// There is no such interface.
    #[error("interface {interface} is not there")]
    NoInterface {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The netlink socket could not be opened.
    #[error("the netlink connection for interface {interface} could not be opened")]
    Open {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused an address; the others were tried.
    #[error("{vip} was refused on interface {interface}")]
    Refused {
        /// The interface.
        interface: String,
        /// The first address that was refused.
        vip: Vip,
        /// Why. Adding an address needs CAP_NET_ADMIN.
        #[source]
        source: rtnetlink::Error,
    },
    /// The addresses of the interface could not be read.
    #[error("the addresses of interface {interface} could not be read")]
    Read {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// The kernel did not answer in time. Whether the request took effect is unknown.
    #[error("the kernel did not answer within 1 s for interface {interface}")]
    Late {
        /// The interface.
        interface: String,
    },
    /// The netlink connection ended before the answer. The next call opens another.
    #[error("the netlink connection for interface {interface} ended")]
    Lost {
        /// The interface.
        interface: String,
    },
    /// An address is still there after it was removed again and again: something adds it back.
    #[error("{vip} stays on interface {interface}: something adds it back")]
    Remains {
        /// The interface.
        interface: String,
        /// The address.
        vip: Vip,
    },
    /// The action came too late.
    #[error("the change on interface {interface} was refused")]
    Epoch {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: EpochError,
    },
}

/// The virtual IPs of one interface.
#[derive(Debug)]
pub struct Vips {
    interface: String,
    netlink: Mutex<Netlink>,
    epochs: Epochs<IpAddr>,
}

/// A netlink socket and the task that drives it.
#[derive(Debug)]
struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Vips {
    /// Opens the netlink connection in the calling thread's network namespace and drives it on the
    /// current tokio runtime, on which all calls must be made.
    ///
    /// # Errors
    /// [`VipError::NoInterface`] or [`VipError::Open`].
    pub fn open(interface: &str) -> Result<Self, VipError> {
        let netlink = Netlink::open().map_err(|source| VipError::Open {
            interface: interface.to_owned(),
            source,
        })?;
        let interface = interface.to_owned();
        let vips = Self {
            interface,
            netlink: Mutex::new(netlink),
            epochs: Epochs::default(),
        };
        vips.index()?;
        Ok(vips)
    }

    /// Adds `vips`; one that is already there is fine. All requests leave before the first
    /// acknowledgement is awaited.
    ///
    /// # Errors
    /// [`VipError::Epoch`] before anything is touched, if a newer epoch was seen for one of them;
    /// otherwise the first error, after all were tried.
    pub async fn add(&self, vips: &[Vip], epoch: Epoch) -> Result<(), VipError> {
        self.admit(vips, epoch)?;
        let index = self.index()?;
        let handle = self.handle()?;
        let requests = vips.iter().map(|vip| {
            let mut request = handle
                .address()
                .add(index, vip.address, host_prefix(vip.address));
            *request.message_mut() = added(index, vip.address);
            async move { accepted(*vip, request.execute().await, &[libc::EEXIST]) }
        });
        self.acknowledged(join_all(requests)).await
    }

    /// Removes `vips`, with whatever prefix length they are there; one that is not there is fine.
    /// After success the interface has none of them.
    ///
    /// # Errors
    /// As [`Vips::add`], and [`VipError::Remains`].
    pub async fn remove(&self, vips: &[Vip], epoch: Epoch) -> Result<(), VipError> {
        self.admit(vips, epoch)?;
        self.take_off(vips).await
    }

    /// Those of `vips` that the interface has now, with whatever prefix length.
    ///
    /// # Errors
    /// If the interface is gone or its addresses cannot be read.
    pub async fn held(&self, vips: &[Vip]) -> Result<Vec<Vip>, VipError> {
        let there: BTreeSet<_> = self
            .addresses()
            .await?
            .into_iter()
            .map(|(a, _)| a)
            .collect();
        Ok(vips
            .iter()
            .filter(|vip| there.contains(&vip.address))
            .copied()
            .collect())
    }

    /// Those of `vips` in whose network the interface has no other address: without a route of the
    /// operator's, this host could not answer neighbours there.
    ///
    /// # Errors
    /// As [`Vips::held`].
    pub async fn without_network(&self, vips: &[Vip]) -> Result<Vec<Vip>, VipError> {
        let own: Vec<_> = self
            .addresses()
            .await?
            .into_iter()
            .map(|(a, _)| a)
            .collect();
        let own = own
            .iter()
            .filter(|address| vips.iter().all(|vip| vip.address != **address));
        let bare = |vip: &&Vip| !own.clone().any(|address| same_network(**vip, *address));
        Ok(vips.iter().filter(bare).copied().collect())
    }

    /// Removes what an earlier run of the daemon left behind, before any epoch is known; gives what
    /// was there. Only for the start of the daemon.
    ///
    /// # Errors
    /// As [`Vips::remove`].
    pub async fn release_all(&self, vips: &[Vip]) -> Result<Vec<Vip>, VipError> {
        let held = self.held(vips).await?;
        self.take_off(&held).await?;
        Ok(held)
    }

    /// Removes those of `addresses` that a daemon put there, which gives them the full prefix length:
    /// one that the host has for itself stays. Gives what was there. For what is not configured any
    /// more, before its guard goes.
    ///
    /// # Errors
    /// As [`Vips::remove`].
    pub async fn release_forgotten(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, VipError> {
        let there = self.addresses().await?.into_iter();
        let put = |(address, prefix): &(IpAddr, u8)| {
            *prefix == host_prefix(*address) && addresses.contains(address)
        };
        let put: Vec<Vip> = there
            .filter(put)
            .map(|(address, prefix)| Vip { address, prefix })
            .collect();
        self.remove_each(&put, removed_exactly).await?;
        Ok(put.into_iter().map(|vip| vip.address).collect())
    }

    /// Removes each with the prefix length that it has here.
    async fn remove_each(
        &self,
        vips: &[Vip],
        request: fn(u32, IpAddr, u8) -> AddressMessage,
    ) -> Result<(), VipError> {
        let Ok(index) = self.index() else {
            // An interface that is gone holds no address.
            return Ok(());
        };
        let handle = self.handle()?;
        let requests = vips.iter().map(|vip| {
            let request = request(index, vip.address, vip.prefix);
            let request = handle.address().del(request);
            let gone = [libc::EADDRNOTAVAIL, libc::ENODEV];
            async move { accepted(*vip, request.execute().await, &gone) }
        });
        self.acknowledged(join_all(requests)).await
    }

    async fn take_off(&self, vips: &[Vip]) -> Result<(), VipError> {
        let with = |vip: &Vip, prefix| Vip { prefix, ..*vip };
        let mut there: Vec<_> = vips
            .iter()
            .map(|vip| with(vip, host_prefix(vip.address)))
            .collect();
        for _ in 0..REMOVAL_ROUNDS {
            if there.is_empty() || self.index().is_err() {
                return Ok(());
            }
            self.remove_each(&there, removed).await?;
            // The kernel matches an IPv6 address with its prefix only, and an IPv4 address may be
            // there twice: look, rather than believe that nothing is left.
            let left = self.addresses().await?;
            let find = |vip: &Vip| left.iter().find(|(address, _)| *address == vip.address);
            there = vips
                .iter()
                .filter_map(|vip| Some(with(vip, find(vip)?.1)))
                .collect();
        }
        match there.first() {
            None => Ok(()),
            Some(vip) => Err(VipError::Remains {
                interface: self.interface.clone(),
                vip: *vip,
            }),
        }
    }

    /// Every address of the interface with its prefix length.
    async fn addresses(&self) -> Result<Vec<(IpAddr, u8)>, VipError> {
        let request = self
            .handle()?
            .address()
            .get()
            .set_link_index_filter(self.index()?);
        let messages = request
            .execute()
            .take(MAX_ADDRESSES)
            .try_collect::<Vec<_>>();
        let messages = timeout(ACKNOWLEDGE_WITHIN, messages)
            .await
            .map_err(|_| VipError::Late {
                interface: self.interface.clone(),
            })?
            .map_err(|source| VipError::Read {
                interface: self.interface.clone(),
                source,
            })?;
        self.still_connected()?;
        Ok(messages.iter().filter_map(local).collect())
    }

    async fn acknowledged(
        &self,
        answers: impl Future<Output = Vec<Result<(), (Vip, rtnetlink::Error)>>>,
    ) -> Result<(), VipError> {
        let answers = timeout(ACKNOWLEDGE_WITHIN, answers)
            .await
            .map_err(|_| VipError::Late {
                interface: self.interface.clone(),
            })?;
        // A request whose connection ends looks as if it had succeeded.
        self.still_connected()?;
        answers
            .into_iter()
            .collect::<Result<(), _>>()
            .map_err(|(vip, source)| VipError::Refused {
                interface: self.interface.clone(),
                vip,
                source,
            })
    }

    fn admit(&self, vips: &[Vip], epoch: Epoch) -> Result<(), VipError> {
        self.epochs
            .admit(vips.iter().map(|vip| &vip.address), epoch)
            .map_err(|source| VipError::Epoch {
                interface: self.interface.clone(),
                source,
            })
    }

    /// The index is asked for each time: an interface that was made again has another one.
    fn index(&self) -> Result<u32, VipError> {
        if_nametoindex(self.interface.as_str()).map_err(|source| VipError::NoInterface {
            interface: self.interface.clone(),
            source,
        })
    }

    /// A handle to the connection; opens another connection if the last one ended.
    fn handle(&self) -> Result<Handle, VipError> {
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        if netlink.task.is_finished() {
            *netlink = Netlink::open().map_err(|source| VipError::Open {
                interface: self.interface.clone(),
                source,
            })?;
        }
        Ok(netlink.handle.clone())
    }

    fn still_connected(&self) -> Result<(), VipError> {
        let netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        if netlink.task.is_finished() {
            return Err(VipError::Lost {
                interface: self.interface.clone(),
            });
        }
        Ok(())
    }
}

/// Turns the kernel's answer for one address into a result; error numbers in `fine` say that the
/// wanted state was there already.
fn accepted(
    vip: Vip,
    answer: Result<(), rtnetlink::Error>,
    fine: &[i32],
) -> Result<(), (Vip, rtnetlink::Error)> {
    match answer {
        Err(rtnetlink::Error::NetlinkError(error)) if fine.contains(&-error.raw_code()) => Ok(()),
        other => other.map_err(|error| (vip, error)),
    }
}

/// Whether `address` lies in the network that `vip` is written with.
fn same_network(vip: Vip, address: IpAddr) -> bool {
    match (vip.address, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let host_bits = 32_u32.saturating_sub(vip.prefix.into());
            (u32::from(a) ^ u32::from(b))
                .checked_shr(host_bits)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let host_bits = 128_u32.saturating_sub(vip.prefix.into());
            (u128::from(a) ^ u128::from(b))
                .checked_shr(host_bits)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_ends_at_its_prefix() {
        let same = |vip: &str, address: &str| {
            same_network(
                vip.parse().expect("a vip"),
                address.parse().expect("an address"),
            )
        };
        assert!(same("192.0.2.10/24", "192.0.2.1"));
        assert!(!same("192.0.2.10/32", "192.0.2.11"));
        assert!(!same("192.0.2.10/25", "192.0.2.200"));
        assert!(same("2001:db8::10/64", "2001:db8::1"));
        assert!(!same("2001:db8::10/64", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.10/24", "2001:db8::1"));
    }

    #[tokio::test]
    async fn an_unknown_interface_is_named() {
        let error = Vips::open("no-such-link").expect_err("there is no such interface");
        assert_eq!(error.to_string(), "interface no-such-link is not there");
    }
}
