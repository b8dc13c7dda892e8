//! Whether a peer's kernel answers.

use std::net::IpAddr;
use std::time::Duration;

use shadowd::ethernet::frames::{self, ArpForm};
use shadowd::ethernet::socket::{PacketSocket, Receives};
use shadowd::observe::neighbours::{Answer, Heard, Neighbours, ProbeError};
use tokio::time::timeout;

use super::namespaces::{FAR_LINK, LINK, MAC, Pair, inside, ip, run};
use super::{FAR_MAC, name_the_far_end, open, within};

/// Longer than a kernel takes to answer, also on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);

fn peers() -> [IpAddr; 2] {
    ["192.0.2.2", "2001:db8::2"].map(|peer| peer.parse().expect("an address"))
}

async fn answer(neighbours: &mut Neighbours) -> Answer {
    match within("an answer", neighbours.recv()).await {
        Heard::Answer(answer) => answer,
        Heard::Claim(claim) => panic!("nobody claims: {claim:?}"),
    }
}

#[test]
fn a_kernel_answers_where_nobody_runs() {
    let pair = Pair::new();
    let far = pair.far.clone();
    name_the_far_end(&far);
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            assert!(neighbours.off_link(&peers()).expect("readable").is_empty());
            for peer in peers() {
                neighbours.probe(peer).expect("it is on the link");
            }
            let mut heard = Vec::new();
            for _ in peers() {
                let answer = answer(&mut neighbours).await;
                assert_eq!(answer.mac, FAR_MAC);
                assert!(answer.round_trip < Duration::from_secs(2));
                println!("{} answered in {:?}", answer.address, answer.round_trip);
                heard.push(answer.address);
            }
            heard.sort();
            assert_eq!(heard, peers());
            // The question taught the far kernel nothing but this host's own address and MAC.
            let entry = ip(&format!("-n {far} neigh show 192.0.2.1"));
            assert!(entry.contains("02:00:00:00:0a:01"), "{entry}");
        });
    });
}

#[test]
fn a_host_that_is_off_the_link_does_not_answer_and_does_when_it_is_back() {
    let pair = Pair::new();
    let far = pair.far.clone();
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            ip(&format!("-n {far} link set {FAR_LINK} down"));
            for peer in peers() {
                // Without carrier the frame may be refused, or leave and be lost.
                match neighbours.probe(peer) {
                    Ok(()) | Err(ProbeError::Send { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            let nobody = timeout(ANSWERS_WITHIN, neighbours.recv()).await;
            assert!(nobody.is_err(), "{nobody:?}");

            ip(&format!("-n {far} link set {FAR_LINK} up"));
            // IPv6 addresses went with the link.
            let six = format!("2001:db8::2/64 dev {FAR_LINK} nodad");
            ip(&format!("-n {far} addr replace {six}"));
            for peer in peers() {
                within("an answer", ask_until_answered(&mut neighbours, peer)).await;
            }
        });
    });
}

/// Asks again until the link, which was down, carries frames both ways.
async fn ask_until_answered(neighbours: &mut Neighbours, peer: IpAddr) {
    loop {
        // Refused while the carrier is away.
        let _ = neighbours.probe(peer);
        let heard = timeout(Duration::from_millis(50), neighbours.recv()).await;
        if matches!(heard, Ok(Heard::Answer(answer)) if answer.address == peer) {
            return;
        }
    }
}

#[test]
fn an_address_that_nobody_has_is_not_answered() {
    let pair = Pair::new();
    inside(&pair.near, || {
        run(async {
            let mut neighbours = open();
            for nobody in ["192.0.2.77", "2001:db8::77"] {
                let nobody = nobody.parse().expect("an address");
                neighbours.probe(nobody).expect("it is on the link");
            }
            let heard = timeout(ANSWERS_WITHIN, neighbours.recv()).await;
            assert!(heard.is_err(), "{heard:?}");
            assert_eq!(neighbours.counts().probes, 2);
        });
    });
}

