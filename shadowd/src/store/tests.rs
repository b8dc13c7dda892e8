//! The store against reopening, foreign files, damage, and the death of its process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::facts::{BootTime, Cause, EventKind, HostId};

/// A directory that is deleted when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shadowd-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn event(detail: &str) -> Event {
    Event {
        seq: 0,
        boot_ns: BootTime::from_nanos(u64::MAX - 1),
        wall_ms: 1_700_000_000_000,
        kind: EventKind::RoleChanged,
        group: Some("web".parse().unwrap()),
        epoch: Some(7),
        cause: Some(Cause::Silence),
        detail: detail.to_owned(),
    }
}

fn seqs(store: &Store, since: u64, limit: u32) -> Vec<u64> {
    store
        .events(since, limit)
        .unwrap()
        .iter()
        .map(|event| event.seq)
        .collect()
}

#[test]
fn events_come_back_as_they_were_across_a_reopen() {
    let dir = Scratch::new();
    let bare = Event {
        group: None,
        epoch: None,
        cause: None,
        ..event("")
    };
    Store::open(&dir.0)
        .unwrap()
        .append(&[event("joining -> shadow"), bare.clone()])
        .unwrap();
    let mut store = Store::open(&dir.0).unwrap();
    store.append(&[event("third")]).unwrap();
    let wanted = [
        Event {
            seq: 1,
            ..event("joining -> shadow")
        },
        Event { seq: 2, ..bare },
        Event {
            seq: 3,
            ..event("third")
        },
    ];
    assert_eq!(store.events(0, 10).unwrap(), wanted);
    assert_eq!(seqs(&store, 0, 2), [2, 3], "the newest, oldest first");
    assert_eq!(seqs(&store, 2, 10), [3]);
    assert_eq!(seqs(&store, u64::MAX, 10), [0; 0]);
}

#[test]
fn old_events_make_room_and_numbers_are_never_used_again() {
    let dir = Scratch::new();
    let mut store = Store::open(&dir.0).unwrap();
    for _ in 0..4 {
        store
            .append_keeping(&[event("a"), event("b"), event("c")], 5)
            .unwrap();
    }
    assert_eq!(seqs(&store, 0, 100), [8, 9, 10, 11, 12]);
}

#[test]
fn a_long_detail_is_cut_at_a_character() {
    let dir = Scratch::new();
    let mut store = Store::open(&dir.0).unwrap();
    store
        .append(&[event(&"é".repeat(MAX_DETAIL_BYTES))])
        .unwrap();
    let detail = store.events(0, 1).unwrap().remove(0).detail;
    assert!(
        detail.len() <= MAX_DETAIL_BYTES && detail.ends_with("é…"),
        "{}",
        detail.len()
    );
}

#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Scratch::new();
    let mut store = Store::open(&dir.0).unwrap();
    store.append(&[event("x")]).unwrap();
    for name in [FILE, "store.sqlite-wal", "store.sqlite-shm"] {
        let mode = fs::metadata(dir.0.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    let dir = Scratch::new();
    let other = Connection::open(dir.file()).unwrap();
    other
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    drop(other);
    let of_another_program = fs::read(dir.file()).unwrap();
    for content in [
        b"not a database at all".to_vec(),
        vec![0; 8192],
        of_another_program,
    ] {
        fs::write(dir.file(), &content).unwrap();
        let error = Store::open(&dir.0).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(FILE) && text.contains("move it away"),
            "{text}"
        );
        assert_eq!(fs::read(dir.file()).unwrap(), content);
        assert_eq!(
            fs::read_dir(&dir.0).unwrap().count(),
            1,
            "no file was added"
        );
    }
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let dir = Scratch::new();
    let mut store = Store::open(&dir.0).unwrap();
    let batch: Vec<Event> = (0..500)
        .map(|number| event(&format!("event {number}")))
        .collect();
    store.append(&batch).unwrap();
    drop(store);
    let mut content = fs::read(dir.file()).unwrap();
    assert!(content.len() > 8 * 4096);
    content[4096..].fill(0xA5);
    fs::write(dir.file(), &content).unwrap();
    let error = Store::open(&dir.0).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("move both away"), "{error}");
    assert_eq!(fs::read(dir.file()).unwrap(), content);
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = Scratch::new();
    drop(Store::open(&dir.0).unwrap());
    let connection = Connection::open(dir.file()).unwrap();
    connection
        .pragma_update(None, "user_version", schema::STORE.version() + 1)
        .unwrap();
    drop(connection);
    let error = Store::open(&dir.0).unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found, .. } if found == schema::STORE.version() + 1)
    );
}

