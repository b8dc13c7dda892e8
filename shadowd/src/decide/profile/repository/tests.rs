//! Hosts that never hear each other end with the same versions, through a repository that fails,
//! loses, repeats and damages.

use super::*;

const EVERY: Duration = Duration::from_secs(10);

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

    fn percent(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }
}

/// What lies under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    Whole,
    Damaged,
    /// Named like a version, by somebody who is no member.
    Forged,
}

#[derive(Clone, Debug)]
enum End {
    Listing(Listing),
    Put,
    Got(Found),
    Failed(Failure),
}

struct World {
    dice: Dice,
    now: BootTime,
    hosts: Vec<Repository>,
    bucket: BTreeMap<Place, (Lies, u64)>,
    stamp: u64,
    made: BTreeSet<Place>,
    /// When, of which host, of which task.
    ends: Vec<(BootTime, usize, u64, End)>,
    /// Hosts that do not reach it.
    away: Vec<usize>,
    /// Percent of operations that end badly, or whose end nobody tells.
    trouble: u64,
    puts: u64,
}

fn place(number: u64, id: u8) -> Place {
    Place {
        number,
        id: VersionId::from_bytes([id; 32]),
    }
}

impl World {
    fn new(seed: u64, hosts: usize) -> Self {
        let now = BootTime::from_nanos(1_000_000_000);
        let host = || Repository::new("file:///x".to_owned(), EVERY, now);
        Self {
            dice: Dice(seed),
            now,
            hosts: (0..hosts).map(|_| host()).collect(),
            bucket: BTreeMap::new(),
            stamp: 0,
            made: BTreeSet::new(),
            ends: Vec::new(),
            away: Vec::new(),
            trouble: 0,
            puts: 0,
        }
    }

    fn make(&mut self, host: usize) -> Place {
        let number = self.hosts[host].have.last().map_or(0, |head| head.number) + 1;
        let mut id = [self.made.len() as u8; 32];
        id[0] = self.dice.range(0, 256) as u8;
        let id = VersionId::from_bytes(id);
        let place = Place { number, id };
        self.made.insert(place);
        self.hosts[host].on_version(place);
        place
    }

    fn write(&mut self, place: Place, lies: Lies) {
        self.stamp += 1;
        self.bucket.insert(place, (lies, self.stamp));
    }

    /// What the repository does, and what of it the host is told.
    fn carry_out(&mut self, host: usize, task: Task) {
        let fails = self.away.contains(&host) || self.dice.percent(self.trouble);
        let happens = !fails || self.dice.percent(30);
        let end = match task.operation {
            Operation::List { from } => {
                let objects = self.bucket.iter().filter(|(place, _)| place.number >= from);
                let objects = objects.map(|(place, (_, stamp))| StoredObject {
                    place: *place,
                    stamp: *stamp,
                    fits: true,
                });
                let objects = objects.collect();
                End::Listing(Listing {
                    from,
                    objects,
                    foreign: 0,
                })
            }
            Operation::Put { place, replace } => {
                assert!(self.made.contains(&place), "only what was made is put");
                if happens && (replace || !self.bucket.contains_key(&place)) {
                    self.puts += 1;
                    // What is written may be torn.
                    let torn = fails && self.dice.percent(30);
                    let lies = if torn { Lies::Damaged } else { Lies::Whole };
                    self.write(place, lies);
                }
                End::Put
            }
            Operation::Get(place) => End::Got(match self.bucket.get(&place) {
                Some((Lies::Whole, _)) => Found::Good,
                Some((lies, _)) => Found::Bad(format!("{lies:?}")),
                None => Found::Gone,
            }),
        };
        let failure = match self.dice.percent(70) {
            true => Failure::Unreached,
            false => Failure::Refused,
        };
        let end = if fails { End::Failed(failure) } else { end };
        if fails && self.dice.percent(20) {
            return;
        }
        let late = Duration::from_millis(self.dice.range(1, 3_000));
        let at = self.now.after(late);
        if self.dice.percent(20) {
            let again = at.after(Duration::from_millis(self.dice.range(1, 9_000)));
            self.ends.push((again, host, task.token, end.clone()));
        }
        self.ends.push((at, host, task.token, end));
    }

    fn tell(&mut self, host: usize, token: u64, end: End) {
        let now = self.now;
        let busy = self.hosts[host].busy;
        match end {
            End::Listing(listing) => self.hosts[host].on_listing(token, &listing, now),
            End::Put => self.hosts[host].on_put_done(token, now),
            End::Failed(failure) => {
                self.hosts[host].on_failure(token, failure, "trouble".to_owned(), now);
            }
            End::Got(found) => {
                // What is whole is kept as it comes, whatever the core thinks of it.
                if let Some((task, _)) = busy
                    && task.token == token
                    && let Operation::Get(place) = task.operation
                    && found == Found::Good
                {
                    self.hosts[host].on_version(place);
                }
                self.hosts[host].on_got(token, found, now);
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(500));
            let due = self.ends.extract_if(.., |(at, ..)| *at <= self.now);
            for (_, host, token, end) in due.collect::<Vec<_>>() {
                self.tell(host, token, end);
            }
            for host in 0..self.hosts.len() {
                let now = self.now;
                self.hosts[host].on_timer(now);
                if let Some(task) = self.hosts[host].poll_action(now) {
                    self.carry_out(host, task);
                }
                let strange = self.hosts[host].have.difference(&self.made).next();
                assert_eq!(strange, None, "nobody made it");
            }
        }
    }

