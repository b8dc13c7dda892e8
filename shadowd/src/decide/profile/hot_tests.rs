//! What is told of hot files, what is believed of it, and how often it is read.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn at(seconds: u64) -> BootTime {
    BootTime::from_nanos(seconds * 1_000_000_000)
}

fn whole(size: u64) -> HotFile {
    HotFile {
        size,
        pieces: u64::MAX,
    }
}

fn used(unit: &str, paths: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    BTreeMap::from([(unit.to_owned(), paths)])
}

#[test]
fn what_is_used_is_told_with_what_is_in_memory_and_forgotten_after_a_day() {
    let mut seen = Used::default();
    seen.note(
        used("app.service", &["/usr/bin/app", "/srv/data", "relative"]),
        at(0),
    );
    seen.note(used("web.service", &["/usr/bin/app"]), at(10));
    assert_eq!(seen.paths(), ["/srv/data", "/usr/bin/app"].into());
    let files = [
        ("/usr/bin/app".to_owned(), whole(MIB)),
        ("/srv/data".into(), HotFile::default()),
    ];
    let hot = seen.hot(files.into());
    assert_eq!(hot.files, [("/usr/bin/app".to_owned(), whole(MIB))].into());
    assert_eq!(hot.units.len(), 2);
    assert_eq!(hot.units["app.service"], ["/usr/bin/app".to_owned()].into());
    seen.note(used("web.service", &["/usr/bin/web"]), at(24 * 3_600 + 5));
    assert_eq!(seen.paths(), ["/usr/bin/app", "/usr/bin/web"].into());
}

#[test]
fn what_is_told_is_bounded_in_files_and_bytes_small_ones_first() {
    let mut seen = Used::default();
    let mut files = BTreeMap::new();
    for number in 0..2 * FILES_MAX as u64 {
        let path = format!("/srv/{number}");
        seen.note(used("app.service", &[&path]), at(0));
        files.insert(path, whole(16 * (number + 1)));
    }
    files.insert("/srv/1".into(), whole(BYTES_MAX));
    files.insert("/srv/2".into(), whole(3 * MIB * 1_024));
    let hot = seen.hot(files);
    let bytes: u64 = hot.files.values().map(HotFile::bytes).sum();
    assert!(bytes <= BYTES_MAX && bytes > 2 << 30, "{bytes}");
    assert_eq!(hot.files.len(), FILES_MAX - 1);
    assert!(hot.files.contains_key("/srv/2") && !hot.files.contains_key("/srv/1"));
    assert!(
        !hot.files.contains_key("/srv/3"),
        "of the smallest there are too many"
    );
}

#[test]
fn of_a_peers_word_only_what_can_be_is_believed() {
    let mut told = Hot::default();
    for path in ["/usr/bin/app", "/etc/../srv/x", "etc", "/a//b", "/"] {
        told.files.insert(path.into(), whole(MIB));
    }
    told.files.insert("/srv/huge".into(), whole(u64::MAX));
    let paths: BTreeSet<String> = told.files.keys().cloned().collect();
    told.units.insert("app.service".into(), paths.clone());
    told.units.insert("--now".into(), paths);
    let hot = believed(told.clone());
    assert_eq!(hot.files.keys().collect::<Vec<_>>(), ["/usr/bin/app"]);
    assert_eq!(hot.units.keys().collect::<Vec<_>>(), ["app.service"]);
    assert_eq!(hot.units["app.service"].len(), 1);
    told.files = (0..FILES_MAX * 2)
        .map(|n| (format!("/srv/{n}"), whole(1)))
        .collect();
    told.units = (0..300)
        .map(|n| (format!("u{n}.service"), BTreeSet::new()))
        .collect();
    let hot = believed(told);
    assert_eq!((hot.files.len(), hot.units.len()), (FILES_MAX, 256));
}

#[test]
fn what_is_not_in_memory_here_is_missing_unless_the_file_is_not_here() {
    let mut hot = Hot::default();
    for path in ["/a", "/b", "/c"] {
        hot.files.insert(path.into(), whole(64 * MIB));
    }
    let paths = hot.files.keys().cloned().collect();
    hot.units.insert("app.service".into(), paths);
    let here = BTreeMap::from([("/a".to_owned(), u64::MAX), ("/b".into(), 1)]);
    let warmth = Warmth::of("app.service", &hot, &here).unwrap();
    assert_eq!((warmth.hot, warmth.missing), (128 * MIB, 63 * MIB));
    assert_eq!(warmth.files["/b"].pieces, u64::MAX << 1);
    assert!(warmth.is_cold() && warmth.files.len() == 1);
    let nearly = BTreeMap::from([("/a".to_owned(), u64::MAX), ("/b".into(), u64::MAX << 1)]);
    assert!(!Warmth::of("app.service", &hot, &nearly).unwrap().is_cold());
    assert_eq!(Warmth::of("app.service", &hot, &BTreeMap::new()), None);
    assert_eq!(Warmth::of("web.service", &hot, &here), None);
}

#[test]
fn a_quarter_of_the_memory_and_the_peak_stay_free() {
    assert_eq!(room(1_000, 600, 100), 250);
    assert_eq!(room(1_000, 300, 100), 0);
    assert_eq!(room(1_000, 200, 0), 0);
}

#[test]
fn what_is_evicted_again_is_read_more_and_more_rarely_and_what_stays_at_once() {
    let mut pace = Pace::default();
    let mut now = at(5);
    assert!(pace.is_due(now));
    let mut rests = Vec::new();
    for _ in 0..8 {
        pace.read(now);
        let began = now;
        while !pace.is_due(now) {
            now = now.after(Duration::from_secs(1));
        }
        rests.push(now.since(began).as_secs());
    }
    assert_eq!(rests, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    now = now.after(Duration::from_secs(4 * 3_600));
    assert!(pace.is_due(now));
    pace.read(now);
    assert!(pace.is_due(now.after(Duration::from_secs(60))));
}

proptest! {
    #[test]
    fn what_is_told_is_believed(
        paths in proptest::collection::btree_map("/[a-c]{1,3}", (0_u64..1 << 34, any::<u64>()), 0..20),
    ) {
        let mut seen = Used::default();
        for path in paths.keys() {
            seen.note(used("app.service", &[path.as_str()]), at(0));
        }
        let files = paths.into_iter().map(|(path, (size, pieces))| (path, HotFile { size, pieces }));
        let hot = seen.hot(files.collect());
        prop_assert_eq!(believed(hot.clone()), hot);
    }
}
