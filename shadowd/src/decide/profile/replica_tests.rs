//! Members that make versions while their words get lost end with the same ones.

use super::*;

/// A version of the simulation: its number and what it came from.
#[derive(Clone, Copy, Debug)]
struct Made {
    place: Place,
    parent: Option<VersionId>,
}

#[derive(Clone, Debug)]
enum Word {
    Head(Place),
    Ask(VersionId),
    Version(Made),
}

/// Numbers without a pattern (SplitMix64, Steele, Lea and Flood 2014): the core has no other.
struct Dice(u64);

impl Dice {
    /// From `low` to below `high`.
    fn range(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (mixed ^ mixed >> 31) % (high - low)
    }
}

/// Hosts that make versions while words between them get lost.
struct World {
    dice: Dice,
    now: BootTime,
    names: Vec<Name>,
    hosts: Vec<Replica>,
    stores: Vec<BTreeMap<VersionId, Made>>,
    /// When, to whom, from whom.
    words: Vec<(BootTime, usize, usize, Word)>,
    /// Between which hosts nothing passes.
    cut: Vec<(usize, usize)>,
    made: u8,
}

impl World {
    fn new(seed: u64, hosts: usize) -> Self {
        let now = BootTime::from_nanos(1_000_000_000);
        let names: Vec<Name> = (0..hosts)
            .map(|n| format!("h{n}").parse().unwrap())
            .collect();
        let others = |host: usize| {
            let mut others = names.clone();
            others.remove(host);
            others
        };
        Self {
            dice: Dice(seed),
            now,
            hosts: (0..hosts)
                .map(|host| Replica::new(others(host), [], now))
                .collect(),
            stores: vec![BTreeMap::new(); hosts],
            names,
            words: Vec::new(),
            cut: Vec::new(),
            made: 0,
        }
    }

    fn make(&mut self, host: usize) {
        let parent = self.hosts[host].head();
        self.made += 1;
        let mut bytes = [self.made; 32];
        bytes[0] = self.dice.range(0, 256) as u8;
        let place = Place {
            number: parent.map_or(0, |parent| parent.number) + 1,
            id: VersionId::from_bytes(bytes),
        };
        let parent = parent.map(|parent| parent.id);
        self.has(host, Made { place, parent });
    }

    fn has(&mut self, host: usize, made: Made) {
        self.stores[host].insert(made.place.id, made);
        self.hosts[host].on_version(made.place, made.parent, self.now);
    }

    fn act(&mut self, host: usize) {
        while let Some(action) = self.hosts[host].poll_action() {
            let (to, word) = match action {
                Action::TellHead { to, head } => (to, Word::Head(head)),
                Action::Ask { to, id } => (to, Word::Ask(id)),
                Action::Send { to, id } => match self.stores[host].get(&id) {
                    Some(made) => (to, Word::Version(*made)),
                    None => continue,
                },
                Action::Use(_) => continue,
            };
            let to = self.names.iter().position(|name| *name == to).unwrap();
            let lost = self.cut.contains(&(host.min(to), host.max(to)));
            if !lost && self.dice.range(0, 100) < 90 {
                let late = Duration::from_millis(self.dice.range(1, 2_000));
                self.words.push((self.now.after(late), to, host, word));
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(100));
            let due = self.words.extract_if(.., |(at, ..)| *at <= self.now);
            for (_, to, from, word) in due.collect::<Vec<_>>() {
                let from = self.names[from].clone();
                match word {
                    Word::Head(head) => self.hosts[to].on_head(&from, head, self.now),
                    Word::Ask(id) => self.hosts[to].on_ask(&from, id),
                    Word::Version(made) => self.has(to, made),
                }
            }
            for host in 0..self.hosts.len() {
                if self.now >= self.hosts[host].next_deadline() {
                    self.hosts[host].on_timer(self.now);
                }
                self.act(host);
            }
        }
    }
}

