//! Who says that it has a virtual IP.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shadowd::act::announce::Announcer;
use shadowd::ethernet::Mac;
use shadowd::ethernet::frames::{self, ArpForm};
use shadowd::ethernet::socket::{PacketSocket, Receives};
use shadowd::observe::neighbours::{Heard, Neighbours};

use super::namespaces::{DEADLINE, FAR_LINK, LINK, Pair, inside, ip, run, wait_until};
use super::{FAR_MAC, announce_from, claimed, name_the_far_end, open, send_from, within};

const FOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

fn both(mac: Mac) -> Vec<(String, Mac)> {
    [("192.0.2.10/24", mac), ("2001:db8::10/64", mac)]
        .map(|(vip, mac)| (vip.to_owned(), mac))
        .to_vec()
}

#[test]
fn the_other_ends_announcement_is_heard_and_ones_own_is_not() {
    let pair = Pair::new();
    let far = pair.far.clone();
    name_the_far_end(&far);
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            let mut announcer = Announcer::open(LINK).expect("the link is there");
            announcer.announce(&super::vips()).expect("the link is up");
            announce_from(&far);
            assert_eq!(claimed(&mut neighbours, 2).await, both(FAR_MAC));
            // The second form of the ARP announcement says the same.
            let counts = neighbours.counts();
            assert_eq!((counts.claims, counts.answers), (2, 0));
            assert_eq!((counts.dropped, counts.malformed), (0, 0));
            assert!(counts.frames <= 3, "the own were not even read: {counts:?}");
        });
    });
}

#[test]
fn another_hosts_kernel_that_uses_the_address_is_heard() {
    let pair = Pair::new();
    let far = pair.far.clone();
    name_the_far_end(&far);
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            // The far kernel asks for this host with the virtual IP as its own address.
            for vip in ["192.0.2.10/24", "2001:db8::10/64"] {
                ip(&format!("-n {far} addr add {vip} dev {FAR_LINK} nodad"));
            }
            ip(&format!("-n {far} neigh flush dev {FAR_LINK}"));
            for (source, target) in [("192.0.2.10", "192.0.2.1"), ("2001:db8::10", "2001:db8::1")] {
                inside(&far, move || {
                    let socket = std::net::UdpSocket::bind((source, 0)).expect("it is there");
                    socket.send_to(b"?", (target, 9)).expect("it is near");
                });
            }
            assert_eq!(claimed(&mut neighbours, 2).await, both(FAR_MAC));
        });
    });
}

#[test]
fn frames_of_no_interest_wake_nobody() {
    let pair = Pair::new();
    let far = pair.far.clone();
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            let (other, own) = (Ipv4Addr::new(192, 0, 2, 99), Ipv4Addr::new(192, 0, 2, 2));
            let silent = "2001:db8::99".parse().expect("an address");
            // Requests of others, a question for the virtual IP, probes of it, duplicate detection.
            send_from(&far, &frames::arp(ArpForm::Reply, FAR_MAC, other));
            send_from(&far, &frames::request(FAR_MAC, own, FOUR));
            send_from(&far, &frames::request(FAR_MAC, Ipv4Addr::UNSPECIFIED, FOUR));
            send_from(&far, &frames::advertisement(FAR_MAC, silent));
            send_from(&far, &frames::solicitation(FAR_MAC, silent, SIX));
            send_from(
                &far,
                &frames::solicitation(FAR_MAC, Ipv6Addr::UNSPECIFIED, SIX),
            );
            // Claims from another VLAN are of another link.
            let stranger = [0x02, 0, 0, 0, 0x0c, 0x01];
            let tagged = |priority: u8, vlan: u8, frame: &[u8]| {
                [&frame[..12], &[0x81, 0, priority, vlan], &frame[12..]].concat()
            };
            let four = frames::arp(ArpForm::Reply, stranger, FOUR);
            send_from(&far, &tagged(0, 7, &four));
            send_from(&far, &tagged(0, 7, &frames::advertisement(stranger, SIX)));
            // These are heard, also with a priority (VLAN 0), so all before them were refused.
            let four = frames::arp(ArpForm::Reply, FAR_MAC, FOUR);
            send_from(&far, &tagged(0x20, 0, &four));
            send_from(&far, &frames::advertisement(FAR_MAC, SIX));
            assert_eq!(claimed(&mut neighbours, 2).await, both(FAR_MAC));
            assert_eq!(neighbours.counts().frames, 2);
        });
    });
}