    fn meddle(&mut self) {
        let at = self.dice.range(0, self.bucket.len().max(1) as u64) as usize;
        let some = self.bucket.keys().nth(at).copied();
        match (self.dice.range(0, 4), some) {
            (0, Some(place)) => self.write(place, Lies::Damaged),
            (1, Some(place)) => drop(self.bucket.remove(&place)),
            (2, _) => {
                let forged = place(self.dice.range(1, 1_000), 255);
                self.write(forged, Lies::Forged);
            }
            _ => {}
        }
    }

    fn lose(&mut self, host: usize) {
        // A version is lost with its last copy, which is nobody's fault here.
        let others = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(one, _)| *one != host);
        let kept: BTreeSet<Place> = others.flat_map(|(_, one)| one.have.clone()).collect();
        let whole =
            |place: &&Place| self.bucket.get(place).map(|(lies, _)| *lies) == Some(Lies::Whole);
        let there: BTreeSet<Place> = self.made.iter().filter(whole).copied().collect();
        let left: BTreeSet<Place> = kept.union(&there).copied().collect();
        self.made = left;
        let url = "file:///x".to_owned();
        self.hosts[host] = Repository::new(url, EVERY, self.now);
        self.hosts[host].token = 1_000_000 + self.now.as_nanos();
        self.ends.retain(|(_, one, ..)| *one != host);
    }
}

#[test]
fn whoever_shares_a_repository_ends_with_the_same_versions() {
    for seed in 0..100 {
        let mut world = World::new(seed, 3);
        for _ in 0..world.dice.range(2, 10) {
            world.trouble = world.dice.range(0, 60);
            world.away = (0..3).filter(|_| world.dice.percent(30)).collect();
            for _ in 0..world.dice.range(1, 4) {
                let host = world.dice.range(0, 3) as usize;
                world.make(host);
                world.meddle();
                let span = Duration::from_millis(world.dice.range(0, 90_000));
                world.pass(span);
            }
        }
        if world.dice.percent(30) {
            // What only the bucket has may not be damaged with it.
            world.trouble = 0;
            world.away.clear();
            world.pass(Duration::from_secs(1_800));
            world.lose(0);
        }
        world.trouble = 0;
        world.away.clear();
        world.pass(Duration::from_secs(1_800));
        for (host, one) in world.hosts.iter().enumerate() {
            assert_eq!(one.have, world.made, "seed {seed}, host {host}");
            let status = one.status();
            assert_eq!((status.to_put, status.to_get), (0, 0), "seed {seed}");
            assert_eq!(status.there, world.made.len(), "seed {seed}");
            assert_eq!((status.error, status.silent_since), (None, None));
        }
        for place in &world.made {
            let lies = world.bucket.get(place).map(|(lies, _)| *lies);
            assert_eq!(lies, Some(Lies::Whole), "seed {seed}, {place:?}");
        }
        // And is left alone once all is well.
        let puts = world.puts;
        world.pass(Duration::from_secs(300));
        assert_eq!(world.puts, puts, "seed {seed}: it is written without need");
    }
}

fn settled(world: &mut World) {
    world.pass(Duration::from_secs(120));
}

#[test]
fn what_is_damaged_there_is_written_again_from_here() {
    let mut world = World::new(1, 1);
    let place = world.make(0);
    settled(&mut world);
    assert_eq!(world.bucket[&place].0, Lies::Whole);
    world.write(place, Lies::Damaged);
    settled(&mut world);
    assert_eq!(world.bucket[&place].0, Lies::Whole);
    let status = world.hosts[0].status();
    assert_eq!((status.refused, status.mended, status.bad), (1, 1, 0));
    let notes: Vec<Note> = std::iter::from_fn(|| world.hosts[0].poll_note()).collect();
    assert_eq!(
        notes,
        [
            Note::Reached,
            Note::Bad(place, "Damaged".to_owned()),
            Note::Mended(place)
        ]
    );
}

#[test]
fn damage_that_no_stamp_shows_is_found_within_a_day() {
    let mut world = World::new(1, 1);
    let place = world.make(0);
    settled(&mut world);
    world.bucket.insert(place, (Lies::Damaged, world.stamp));
    world.pass(PROVEN_FOR);
    assert_eq!(world.bucket[&place].0, Lies::Whole);
}

#[test]
fn what_a_stranger_wrote_is_read_once_and_never_taken() {
    let mut world = World::new(1, 1);
    let made = world.make(0);
    let forged = place(99, 255);
    world.write(forged, Lies::Forged);
    world.pass(Duration::from_secs(1_800));
    let status = world.hosts[0].status();
    assert_eq!((status.refused, status.bad, status.to_get), (1, 1, 0));
    assert_eq!(world.hosts[0].have, BTreeSet::from([made]));
    assert_eq!(world.bucket[&forged].0, Lies::Forged, "it is left alone");
}

