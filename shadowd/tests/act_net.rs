//! Virtual IPs and announcements between two network namespaces that are joined by a veth pair.
//!
//! Needs root and iproute2. Touches no interface of the machine: every test makes its own
//! namespaces and takes them away again.

mod namespaces;

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use namespaces::{DEADLINE, FAR_LINK, LINK, MAC, Pair, inside, ip, run, wait_until};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use shadowd::act::announce::{AnnounceError, Announcer};

use shadowd::act::vip::{VipError, Vips};
use shadowd::ethernet::frames::{self, ArpForm};
use shadowd::facts::{Epoch, HostId, Vip};
use shadowd::observe::carrier::CarrierWatch;

/// Gives `namespace` a fresh neighbour entry for `vip` that names another owner. Without a state it
/// would be permanent, and only an operator may change such an entry.
fn mislead(namespace: &str, vip: &str) {
    let entry = format!("{vip} lladdr 02:00:00:00:00:99 dev {FAR_LINK} nud reachable");
    ip(&format!("-n {namespace} neigh replace {entry}"));
}

fn vips() -> Vec<Vip> {
    ["192.0.2.10/24", "2001:db8::10/64"]
        .map(|vip| vip.parse().expect("a vip"))
        .to_vec()
}

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        owner: HostId::from_bytes([1; 32]),
    }
}

#[test]
fn addresses_come_and_go_and_a_stale_epoch_changes_nothing() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            let vips = vips();
            let held = Vips::open(LINK).expect("the link is there");
            held.add(&vips, epoch(5))
                .await
                .expect("the addresses are free");
            assert_eq!(held.held(&vips).await.expect("readable"), vips);

            let listed = ip(&format!("-n {near} addr show dev {LINK}"));
            assert!(listed.contains("inet 192.0.2.10/32"), "{listed}");
            let six = listed
                .lines()
                .find(|line| line.contains("2001:db8::10/128"));
            let six = six.expect("the IPv6 address is there");
            assert!(six.contains("nodad") && six.contains("deprecated"), "{six}");
            assert!(!six.contains("tentative"), "usable at once: {six}");

            held.add(&vips, epoch(5))
                .await
                .expect("adding again is fine");
            let stale = held.remove(&vips, epoch(4)).await;
            assert!(matches!(stale, Err(VipError::Epoch { .. })), "{stale:?}");
            assert_eq!(held.held(&vips).await.expect("readable"), vips);

            held.remove(&vips, epoch(6)).await.expect("they are there");
            held.remove(&vips, epoch(6))
                .await
                .expect("removing again is fine");
            assert!(held.held(&vips).await.expect("readable").is_empty());
            let stale = held.add(&vips, epoch(5)).await;
            assert!(matches!(stale, Err(VipError::Epoch { .. })), "{stale:?}");
        });
    });
}

#[test]
fn leftovers_go_whatever_their_prefix_and_the_hosts_own_addresses_stay() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            for vip in ["192.0.2.10/24", "192.0.2.10/32", "2001:db8::10/64"] {
                ip(&format!("-n {near} addr add {vip} dev {LINK}"));
            }
            let vips = vips();
            let held = Vips::open(LINK).expect("the link is there");
            assert_eq!(
                held.release_all(&vips).await.expect("they can be removed"),
                vips
            );
            assert!(
                held.release_all(&vips)
                    .await
                    .expect("nothing to do")
                    .is_empty()
            );
            let listed = ip(&format!("-n {near} addr show dev {LINK}"));
            assert!(listed.contains("192.0.2.1/24") && listed.contains("2001:db8::1/64"));

            assert!(
                held.without_network(&vips)
                    .await
                    .expect("readable")
                    .is_empty()
            );
            let elsewhere: Vip = "198.51.100.1/24".parse().expect("a vip");
            let bare = held.without_network(&[elsewhere]).await.expect("readable");
            assert_eq!(bare, [elsewhere]);
        });
    });
}

