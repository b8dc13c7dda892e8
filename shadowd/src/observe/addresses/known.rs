//! What is known of the watched addresses, from netlink messages. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::AddressReading;

/// Interfaces that are known at once. Of those beyond, addresses are not told.
const MAX_LINKS: usize = 65_536;

#[derive(Debug)]
pub(super) struct Known {
    addresses: BTreeSet<IpAddr>,
    /// Names of the interfaces by index.
    names: BTreeMap<u32, String>,
    /// Where the addresses are, as (interface, address, prefix length). The kernel knows an address
    /// once for each.
    there: BTreeSet<(u32, IpAddr, u8)>,
    unsent: BTreeSet<(String, IpAddr)>,
}

impl Known {
    /// Each of `expected` is told first, whether it is there or not.
    pub fn new(expected: BTreeSet<(String, IpAddr)>) -> Self {
        Self {
            addresses: expected.iter().map(|(_, address)| *address).collect(),
            names: BTreeMap::new(),
            there: BTreeSet::new(),
            unsent: expected,
        }
    }

    pub fn changed(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(place) = place(message) {
                    self.added(place);
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(place) = place(message) {
                    self.removed(place);
                }
            }
            RouteNetlinkMessage::NewLink(link) => {
                if let Some(name) = name(link) {
                    self.named(link.header.index, name);
                }
            }
            RouteNetlinkMessage::DelLink(link) if name(link).is_some() => {
                self.gone(link.header.index);
            }
            _ => {}
        }
    }

    /// The kernel's list is right, whatever was known.
    pub fn relist(&mut self, links: &[LinkMessage], addresses: &[AddressMessage]) {
        let there: BTreeSet<_> = links.iter().map(|link| link.header.index).collect();
        let known: Vec<_> = self.names.keys().copied().collect();
        for index in known.into_iter().filter(|index| !there.contains(index)) {
            self.gone(index);
        }
        for link in links {
            if let Some(name) = name(link) {
                self.named(link.header.index, name);
            }
        }
        let listed: BTreeSet<_> = addresses.iter().filter_map(place).collect();
        let left: Vec<_> = self.there.difference(&listed).copied().collect();
        for place in left {
            self.removed(place);
        }
        for place in listed {
            self.added(place);
        }
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub fn next_unsent(&mut self) -> Option<AddressReading> {
        let (interface, address) = self.unsent.pop_first()?;
        let index = self.names.iter().find(|(_, name)| **name == interface);
        let present = index.is_some_and(|(index, _)| self.has(*index, address));
        Some(AddressReading {
            interface,
            address,
            present,
        })
    }

    fn has(&self, index: u32, address: IpAddr) -> bool {
        let any_prefix = (index, address, 0)..=(index, address, u8::MAX);
        self.there.range(any_prefix).next().is_some()
    }

    fn added(&mut self, place: (u32, IpAddr, u8)) {
        let (index, address, _) = place;
        // Without a name it cannot be told; the kernel announces a link before its addresses.
        if !self.addresses.contains(&address) || !self.names.contains_key(&index) {
            return;
        }
        let is_news = !self.has(index, address);
        self.there.insert(place);
        if is_news {
            self.tell(index, address);
        }
    }

    fn removed(&mut self, place: (u32, IpAddr, u8)) {
        let (index, address, _) = place;
        if self.there.remove(&place) && !self.has(index, address) {
            self.tell(index, address);
        }
    }

    fn named(&mut self, index: u32, name: &str) {
        let is_full = self.names.len() >= MAX_LINKS && !self.names.contains_key(&index);
        if self.names.get(&index).is_some_and(|known| known == name) || is_full {
            return;
        }
        // The interface was renamed: its addresses are not under the old name and are under the new.
        self.tell_all(index);
        self.names.insert(index, name.to_owned());
        self.tell_all(index);
    }

    fn gone(&mut self, index: u32) {
        self.tell_all(index);
        self.there.retain(|(known, _, _)| *known != index);
        self.names.remove(&index);
    }

    fn tell_all(&mut self, index: u32) {
        let here = self.there.iter().filter(|(known, _, _)| *known == index);
        let here: Vec<_> = here.map(|(_, address, _)| *address).collect();
        for address in here {
            self.tell(index, address);
        }
    }

    fn tell(&mut self, index: u32, address: IpAddr) {
        if let Some(name) = self.names.get(&index) {
            self.unsent.insert((name.clone(), address));
        }
    }
}