#[test]
fn every_one_of_many_virtual_ips_is_heard() {
    let pair = Pair::new();
    let far = pair.far.clone();
    inside(&pair.near, move || {
        run(async {
            let four = |n: u16| Ipv4Addr::from([198, 51, (n >> 8) as u8, n as u8]);
            // High and low last words: the filter compares them unsigned.
            let six = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, n << 8, !n);
            let vips: Vec<_> = (1..=256_u16)
                .flat_map(|n| [format!("{}/16", four(n)), format!("{}/64", six(n))])
                .map(|vip| vip.parse().expect("a vip"))
                .collect();
            assert_eq!(vips.len(), 512);
            let mut neighbours = Neighbours::open(LINK, &vips).expect("they fit");
            for n in [1, 127, 128, 129, 255, 256] {
                for frame in [
                    frames::arp(ArpForm::Request, FAR_MAC, four(n)).to_vec(),
                    frames::advertisement(FAR_MAC, six(n)).to_vec(),
                    frames::solicitation(FAR_MAC, six(n), SIX).to_vec(),
                ] {
                    send_from(&far, &frame);
                }
                let mut expected = vec![
                    (format!("{}/16", four(n)), FAR_MAC),
                    (format!("{}/64", six(n)), FAR_MAC),
                ];
                expected.sort();
                assert_eq!(claimed(&mut neighbours, 2).await, expected, "number {n}");
            }
            let more = [&vips[..], &super::vips()].concat();
            let refused = Neighbours::open(LINK, &more);
            let error = refused
                .expect_err("that is more than the bound")
                .to_string();
            assert!(error.contains("at most 512"), "{error}");
        });
    });
}

#[test]
fn a_flood_is_counted_and_does_not_keep_others_waiting() {
    let pair = Pair::new();
    let far = pair.far.clone();
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            const FLOOD: u16 = 6_000;
            inside(&far, || {
                let socket = PacketSocket::open(FAR_LINK, Receives::Nothing).expect("it is there");
                for number in 0..FLOOD {
                    let [a, b] = number.to_be_bytes();
                    let frame = frames::arp(ArpForm::Request, [2, 0, 0, 1, a, b], FOUR);
                    // What its queue does not take was not sent.
                    let _ = socket.send(&frame);
                }
            });
            let mut told = 0;
            let quiet = Duration::from_millis(200);
            while let Ok(heard) = tokio::time::timeout(quiet, neighbours.recv()).await {
                assert!(matches!(heard, Heard::Claim(_)));
                told += 1;
            }
            let counts = neighbours.counts();
            assert_eq!(told, 4);
            assert_eq!(counts.claims + counts.claims_withheld, counts.frames);
            assert!(counts.dropped > 0, "the buffer is bounded: {counts:?}");
            assert!(counts.frames + counts.dropped <= u64::from(FLOOD));
        });
    });
}

#[test]
fn a_flood_that_goes_on_is_read_at_a_bounded_rate() {
    const IN_ONE_SECOND: u64 = 4_096;
    let pair = Pair::new();
    let far = pair.far.clone();
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            let opened = Instant::now();
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let flood = std::thread::spawn(move || inside(&far, move || flood_until(&stopped)));
            let flooded = async {
                while neighbours.counts().frames <= IN_ONE_SECOND {
                    // Others have their turn, however much waits to be read.
                    tokio::select! {
                        biased;
                        _ = neighbours.recv() => {}
                        () = tokio::task::yield_now() => {}
                    }
                }
            };
            let flooded = tokio::time::timeout(DEADLINE, flooded).await;
            stop.store(true, Ordering::Relaxed);
            flood.join().expect("it only sends");
            flooded.expect("more frames are read than one second may have");
            assert!(opened.elapsed() >= Duration::from_secs(1));
            let counts = neighbours.counts();
            assert!(counts.dropped > 0 && counts.claims <= 16, "{counts:?}");
            println!("{counts:?} in {:?}", opened.elapsed());
        });
    });
}

fn flood_until(stop: &AtomicBool) {
    let socket = PacketSocket::open(FAR_LINK, Receives::Nothing).expect("the link is there");
    let frame = frames::arp(ArpForm::Request, FAR_MAC, FOUR);
    while !stop.load(Ordering::Relaxed) {
        // What its queue does not take was not sent.
        let _ = socket.send(&frame);
    }
}

#[test]
fn an_interface_that_was_down_or_made_anew_is_heard_again() {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    name_the_far_end(&far);
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            ip(&format!("-n {near} link set {LINK} down"));
            ip(&format!("-n {near} link set {LINK} up"));
            announce_from(&far);
            assert_eq!(claimed(&mut neighbours, 2).await, both(FAR_MAC));

            ip(&format!("-n {near} link del {LINK}"));
            ip(&format!(
                "-n {near} link add {LINK} type veth peer name {FAR_LINK} netns {far}"
            ));
            ip(&format!("-n {near} link set {LINK} up"));
            name_the_far_end(&far);
            ip(&format!("-n {far} link set {FAR_LINK} up"));
            // It is opened again while it is listened to.
            let reopened = async {
                while neighbours.counts().reopened == 0 {
                    let short = Duration::from_millis(10);
                    let _ = tokio::time::timeout(short, neighbours.recv()).await;
                }
            };
            within("the sockets are opened again", reopened).await;
            // What was told within the last second is not told again: another claimant.
            ip(&format!(
                "-n {far} link set {FAR_LINK} address 02:00:00:00:0b:02"
            ));
            wait_until("the link carries frames", || {
                ip(&format!("-n {near} link show {LINK}")).contains("LOWER_UP")
            });
            announce_from(&far);
            let other = [0x02, 0, 0, 0, 0x0b, 0x02];
            assert_eq!(claimed(&mut neighbours, 2).await, both(other));
        });
    });
}
