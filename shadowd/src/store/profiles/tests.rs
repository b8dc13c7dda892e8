//! What is kept comes back whole, or not at all.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A folder of its own.
pub(super) struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("shadowd-profiles-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn open(&self) -> ProfileStore {
        ProfileStore::open(&self.0).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn web() -> Name {
    "web".parse().unwrap()
}

fn signed(number: u32) -> Signed {
    Signed {
        bytes: format!("version {number}").into_bytes(),
        key: vec![1; 44],
        signature: vec![2; 64],
    }
}

#[test]
fn versions_come_back_and_the_oldest_go_but_those_in_use() {
    let folder = Folder::new("bound");
    let mut store = folder.open();
    let first = store.keep_version(&web(), &signed(0), &[]).unwrap();
    let golden = store.keep_version(&web(), &signed(1), &[]).unwrap();
    for number in 2..MAX_VERSIONS + 10 {
        let pinned = [first, golden];
        store
            .keep_version(&web(), &signed(number), &pinned)
            .unwrap();
    }
    drop(store);
    let store = folder.open();
    let kept = store.versions(&web()).unwrap();
    assert_eq!(kept.len() as u32, MAX_VERSIONS + 2);
    assert_eq!(kept[..2], [first, golden]);
    assert_eq!(store.version(&web(), &first).unwrap(), Some(signed(0)));
    let other: Name = "db".parse().unwrap();
    assert_eq!(store.version(&other, &first).unwrap(), None);
}

#[test]
fn a_changed_byte_is_found_and_the_version_can_be_kept_again() {
    let folder = Folder::new("damage");
    let mut store = folder.open();
    let id = store.keep_version(&web(), &signed(0), &[]).unwrap();
    let other = zstd::bulk::compress(&postcard::to_stdvec(&signed(9)).unwrap(), 3).unwrap();
    for spoiled in [vec![0; 9], other] {
        let spoil = "UPDATE versions SET packed = ?1";
        store.connection.execute(spoil, [spoiled]).unwrap();
        assert_eq!(store.version(&web(), &id).unwrap(), None);
        assert_eq!(store.versions(&web()).unwrap(), [id]);
        store.keep_version(&web(), &signed(0), &[]).unwrap();
        assert_eq!(store.version(&web(), &id).unwrap(), Some(signed(0)));
    }
}

#[test]
fn what_was_learned_comes_back_unless_it_was_damaged() {
    let folder = Folder::new("learned");
    let mut store = folder.open();
    assert_eq!(store.learned(&web()).unwrap(), None);
    store.keep_learned(&web(), b"one").unwrap();
    store.keep_learned(&web(), b"two").unwrap();
    assert_eq!(store.learned(&web()).unwrap(), Some(b"two".to_vec()));
    let spoil = "UPDATE learned SET packed = zeroblob(9)";
    store.connection.execute(spoil, []).unwrap();
    assert_eq!(store.learned(&web()).unwrap(), None);
}
