//! Whether the virtual IPs are there, whoever adds or removes them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use shadowd::act::vip::Vips;
use shadowd::facts::{Epoch, HostId};
use shadowd::observe::addresses::{AddressReading, AddressWatch};
use tokio::sync::mpsc::Receiver;

use super::namespaces::{LINK, Pair, inside, ip, run};
use super::{vips, within};

const TEXT: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

fn expected() -> BTreeSet<(String, IpAddr)> {
    let pair = |address: &str| (LINK.to_owned(), address.parse().expect("an address"));
    TEXT.map(pair).into()
}

/// Waits for this reading; others before it are skipped.
async fn next(readings: &mut Receiver<AddressReading>, interface: &str, address: &str, is: bool) {
    let wanted = AddressReading {
        interface: interface.to_owned(),
        address: address.parse().expect("an address"),
        present: is,
    };
    let seen = async { while readings.recv().await.expect("the watch runs") != wanted {} };
    within(&format!("{wanted:?}"), seen).await;
}

#[test]
fn what_anybody_adds_or_removes_is_told() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            let (_watch, mut readings) = AddressWatch::start(expected()).await.expect("netlink");
            for address in TEXT {
                next(&mut readings, LINK, address, false).await;
            }
            let held = Vips::open(LINK).expect("the link is there");
            let epoch = Epoch {
                counter: 1,
                owner: HostId::from_bytes([1; 32]),
            };
            held.add(&vips(), epoch).await.expect("they are free");
            for address in TEXT {
                next(&mut readings, LINK, address, true).await;
            }
            for (address, prefix) in TEXT.into_iter().zip([32, 128]) {
                ip(&format!("-n {near} addr del {address}/{prefix} dev {LINK}"));
                let removed = Instant::now();
                next(&mut readings, LINK, address, false).await;
                println!("{address} told {:?} after ip has ended", removed.elapsed());
            }
            // Put back, and taken away with everything else of the interface.
            held.add(&vips(), epoch).await.expect("they are free");
            for address in TEXT {
                next(&mut readings, LINK, address, true).await;
            }
            ip(&format!("-n {near} addr flush dev {LINK}"));
            for address in TEXT {
                next(&mut readings, LINK, address, false).await;
            }
        });
    });
}

#[test]
fn another_interface_a_new_name_and_a_link_that_goes_are_told() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            ip(&format!("-n {near} addr add 192.0.2.10/32 dev lo"));
            let (_watch, mut readings) = AddressWatch::start(expected()).await.expect("netlink");
            next(&mut readings, "lo", TEXT[0], true).await;
            for (address, prefix) in TEXT.into_iter().zip([32, 128]) {
                ip(&format!("-n {near} addr add {address}/{prefix} dev {LINK}"));
                next(&mut readings, LINK, address, true).await;
            }
            ip(&format!("-n {near} addr del 192.0.2.10/32 dev lo"));
            next(&mut readings, "lo", TEXT[0], false).await;
            // The kernel takes IPv6 addresses away from a link that is set down.
            ip(&format!("-n {near} link set {LINK} down"));
            next(&mut readings, LINK, TEXT[1], false).await;
            ip(&format!("-n {near} link set {LINK} name other"));
            next(&mut readings, "other", TEXT[0], true).await;
            ip(&format!("-n {near} link set other name {LINK}"));
            next(&mut readings, LINK, TEXT[0], true).await;
            ip(&format!("-n {near} link del {LINK}"));
            next(&mut readings, LINK, TEXT[0], false).await;
        });
    });
}

#[test]
fn nothing_is_missed_when_the_kernel_drops_its_messages() {
    const OTHERS: u32 = 6_000;
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            ip(&format!("-n {near} addr add 192.0.2.10/32 dev {LINK}"));
            let (_watch, mut readings) = AddressWatch::start(expected()).await.expect("netlink");
            next(&mut readings, LINK, TEXT[0], true).await;
            // The runtime has one thread, which waits for `ip`: nobody reads the netlink socket.
            let other = |n: u32| format!("10.0.{}.{}/32 dev {LINK}", n >> 8, n & 0xff);
            let mut lines: String = (0..OTHERS)
                .map(|n| format!("addr add {}\n", other(n)))
                .collect();
            lines += &format!("addr del 192.0.2.10/32 dev {LINK}\n");
            lines += &format!("addr add 2001:db8::10/128 dev {LINK} nodad\n");
            batch(&near, &lines);
            let mut seen = BTreeSet::new();
            while seen.len() < 2 {
                let reading = within("both", readings.recv())
                    .await
                    .expect("the watch runs");
                if reading.present == reading.address.is_ipv6() {
                    seen.insert(reading.address);
                }
            }
        });
    });
}

fn batch(namespace: &str, lines: &str) {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).expect("ip reads it");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}
