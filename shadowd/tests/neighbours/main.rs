//! What is heard of neighbours and of the host's own addresses, between two network namespaces that
//! are joined by a veth pair. Nobody runs in the far one: its kernel answers alone.
//!
//! Needs root and iproute2.

mod addresses;
mod announcements;
mod claims;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod probes;

use std::future::Future;

use namespaces::{DEADLINE, FAR_LINK, LINK};
use shadowd::act::announce::Announcer;
use shadowd::ethernet::Mac;
use shadowd::ethernet::socket::{PacketSocket, Receives};
use shadowd::facts::Vip;
use shadowd::observe::neighbours::{Heard, Neighbours};

/// The MAC that the far end is given.
const FAR_MAC: Mac = [0x02, 0, 0, 0, 0x0b, 0x01];

fn vips() -> Vec<Vip> {
    ["192.0.2.10/24", "2001:db8::10/64"]
        .map(|vip| vip.parse().expect("a vip"))
        .to_vec()
}

/// Gives the far end [`FAR_MAC`].
fn name_the_far_end(far: &str) {
    namespaces::ip(&format!(
        "-n {far} link set {FAR_LINK} address 02:00:00:00:0b:01"
    ));
}

/// Waits for `future` until the deadline.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Announces the virtual IPs from the far end, as another owner would.
fn announce_from(far: &str) {
    namespaces::inside(far, || {
        let mut announcer = Announcer::open(FAR_LINK).expect("the link is there");
        announcer.announce(&vips()).expect("the link is up");
    });
}

/// Sends `frame` as it is from the far end.
fn send_from(far: &str, frame: &[u8]) {
    let frame = frame.to_vec();
    namespaces::inside(far, move || {
        let socket = PacketSocket::open(FAR_LINK, Receives::Nothing).expect("the link is there");
        socket.send(&frame).expect("the link is up");
    });
}

fn open() -> Neighbours {
    Neighbours::open(LINK, &vips()).expect("the link is there")
}

/// The next claims, of as many virtual IPs as were told, in their order.
async fn claimed(neighbours: &mut Neighbours, count: usize) -> Vec<(String, Mac)> {
    let mut claims = Vec::new();
    while claims.len() < count {
        match within("a claim", neighbours.recv()).await {
            Heard::Claim(claim) => claims.push((claim.vip.to_string(), claim.mac)),
            Heard::Answer(answer) => panic!("nobody asked: {answer:?}"),
        }
    }
    claims.sort();
    claims
}