#[test]
fn a_virtual_ip_is_not_the_source_of_new_connections() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            // The host's own addresses come last: order must not matter.
            for own in ["192.0.2.1/24", "2001:db8::1/64"] {
                ip(&format!("-n {near} addr del {own} dev {LINK}"));
            }
            let held = Vips::open(LINK).expect("the link is there");
            held.add(&vips(), epoch(1))
                .await
                .expect("the addresses are free");
            for own in ["192.0.2.1/24", "2001:db8::1/64"] {
                ip(&format!("-n {near} addr add {own} dev {LINK} nodad"));
            }
            ip(&format!("-n {near} route add default via 192.0.2.2"));
            ip(&format!("-n {near} -6 route add default via 2001:db8::2"));
            for (to, source) in [
                ("192.0.2.2", "src 192.0.2.1 "),
                ("198.51.100.1", "src 192.0.2.1 "),
                ("2001:db8::2", "src 2001:db8::1 "),
                ("2001:db8:1::1", "src 2001:db8::1 "),
            ] {
                let route = ip(&format!("-n {near} route get {to}"));
                assert!(route.contains(source), "{route}");
            }
        });
    });
}

#[test]
fn neighbours_see_the_frames_and_learn_the_new_owner() {
    let pair = Pair::new();
    let far = pair.far.clone();
    for vip in ["192.0.2.10", "2001:db8::10"] {
        mislead(&far, vip);
    }
    let capture = inside(&pair.far, || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let capture = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )
        .expect("root may capture");
        setsockopt(
            &capture,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(100),
        )
        .expect("a valid timeout");
        capture
    });
    // The addresses are not on the interface: frames must leave before they are usable.
    let sent = inside(&pair.near, || {
        let mut announcer = Announcer::open(LINK).expect("the link is there");
        announcer.announce(&vips()).expect("the link is up")
    });
    assert_eq!(sent, 3);

    let mut expected: Vec<Vec<u8>> = Vec::new();
    for vip in vips() {
        match vip.address {
            IpAddr::V4(address) => {
                expected.push(frames::arp(ArpForm::Request, MAC, address).to_vec());
                expected.push(frames::arp(ArpForm::Reply, MAC, address).to_vec());
            }
            IpAddr::V6(address) => expected.push(frames::advertisement(MAC, address).to_vec()),
        }
    }
    let end = Instant::now() + DEADLINE;
    while !expected.is_empty() {
        let mut frame = [0; 2048];
        match recv(capture.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => expected.retain(|wanted| wanted[..] != frame[..length]),
            Err(Errno::EAGAIN) => {
                assert!(Instant::now() < end, "never seen: {expected:02x?}");
            }
            Err(error) => panic!("capture: {error}"),
        }
    }
    for vip in ["192.0.2.10", "2001:db8::10"] {
        wait_until("the neighbour entry follows the announcement", || {
            ip(&format!("-n {far} neigh show {vip}")).contains("02:00:00:00:0a:01")
        });
    }
}

#[test]
fn a_changed_hardware_address_and_a_new_interface_are_noticed() {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    let learned = move |mac: &str| {
        wait_until("the neighbour entry has the address of now", || {
            ip(&format!("-n {far} neigh show 192.0.2.10")).contains(mac)
        });
    };
    mislead(&pair.far, "192.0.2.10");
    let far = pair.far.clone();
    inside(&pair.near, move || {
        let vips = vips();
        let mut announcer = Announcer::open(LINK).expect("the link is there");
        ip(&format!(
            "-n {near} link set {LINK} address 02:00:00:00:0a:02"
        ));
        announcer.announce(&vips).expect("the link is up");
        learned("02:00:00:00:0a:02");

        ip(&format!("-n {near} link del {LINK}"));
        let gone = announcer.announce(&vips);
        assert!(
            matches!(gone, Err(AnnounceError::NoInterface(_))),
            "{gone:?}"
        );
        ip(&format!(
            "-n {near} link add {LINK} address 02:00:00:00:0a:03 type veth \
 peer name {FAR_LINK} netns {far}"
        ));
        let down = announcer.announce(&vips);
        assert!(
            matches!(down, Err(AnnounceError::Send { sent: 0, .. })),
            "{down:?}"
        );
        ip(&format!("-n {near} link set {LINK} up"));
        ip(&format!("-n {far} link set {FAR_LINK} up"));
        ip(&format!("-n {far} addr add 192.0.2.2/24 dev {FAR_LINK}"));
        mislead(&far, "192.0.2.10");
        assert_eq!(announcer.announce(&vips).expect("the link is up again"), 3);
        learned("02:00:00:00:0a:03");
    });
}