/// Where a message says that an address is. The interface's own address is IFA_LOCAL, or
/// IFA_ADDRESS where that is all there is (IPv6 without a peer).
fn place(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let mut plain = None;
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => plain = Some(*address),
            _ => {}
        }
    }
    let header = &message.header;
    Some((header.index, local.or(plain)?, header.prefix_len))
}

/// The name in a message about an interface itself; a bridge sends messages of its own family about
/// its ports.
fn name(link: &LinkMessage) -> Option<&str> {
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut attributes = link.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage::{DelAddress, DelLink, NewAddress, NewLink};

    use super::*;

    fn vip() -> IpAddr {
        "192.0.2.10".parse().expect("an address")
    }

    fn link(index: u32, name: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link
    }

    fn address(index: u32, prefix: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        message.attributes.push(AddressAttribute::Local(vip()));
        message
    }

    fn told(known: &mut Known) -> Vec<(String, bool)> {
        let unsent = std::iter::from_fn(|| known.next_unsent());
        unsent
            .map(|reading| (reading.interface, reading.present))
            .collect()
    }

    fn known(addresses: &[AddressMessage]) -> Known {
        let mut known = Known::new([("a".to_owned(), vip())].into());
        known.relist(&[link(2, "a"), link(3, "b")], addresses);
        known
    }

    fn readings(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        let owned = |(name, present): &(&str, bool)| ((*name).to_owned(), *present);
        expected.iter().map(owned).collect()
    }

    #[test]
    fn the_expected_place_is_told_first_and_any_other_that_has_the_address() {
        assert_eq!(told(&mut known(&[])), readings(&[("a", false)]));
        let mut known = known(&[address(3, 24)]);
        assert_eq!(told(&mut known), readings(&[("a", false), ("b", true)]));
    }

    #[test]
    fn changes_are_told_and_two_prefixes_are_one_address() {
        let mut known = known(&[address(2, 32)]);
        assert_eq!(told(&mut known), readings(&[("a", true)]));
        known.changed(&NewAddress(address(2, 32)));
        known.changed(&NewAddress(address(2, 24)));
        known.changed(&DelAddress(address(2, 32)));
        assert!(!known.has_unsent());
        known.changed(&DelAddress(address(2, 24)));
        assert_eq!(told(&mut known), readings(&[("a", false)]));
        known.changed(&NewAddress(address(3, 32)));
        assert_eq!(told(&mut known), readings(&[("b", true)]));
        known.changed(&DelAddress(address(2, 24)));
        assert!(!known.has_unsent());
    }

    #[test]
    fn renaming_and_removing_an_interface_move_its_addresses() {
        let mut known = known(&[address(2, 32)]);
        told(&mut known);
        let mut port = link(2, "a");
        port.header.interface_family = AddressFamily::Bridge;
        known.changed(&DelLink(port));
        assert!(!known.has_unsent(), "it left a bridge");
        known.changed(&NewLink(link(2, "c")));
        assert_eq!(told(&mut known), readings(&[("a", false), ("c", true)]));
        known.changed(&DelLink(link(2, "c")));
        assert_eq!(told(&mut known), readings(&[("c", false)]));
        known.changed(&NewAddress(address(9, 32)));
        assert!(!known.has_unsent(), "that interface is not known");
    }

    #[test]
    fn a_new_list_is_right_whatever_was_known() {
        let mut known = known(&[address(2, 32)]);
        told(&mut known);
        known.relist(&[link(2, "a"), link(4, "b")], &[address(4, 32)]);
        assert_eq!(told(&mut known), readings(&[("a", false), ("b", true)]));
        known.relist(&[link(2, "a"), link(4, "b")], &[address(4, 32)]);
        assert!(!known.has_unsent());
        known.relist(&[link(2, "b"), link(4, "a")], &[address(4, 32)]);
        assert_eq!(told(&mut known), readings(&[("a", true), ("b", false)]));
    }
}
