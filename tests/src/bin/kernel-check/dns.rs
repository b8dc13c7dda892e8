//! Names from DNS answers, in a network namespace with a responder of our own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use shadowd::config::settings::CaptureSettings;
use shadowd::facts::Sample;
use shadowd::observe::Capture;
use shadowd_tests::load::{PATIENCE, namespace};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use crate::settings;

/// Answers of the flood: many times what the socket's buffer holds.
const FLOOD: u64 = 50_000;

/// A namespace of a thread's own; it is gone with the thread.
fn in_own_namespace(check: fn(&mut Capture) -> Result<()>) -> Result<()> {
    let checked = std::thread::spawn(move || {
        namespace::enter_own()?;
        // Names need no kernel program.
        check(&mut Capture::start(&CaptureSettings {
            ebpf: false,
            ..settings()
        }))
    });
    checked.join().expect("a check does not panic")
}

/// Answers over both families.
pub fn answers_give_names(_: &mut Capture) -> Result<()> {
    in_own_namespace(|capture| {
        capture.tick();
        for address in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let responder = UdpSocket::bind((address, 53))?;
            let client = UdpSocket::bind((address, 0))?;
            client.connect(responder.local_addr()?)?;
            client.send(&question()?)?;
            respond(&responder, &answer()?)?;
            heard(&client, 1)?;
            let sample = capture.tick();
            let names: BTreeSet<_> = (sample.names.iter())
                .map(|answer| (answer.address, answer.name.as_str()))
                .collect();
            let name = "shop.example.org";
            let expected = BTreeSet::from([
                (IpAddr::from([192, 0, 2, 7]), name),
                (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]), name),
            ]);
            ensure!(names == expected, "{address}: {names:?}");
            ensure!(
                sample.names.len() == expected.len(),
                "twice: {:?}",
                sample.names
            );
        }
        // Two answers came in; their copies on the way out and the questions are not counted.
        let losses = capture.tick().probe_losses["dns"];
        ensure!(losses.seen == 2 && losses.dropped == 0, "{losses:?}");
        Ok(())
    })
}

/// More answers than there is room for, and some that are none.
pub fn lost_answers_are_counted(_: &mut Capture) -> Result<()> {
    in_own_namespace(|capture| {
        let responder = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (bytes, to) = (answer()?, client.local_addr()?);
        for _ in 0..FLOOD {
            responder.send_to(&bytes, to)?;
        }
        let sample = capture.tick();
        ensure!(!sample.names.is_empty(), "no name came through");
        drain(capture);
        responder.send_to(b"no answer at all", to)?;
        let losses = drain(capture).probe_losses["dns"];
        ensure!(
            losses.seen > 0 && losses.dropped > 1 && losses.seen + losses.dropped == FLOOD + 1,
            "{losses:?} of {}",
            FLOOD + 1
        );
        Ok(())
    })
}

/// What waits in the socket's buffer is taken with a bound on each tick.
fn drain(capture: &mut Capture) -> Sample {
    let mut last = capture.tick();
    while !last.names.is_empty() {
        last = capture.tick();
    }
    last
}

fn respond(responder: &UdpSocket, bytes: &[u8]) -> Result<()> {
    responder.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 512];
    let (_, client): (usize, SocketAddr) = responder.recv_from(&mut buffer)?;
    responder.send_to(bytes, client)?;
    Ok(())
}

fn heard(client: &UdpSocket, count: usize) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..count {
        client.recv(&mut [0; 512]).context("no answer")?;
    }
    Ok(())
}

fn asked(mut packet: Packet<'static>) -> Packet<'static> {
    packet.questions.push(Question::new(
        Name::new_unchecked("Shop.example.org"),
        QTYPE::TYPE(TYPE::A),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet
}

fn question() -> Result<Vec<u8>> {
    Ok(asked(Packet::new_query(7)).build_bytes_vec()?)
}

fn answer() -> Result<Vec<u8>> {
    let mut packet = asked(Packet::new_reply(7));
    let mut add = |name, data| {
        let name = Name::new_unchecked(name);
        let record = ResourceRecord::new(name, CLASS::IN, 60, data);
        packet.answers.push(record);
    };
    let alias = Name::new_unchecked("front.example.org");
    add("shop.example.org", RData::CNAME(CNAME(alias)));
    let address = u32::from(Ipv4Addr::new(192, 0, 2, 7));
    add("front.example.org", RData::A(A { address }));
    let address = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
    add("front.example.org", RData::AAAA(AAAA { address }));
    Ok(packet.build_bytes_vec_compressed()?)
}
