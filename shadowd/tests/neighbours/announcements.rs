//! An announcement carries the hardware address of now.

use nix::errno::Errno;
use shadowd::act::announce::Announcer;
use shadowd::ethernet::Mac;
use shadowd::ethernet::frames::{self, ArpForm};
use shadowd::ethernet::socket::{PacketSocket, Receives};

use super::namespaces::{FAR_LINK, LINK, MAC, Pair, inside, ip, wait_until};
use super::vips;

/// What the two sockets hear of a complete announcement of the virtual IPs.
fn announcement(mac: Mac) -> [Vec<Vec<u8>>; 2] {
    let (four, six) = ([192, 0, 2, 10].into(), "2001:db8::10");
    let six = six.parse().expect("an address");
    [
        vec![
            frames::arp(ArpForm::Request, mac, four).to_vec(),
            frames::arp(ArpForm::Reply, mac, four).to_vec(),
        ],
        vec![frames::advertisement(mac, six).to_vec()],
    ]
}

/// Adds the frames that wait and are announcements of a virtual IP.
fn drain(socket: &PacketSocket, heard: &mut Vec<Vec<u8>>) {
    let mut frame = [0; 2048];
    loop {
        match socket.receive(&mut frame) {
            Ok(length) => {
                let frame = &frame[..length];
                let is_arp = frame.len() == 42 && frame[28..32] == [192, 0, 2, 10];
                let is_advertisement = frame.len() == 86 && frame[54] == 136 && frame[77] == 0x10;
                if is_arp || is_advertisement {
                    heard.push(frame.to_vec());
                }
            }
            Err(Errno::EAGAIN) => return,
            Err(error) => panic!("capture: {error}"),
        }
    }
}

#[test]
fn a_mac_that_changes_between_two_announcements_is_in_the_second() {
    let pair = Pair::new();
    let near = pair.near.clone();
    let sockets = inside(&pair.far, || {
        [Receives::Arp, Receives::Ipv6]
            .map(|receives| PacketSocket::open(FAR_LINK, receives).expect("the link is there"))
    });
    inside(&pair.near, move || {
        let mut announcer = Announcer::open(LINK).expect("the link is there");
        assert_eq!(announcer.announce(&vips()).expect("the link is up"), 3);
        ip(&format!(
            "-n {near} link set {LINK} address 02:00:00:00:0a:02"
        ));
        assert_eq!(announcer.announce(&vips()).expect("the link is up"), 3);
    });
    let expected: Vec<Vec<Vec<u8>>> = announcement(MAC)
        .into_iter()
        .zip(announcement([0x02, 0, 0, 0, 0x0a, 0x02]))
        .map(|(first, second)| [first, second].concat())
        .collect();
    let mut heard = [Vec::new(), Vec::new()];
    wait_until("both announcements arrive", || {
        for (socket, heard) in sockets.iter().zip(&mut heard) {
            drain(socket, heard);
        }
        heard.iter().map(Vec::len).sum::<usize>() >= 6
    });
    // Each socket keeps the order in which the frames were sent.
    assert_eq!(heard.to_vec(), expected);
}