#[test]
fn a_version_that_is_damaged_here_comes_back_however_old_it_is() {
    let mut world = World::new(1, 1);
    let old = world.make(0);
    settled(&mut world);
    for number in 2..1_000 {
        world.hosts[0].on_version(place(number, number as u8));
        world.made.insert(place(number, number as u8));
    }
    let now = world.now;
    world.hosts[0].on_need(old.id, now);
    world.pass(Duration::from_secs(1_200));
    assert!(world.hosts[0].needed.is_empty());
}

#[test]
fn silence_is_asked_less_and_less_often_and_told_once() {
    let now = BootTime::from_nanos(0);
    let mut repository = Repository::new(String::new(), EVERY, now);
    let mut at = now;
    let mut asked = Vec::new();
    while asked.len() < 14 {
        repository.on_timer(at);
        if let Some(task) = repository.poll_action(at) {
            assert_eq!(task.operation, Operation::List { from: 0 });
            asked.push(at);
            repository.on_failure(task.token, Failure::Unreached, "no route".to_owned(), at);
        }
        at = at.after(Duration::from_millis(500));
    }
    let pauses: Vec<u64> = asked
        .windows(2)
        .map(|two| two[1].since(two[0]).as_secs())
        .collect();
    assert_eq!(pauses[..4], [1, 2, 4, 8]);
    assert_eq!(pauses.last(), Some(&300));
    assert_eq!(
        repository.poll_note(),
        Some(Note::Unreached("no route".to_owned()))
    );
    assert_eq!(repository.poll_note(), None);
    assert_eq!(repository.status().silent_since, Some(now));
}

#[test]
fn one_object_that_is_refused_holds_up_no_other() {
    let now = BootTime::from_nanos(0);
    let mut repository = Repository::new(String::new(), EVERY, now);
    let (bad, good) = (place(2, 2), place(1, 1));
    for place in [bad, good] {
        repository.on_version(place);
    }
    let mut at = now;
    let mut refused = 0;
    while at < now.after(Duration::from_secs(600)) {
        repository.on_timer(at);
        while let Some(task) = repository.poll_action(at) {
            match task.operation {
                Operation::Put { place, .. } if place == bad => {
                    refused += 1;
                    let why = "denied".to_owned();
                    repository.on_failure(task.token, Failure::Refused, why, at);
                }
                Operation::Put { .. } => repository.on_put_done(task.token, at),
                Operation::List { from } => {
                    let listing = Listing {
                        from,
                        ..Listing::default()
                    };
                    repository.on_listing(task.token, &listing, at);
                    break;
                }
                Operation::Get(_) => repository.on_got(task.token, Found::Gone, at),
            }
        }
        at = at.after(Duration::from_secs(1));
    }
    assert!((5..15).contains(&refused), "{refused}");
    let status = repository.status();
    assert_eq!((status.to_put, status.silent_since), (1, None));
    assert_eq!(status.error.as_deref(), Some("denied"));
}

#[test]
fn an_end_counts_once_and_only_with_its_token() {
    let now = BootTime::from_nanos(0);
    let mut repository = Repository::new(String::new(), EVERY, now);
    let list = repository.poll_action(now).expect("it is listed first");
    assert_eq!(repository.poll_action(now), None, "one at a time");
    repository.on_listing(list.token + 1, &Listing::default(), now);
    assert_eq!(repository.status().listed, None);
    repository.on_listing(list.token, &Listing::default(), now);
    repository.on_version(place(1, 1));
    let put = repository.poll_action(now).expect("it is put");
    repository.on_put_done(list.token, now);
    assert_eq!(repository.status().put, 0);
    repository.on_timer(now.after(OVER_AFTER));
    assert!(repository.busy.is_none(), "nobody told of it");
    repository.on_put_done(put.token, now);
    assert_eq!(repository.status().put, 0);
}

#[test]
fn a_listing_that_is_too_long_is_cut_and_forgets_nothing_that_it_does_not_show() {
    let now = BootTime::from_nanos(0);
    let mut repository = Repository::new(String::new(), EVERY, now);
    repository.on_version(place(1, 1));
    let objects = |from: u64| {
        let object = |number| StoredObject {
            place: place(number, 7),
            stamp: 1,
            fits: false,
        };
        (from..from + 2_000).map(object).collect()
    };
    for from in [5, 5_000] {
        let at = now.after(Duration::from_secs(from));
        let task = repository.poll_action(at).expect("a listing");
        let listing = Listing {
            from: 0,
            objects: objects(from),
            foreign: 3,
        };
        repository.on_listing(task.token, &listing, at);
        let put = repository.poll_action(at);
        if let Some(put) = put {
            assert_eq!(from, 5, "it is known to be there");
            repository.on_put_done(put.token, at);
        }
    }
    assert!(repository.there.len() <= Listing::MAX + KEPT);
    assert!(repository.there.contains_key(&place(1, 1)));
    let status = repository.status();
    assert_eq!((status.foreign, status.to_get), (3, 0));
    assert!(repository.notes.len() <= NOTES_MAX);
}