#[test]
fn a_row_that_is_no_event_is_an_error_not_a_guess() {
    let dir = Scratch::new();
    let mut store = Store::open(&dir.0).unwrap();
    store.append(&[event("x")]).unwrap();
    store
        .connection
        .execute("UPDATE events SET kind = 'who_knows'", [])
        .unwrap();
    assert!(matches!(store.events(0, 1), Err(StoreError::Events(_))));
}

#[test]
fn an_interrupted_creation_starts_again() {
    let dir = Scratch::new();
    fs::write(dir.0.join("store.sqlite.new"), b"half").unwrap();
    Store::open(&dir.0).unwrap().append(&[event("x")]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_epoch_never_goes_back(steps in prop::collection::vec((any::<u64>(), any::<u8>()), 1..20)) {
        let dir = Scratch::new();
        let group: Name = "web".parse().unwrap();
        let mut largest: Option<Epoch> = None;
        let mut store = Store::open(&dir.0).unwrap();
        for (counter, owner) in steps {
            let epoch = Epoch { counter, owner: HostId::from_bytes([owner; 32]) };
            largest = largest.max(Some(epoch));
            prop_assert_eq!(Some(store.set_epoch(&group, epoch).unwrap()), largest);
        }
        drop(store);
        let store = Store::open(&dir.0).unwrap();
        prop_assert_eq!(store.epoch(&group).unwrap(), largest);
        prop_assert_eq!(store.epoch(&"other".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn any_text_survives(detail in "\\PC{0,80}", nul in any::<bool>()) {
        let dir = Scratch::new();
        let mut store = Store::open(&dir.0).unwrap();
        let detail = if nul { format!("{detail}\0'; DROP TABLE events; --") } else { detail };
        store.append(&[event(&detail)]).unwrap();
        prop_assert_eq!(&store.events(0, 1).unwrap()[0].detail, &detail);
    }
}

const CHILD_DIR: &str = "SHADOWD_TEST_STORE_DIR";

/// Runs only as the child of the test below: appends until it is killed.
#[test]
#[ignore = "the child process of a_killed_process_loses_no_acknowledged_event"]
fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let mut store = Store::open(Path::new(&dir)).unwrap();
    let group: Name = "web".parse().unwrap();
    for counter in 1..1_000_000 {
        store
            .append(&[event("one"), event("two"), event("three")])
            .unwrap();
        let epoch = Epoch {
            counter,
            owner: HostId::from_bytes([1; 32]),
        };
        store.set_epoch(&group, epoch).unwrap();
        println!("acked {counter}");
    }
}

#[test]
fn a_killed_process_loses_no_acknowledged_event() {
    let dir = Scratch::new();
    let mut acknowledged = 0;
    for round in 1..=3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_appends_until_killed"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, &dir.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut rounds = 0;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            // The first line can follow the harness's own "test ... " without a line break.
            rounds += u64::from(line.contains("acked "));
            if rounds == 17 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(rounds >= 17 * round, "the child ended early");
        acknowledged += 3 * rounds;

        let store = Store::open(&dir.0).unwrap();
        let all = seqs(&store, 0, 100_000);
        let last = *all.last().unwrap();
        assert!(
            last >= acknowledged,
            "{last} recorded, {acknowledged} acknowledged"
        );
        assert_eq!(all, (1..=last).collect::<Vec<_>>(), "no gap");
        assert_eq!(last % 3, 0, "a batch is recorded as a whole");
        assert!(
            store
                .epoch(&"web".parse().unwrap())
                .unwrap()
                .unwrap()
                .counter
                >= rounds
        );
        acknowledged = last;
    }
}