#[test]
fn whoever_was_apart_uses_the_same_version_again() {
    for seed in 0..300 {
        let mut world = World::new(seed, 3);
        for _ in 0..world.dice.range(1, 8) {
            world.cut.clear();
            for pair in [(0, 1), (0, 2), (1, 2)] {
                if world.dice.range(0, 10) < 4 {
                    world.cut.push(pair);
                }
            }
            for _ in 0..world.dice.range(0, 4) {
                let host = world.dice.range(0, 3) as usize;
                world.make(host);
                let span = Duration::from_millis(world.dice.range(0, 20_000));
                world.pass(span);
            }
        }
        world.cut.clear();
        world.pass(Duration::from_secs(300));
        let heads: Vec<Option<Place>> = world.hosts.iter().map(Replica::head).collect();
        assert!(
            heads.iter().all(|head| *head == heads[0]),
            "seed {seed}: {heads:?}"
        );
        // And knows how it came to be.
        for store in &world.stores {
            let mut at = heads[0].map(|head| head.id);
            while let Some(id) = at {
                let made = store.get(&id);
                assert!(
                    made.is_some(),
                    "seed {seed}: a version of the history is missing"
                );
                at = made.and_then(|made| made.parent);
            }
        }
    }
}

#[test]
fn a_damaged_version_is_fetched_again() {
    let mut world = World::new(1, 2);
    world.make(0);
    world.pass(Duration::from_secs(60));
    let head = world.hosts[1].head().expect("it came");
    world.stores[1].clear();
    world.hosts[1].on_damage(head.id, world.now);
    world.pass(Duration::from_secs(60));
    assert!(world.stores[1].contains_key(&head.id));
}

#[test]
fn strangers_are_not_heard() {
    let mut world = World::new(1, 2);
    world.make(0);
    let head = world.hosts[0].head().expect("it made one");
    while world.hosts[0].poll_action().is_some() {}
    let stranger: Name = "x".parse().unwrap();
    world.hosts[0].on_ask(&stranger, head.id);
    let higher = Place { number: 99, ..head };
    let unknown = Place {
        id: VersionId::from_bytes([9; 32]),
        ..higher
    };
    world.hosts[0].on_head(&stranger, unknown, world.now);
    assert_eq!(world.hosts[0].poll_action(), None);
}

#[test]
fn what_is_kept_no_longer_is_neither_sent_nor_asked_for() {
    let mut world = World::new(1, 2);
    for _ in 0..5 {
        world.make(0);
    }
    world.pass(Duration::from_secs(60));
    let host = &mut world.hosts[0];
    let (head, all) = (host.head().expect("it made some"), host.count());
    let oldest = *world.stores[0]
        .keys()
        .find(|id| **id != head.id)
        .expect("there are more");
    let kept = world.stores[0].keys().filter(|id| **id != oldest);
    host.retain(&kept.copied().collect());
    assert_eq!((host.count(), host.awaited()), (all - 1, 0));
    while host.poll_action().is_some() {}
    host.on_ask(&world.names[1], oldest);
    assert_eq!(host.poll_action(), None);
    // The head stays whatever is said.
    host.retain(&BTreeSet::new());
    assert_eq!((host.count(), host.head()), (1, Some(head)));
}

/// A place that nobody has a version for.
fn nowhere(number: u64, byte: u8) -> Place {
    let id = VersionId::from_bytes([byte; 32]);
    Place { number, id }
}

#[test]
fn who_tells_of_versions_that_nobody_has_fills_its_own_share_alone() {
    let mut world = World::new(1, 3);
    let (liar, honest) = (world.names[1].clone(), world.names[2].clone());
    let host = &mut world.hosts[0];
    for byte in 0..40 {
        host.on_head(
            &liar,
            nowhere(u64::MAX - u64::from(byte % 3), byte),
            world.now,
        );
    }
    assert!(host.awaited() <= SHARE_MAX, "{}", host.awaited());
    while host.poll_action().is_some() {}
    let wanted = nowhere(7, 99);
    host.on_head(&honest, wanted, world.now);
    let ask = Action::Ask {
        to: honest,
        id: wanted.id,
    };
    assert_eq!(host.poll_action(), Some(ask));
}

#[test]
fn what_nobody_sends_is_wanted_no_longer_and_what_was_here_is() {
    let mut world = World::new(1, 2);
    world.make(0);
    let liar = world.names[1].clone();
    let host = &mut world.hosts[0];
    let lost = host.head().expect("it made one").id;
    host.on_damage(lost, world.now);
    host.on_head(&liar, nowhere(9, 99), world.now);
    assert_eq!(host.awaited(), 2);
    for _ in 0..=ASKS_MAX {
        world.now = world.now.after(ASK_EVERY);
        host.on_timer(world.now);
        while host.poll_action().is_some() {}
    }
    assert_eq!(host.awaited(), 1);
    assert!(host.wants.contains_key(&lost));
    // Told of again it is wanted again.
    host.on_head(&liar, nowhere(9, 99), world.now);
    assert_eq!(host.awaited(), 2);
}
