//! An address that moves from one host to another with its connections: two hosts, a client and a
//! switch.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use shadowd::act::guard::{Attachment, Guard};
use shadowd::facts::Mac;

use super::namespaces::{DEADLINE, LINK, Lan, inside, ip, wait_until};
use super::{FOUR, HOUR, PORT, SIX, neighbour, now, vips};

/// What a host of the test is to the address.
struct Host {
    namespace: String,
    mac: Mac,
    guard: Guard,
    listener: TcpListener,
}

impl Host {
    /// A host that has the addresses, silently, and a service that listens on all of them.
    fn new(lan: &Lan, number: usize, how: Attachment) -> Self {
        let namespace = lan.hosts[number].clone();
        for vip in ["192.0.2.10/32", "2001:db8::10/128"] {
            ip(&format!("-n {namespace} addr add {vip} dev {LINK} nodad"));
        }
        let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter the namespace");
        let pins = format!("/sys/fs/bpf/shadowd/{number}");
        let guard = Guard::open_as(LINK, Path::new(&pins), &vips(), how);
        Self {
            mac: Lan::mac(number),
            guard: guard.expect("the kernel can guard"),
            listener: TcpListener::bind(("::", PORT)).expect("the port is free"),
            namespace,
        }
    }

    fn opens(&self) {
        let until = now().after(HOUR);
        self.guard
            .set_deadline(&vips(), Some(until))
            .expect("guarded");
    }

    /// Gives the addresses to another host, and keeps the connections.
    fn hands_on_to(&self, successor: &Self) {
        let until = now().after(HOUR);
        let vips = vips();
        self.guard
            .hand_on(&vips, successor.mac, now(), until)
            .expect("guarded");
        self.guard.set_deadline(&vips, None).expect("guarded");
        let predecessor = Some((self.mac, until));
        let taken = successor.guard.take_over(&vips, predecessor, now());
        taken.expect("guarded");
        successor.opens();
    }

    fn passed(&self) -> u64 {
        self.guard.readings().iter().map(|vip| vip.passed).sum()
    }

    fn silent(&self) -> u64 {
        self.guard.readings().iter().map(|vip| vip.dropped_tx).sum()
    }
}

/// One connection of the client, both ends.
struct Connection(TcpStream, TcpStream);

impl Connection {
    /// The client connects; the other end is at `host` and nowhere else.
    fn to(host: &Host, client: &str, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let near = inside(client, move || {
            // As long as a lost segment is not sent again.
            let within = Duration::from_millis(900);
            TcpStream::connect_timeout(&SocketAddr::new(address, PORT), within)
        });
        let near = near.expect("it is answered at once");
        let (far, _) = host.listener.accept().expect("it came here");
        for end in [&near, &far] {
            end.set_read_timeout(Some(DEADLINE)).expect("a socket");
        }
        Self(near, far)
    }

    fn works(&mut self) {
        let (Self(near, far), mut said) = (self, [0; 4]);
        near.write_all(b"ping").expect("it is open");
        far.read_exact(&mut said).expect("what was sent arrives");
        far.write_all(b"pong").expect("it is open");
        near.read_exact(&mut said).expect("the answer arrives");
        assert_eq!(&said, b"pong");
    }
}

/// The client's own idea of where the addresses are.
fn client_believes(client: &str, mac: Mac) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    for address in [FOUR, SIX] {
        ip(&format!(
            "-n {client} neigh replace {address} lladdr {mac} dev {LINK} nud permanent"
        ));
    }
}

fn connections_outlast(how: Attachment) {
    let lan = Lan::new(3);
    let client = lan.hosts[2].clone();
    let both = |host: &Host| [FOUR, SIX].map(|to| Connection::to(host, &client, to));
    super::with_own_bpf(|| {
        let (old, new) = (Host::new(&lan, 0, how), Host::new(&lan, 1, how));
        old.opens();
        client_believes(&client, old.mac);
        let mut first = both(&old);
        old.hands_on_to(&new);

        // The client has not heard of it yet: what is new goes on to the successor.
        let mut second = both(&new);
        first
            .iter_mut()
            .chain(&mut second)
            .for_each(Connection::works);
        assert_eq!(new.passed(), 0);
        let by_old = old.passed();
        assert!(by_old >= 4, "{by_old}");

        // Now it has: what is old goes back to the predecessor.
        client_believes(&client, new.mac);
        let mut third = both(&new);
        for connection in first.iter_mut().chain(&mut second).chain(&mut third) {
            connection.works();
        }
        assert!(new.passed() >= 2, "{}", new.passed());
        assert_eq!(old.passed(), by_old);

        // It moves back before they have ended, as often as anybody likes.
        new.hands_on_to(&old);
        let mut fourth = both(&old);
        client_believes(&client, old.mac);
        let all = [&mut first, &mut second, &mut third, &mut fourth];
        for connection in all.into_iter().flatten() {
            connection.works();
        }
    });
}

#[test]
fn connections_outlast_a_handover() {
    connections_outlast(Attachment::Tcx);
}

#[test]
fn connections_outlast_a_handover_by_clsact() {
    connections_outlast(Attachment::Clsact);
}

#[test]
fn who_serves_the_rest_of_its_connections_answers_nothing_else_and_ends_in_time() {
    let lan = Lan::new(3);
    let client = lan.hosts[2].clone();
    super::with_own_bpf(|| {
        let how = Attachment::Tcx;
        let (old, new) = (Host::new(&lan, 0, how), Host::new(&lan, 1, how));
        old.opens();
        let mut first = Connection::to(&old, &client, FOUR);
        old.hands_on_to(&new);
        ip(&format!("-n {client} neigh flush dev {LINK}"));
        let mut second = Connection::to(&new, &client, FOUR);
        let whose = new.mac.map(|byte| format!("{byte:02x}")).join(":");
        assert!(
            neighbour(&client, FOUR).contains(&whose),
            "only one answers"
        );

        // The old owner must find the client without telling it a wrong place for the address.
        ip(&format!("-n {} neigh flush dev {LINK}", old.namespace));
        first.works();
        assert!(neighbour(&client, FOUR).contains(&whose));
        second.works();

        // A connection that nobody knows is refused by the one who had the address before.
        drop(second.1);
        let soon = now().after(Duration::from_millis(100));
        let handed_on = old.guard.hand_on(&vips(), new.mac, now(), soon);
        handed_on.expect("guarded");
        wait_until("its time passes", || now() > soon);
        let before = old.silent();
        first.1.write_all(b"late").expect("the kernel takes it");
        wait_until("nothing leaves any more", || old.silent() > before);
    });
}