#[test]
fn the_first_announcement_after_a_link_came_back_is_complete() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        let mut announcer = Announcer::open(LINK).expect("the link is there");
        ip(&format!("-n {near} link set {LINK} down"));
        let down = announcer.announce(&vips());
        assert!(
            matches!(down, Err(AnnounceError::Send { sent: 0, .. })),
            "{down:?}"
        );
        ip(&format!("-n {near} link set {LINK} up"));
        assert_eq!(announcer.announce(&vips()).expect("the link is up"), 3);
        ip(&format!("-n {near} link set {LINK} down"));
        ip(&format!("-n {near} link set {LINK} up"));
        assert_eq!(
            announcer.announce(&vips()).expect("the link is up again"),
            3
        );
    });
}

#[test]
fn thirty_two_addresses_come_and_go_together_and_one_refusal_stops_no_other() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            let vip = |n: u32| match n % 2 {
                0 => format!("192.0.2.{}/24", 10 + n).parse().expect("a vip"),
                _ => format!("2001:db8::{:x}/64", 0x10 + n)
                    .parse()
                    .expect("a vip"),
            };
            let vips: Vec<Vip> = (0..32).map(vip).collect();
            let held = Vips::open(LINK).expect("the link is there");
            held.add(&vips, epoch(1))
                .await
                .expect("the addresses are free");
            assert_eq!(held.held(&vips).await.expect("readable"), vips);
            held.remove(&vips, epoch(2)).await.expect("they are there");
            assert!(held.held(&vips).await.expect("readable").is_empty());

            // Without IPv6 on the interface its half is refused; the IPv4 half must be there.
            let setting = format!("net.ipv6.conf.{LINK}.disable_ipv6=1");
            ip(&format!("netns exec {near} sysctl -qw {setting}"));
            let refused = held.add(&vips, epoch(3)).await;
            assert!(
                matches!(refused, Err(VipError::Refused { .. })),
                "{refused:?}"
            );
            assert_eq!(held.held(&vips).await.expect("readable").len(), 16);

            // An interface that is gone holds nothing, so releasing it is no failure.
            ip(&format!("-n {near} link del {LINK}"));
            held.remove(&vips, epoch(4)).await.expect("nothing is left");
            let gone = held.add(&vips, epoch(5)).await;
            assert!(
                matches!(gone, Err(VipError::NoInterface { .. })),
                "{gone:?}"
            );
        });
    });
}

#[test]
fn an_interface_without_ethernet_addresses_is_refused() {
    let pair = Pair::new();
    let refused = inside(&pair.near, || Announcer::open("lo").map(|_| ()));
    assert!(
        matches!(refused, Err(AnnounceError::NotEthernet(_))),
        "{refused:?}"
    );
}

#[test]
fn carrier_is_read_at_start_and_followed() {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    inside(&pair.near, move || {
        run(async {
            let names = vec![LINK.to_owned(), "absent".to_owned()];
            let (_watch, mut readings) = CarrierWatch::start(names).await.expect("netlink");
            let mut next = async |interface: &str, up: bool| {
                let seen = async {
                    loop {
                        let reading = readings.recv().await.expect("the watch runs");
                        if (reading.interface.as_str(), reading.up) == (interface, up) {
                            return reading.mac;
                        }
                    }
                };
                let seen = tokio::time::timeout(DEADLINE, seen).await;
                let mac = seen.unwrap_or_else(|_| panic!("no reading of {interface}, {up}"));
                assert!(!up || mac.is_some(), "an Ethernet interface has an address");
            };
            next("absent", false).await;
            next(LINK, true).await;
            ip(&format!("-n {far} link set {FAR_LINK} down"));
            next(LINK, false).await;
            ip(&format!("-n {far} link set {FAR_LINK} up"));
            next(LINK, true).await;
            ip(&format!("-n {near} link set {LINK} down"));
            next(LINK, false).await;
            ip(&format!("-n {near} link set {LINK} up"));
            next(LINK, true).await;
            ip(&format!("-n {near} link set {LINK} name other"));
            next(LINK, false).await;
            ip(&format!("-n {near} link set other name {LINK}"));
            next(LINK, true).await;
            ip(&format!("-n {near} link del {LINK}"));
            next(LINK, false).await;
        });
    });
}