#[test]
fn who_cannot_be_probed_is_named() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
            let (own, far) = (address("192.0.2.1"), address("198.51.100.1"));
            let vip = address("192.0.2.10");
            // Its network is no reason either while only a virtual IP is in it.
            ip(&format!("-n {near} addr add 203.0.113.10/24 dev {LINK}"));
            let elsewhere = ["203.0.113.10/24".parse().expect("a vip")];
            let other = Neighbours::open(LINK, &elsewhere).expect("the link is there");
            let beside = address("203.0.113.2");
            assert_eq!(other.off_link(&[beside]).expect("readable"), [beside]);
            let given = [address("192.0.2.2"), own, far, vip];
            assert_eq!(
                neighbours.off_link(&given).expect("readable"),
                [own, far, vip]
            );
            for off in [own, far] {
                let refused = neighbours.probe(off);
                assert!(
                    matches!(refused, Err(ProbeError::OffLink { .. })),
                    "{refused:?}"
                );
            }
            let refused = neighbours.probe(vip);
            assert!(
                matches!(refused, Err(ProbeError::VirtualIp(_))),
                "{refused:?}"
            );
            for n in 0..64 {
                let peer = IpAddr::from([192, 0, 2, 100 + n]);
                neighbours.probe(peer).expect("there is room");
            }
            let refused = neighbours.probe(address("192.0.2.99"));
            assert!(
                matches!(refused, Err(ProbeError::TooMany(_))),
                "{refused:?}"
            );
            ip(&format!("-n {near} link del {LINK}"));
            let gone = neighbours.probe(address("192.0.2.100"));
            assert!(matches!(gone, Err(ProbeError::OffLink { .. })), "{gone:?}");
        });
    });
}

#[test]
fn the_first_question_after_the_own_link_came_back_leaves() {
    let pair = Pair::new();
    let near = pair.near.clone();
    inside(&pair.near, move || {
        run(async {
            let mut neighbours = open();
            for (state, works) in [("down", false), ("up", true)] {
                ip(&format!("-n {near} link set {LINK} {state}"));
                let sent = neighbours.probe(peers()[0]);
                assert_eq!(sent.is_ok(), works, "{state}: {sent:?}");
            }
            assert_eq!(answer(&mut neighbours).await.address, peers()[0]);
        });
    });
}

#[test]
fn an_answer_is_not_lost_when_waiting_is_given_up_again_and_again() {
    let pair = Pair::new();
    inside(&pair.near, || {
        run(async {
            let mut neighbours = open();
            for _ in 0..200 {
                neighbours.probe(peers()[0]).expect("it is on the link");
                let heard = async {
                    loop {
                        // Another branch of the loop is always ready.
                        tokio::select! {
                            heard = neighbours.recv() => return heard,
                            () = tokio::task::yield_now() => {}
                        }
                    }
                };
                let heard = within("an answer", heard).await;
                assert!(matches!(heard, Heard::Answer(_)));
            }
            assert_eq!(neighbours.counts().answers, 200);
        });
    });
}

#[test]
#[ignore = "measures; run it alone with --nocapture, in a release build for numbers to keep"]
fn costs() {
    const TIMES: u32 = 10_000;
    let pair = Pair::new();
    inside(&pair.near, || {
        run(async {
            let each = |what: &str, once: &mut dyn FnMut()| {
                let started = std::time::Instant::now();
                for _ in 0..TIMES {
                    once();
                }
                println!("{what}: {:?}", started.elapsed() / TIMES);
            };
            let socket = PacketSocket::open(LINK, Receives::Nothing).expect("the link is there");
            each("the MAC of now", &mut || {
                socket.mac().expect("the link is there");
            });
            let frame = frames::arp(ArpForm::Request, MAC, [192, 0, 2, 10].into());
            each("a frame sent", &mut || {
                socket.send(&frame).expect("the link is up");
            });
            let mut neighbours = open();
            each("a probe", &mut || {
                neighbours.probe(peers()[0]).expect("it is on the link");
            });
        });
    });
}
