//! Which contents of files a host keeps, so that a version can be gone back to when its files are no
//! longer on any host: which are lacking, and when each is looked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::provision::admits;
use crate::config::settings::ProfileSettings;
use crate::facts::{BootTime, Content, FileKind, ValueHash};

/// What does not come is looked for again after this, doubling, up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(256));
/// Contents that are looked for at once.
const AT_ONCE: usize = 8;

/// The contents that a version names, each with a path, as far as the rules of this host let them out
/// and in.
pub fn named(content: &Content, rules: &ProfileSettings) -> BTreeMap<ValueHash, String> {
    let files = content.files.iter();
    let named = files.filter_map(|(path, fact)| match &fact.kind {
        FileKind::Regular {
            hash,
            replicated: true,
            ..
        } => admits(rules, path).then(|| (*hash, path.clone())),
        FileKind::Regular { .. }
        | FileKind::Link { .. }
        | FileKind::Directory
        | FileKind::Unreadable { .. } => None,
    });
    named.collect()
}

/// One group's contents on this host.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// What is to be here, each with a path that has it.
    named: BTreeMap<ValueHash, String>,
    lacking: BTreeMap<ValueHash, Want>,
}

#[derive(Clone, Copy, Debug)]
struct Want {
    tries: u32,
    again_at: BootTime,
}

/// A content to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// A path that has it.
    pub path: String,
    /// Its hash.
    pub hash: ValueHash,
    /// How often it was looked for before: who is asked next.
    pub tries: u32,
}

impl Archive {
    /// From now on these are to be here; `kept` are.
    pub fn want(
        &mut self,
        named: BTreeMap<ValueHash, String>,
        kept: &BTreeSet<ValueHash>,
        now: BootTime,
    ) {
        let lacking = named.keys().filter(|hash| !kept.contains(*hash));
        self.lacking = lacking
            .map(|hash| {
                let fresh = Want {
                    tries: 0,
                    again_at: now,
                };
                (*hash, self.lacking.get(hash).copied().unwrap_or(fresh))
            })
            .collect();
        self.named = named;
    }

    /// What is to be here: none of it makes room for others.
    pub fn needed(&self) -> BTreeSet<ValueHash> {
        self.named.keys().copied().collect()
    }

    /// Whether a content is looked for.
    pub fn is_lacking(&self, hash: &ValueHash) -> bool {
        self.lacking.contains_key(hash)
    }

    /// What is to be looked for now.
    pub fn due(&mut self, now: BootTime) -> Vec<Lacking> {
        let due = self.lacking.iter_mut();
        let due = due.filter(|(_, want)| now >= want.again_at).take(AT_ONCE);
        due.filter_map(|(hash, want)| {
            let tries = want.tries;
            let pause = AGAIN.0 * 2_u32.saturating_pow(tries.min(16));
            want.tries = tries.saturating_add(1);
            want.again_at = now.after(pause.min(AGAIN.1));
            let path = self.named.get(hash)?.clone();
            Some(Lacking {
                path,
                hash: *hash,
                tries,
            })
        })
        .collect()
    }

    /// It is here now.
    pub fn on_kept(&mut self, hash: &ValueHash) {
        self.lacking.remove(hash);
    }

    /// What was kept is damaged.
    pub fn on_damage(&mut self, hash: &ValueHash, now: BootTime) {
        if self.named.contains_key(hash) {
            let want = Want {
                tries: 0,
                again_at: now,
            };
            self.lacking.entry(*hash).or_insert(want);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FileFact;

    const NOW: BootTime = BootTime::from_nanos(1_000_000_000);

    fn hash(byte: u8) -> ValueHash {
        ValueHash::from_bytes([byte; 32])
    }

    fn all(bytes: std::ops::Range<u8>) -> BTreeMap<ValueHash, String> {
        bytes
            .map(|byte| (hash(byte), format!("/etc/{byte}")))
            .collect()
    }

    #[test]
    fn only_contents_that_may_leave_and_come_are_named() {
        let rules = ProfileSettings {
            replicate: vec!["/etc/*".parse().unwrap()],
            ..ProfileSettings::default()
        };
        let file = |byte: u8, replicated: bool| FileFact {
            kind: FileKind::Regular {
                hash: hash(byte),
                size: 1,
                replicated,
            },
            owner: "root".into(),
            group: "root".into(),
            mode: 0o644,
        };
        let link = FileFact {
            kind: FileKind::Directory,
            ..file(0, true)
        };
        let files = [
            ("/etc/app.conf", file(1, true)),
            ("/etc/hidden", file(2, false)),
            ("/etc/app.key", file(3, true)),
            ("/srv/.ssh/authorized_keys", file(4, true)),
            ("/etc/app", link),
        ];
        let content = Content {
            files: files.map(|(path, fact)| (path.to_owned(), fact)).into(),
            ..Content::default()
        };
        let wanted = BTreeMap::from([(hash(1), "/etc/app.conf".to_owned())]);
        assert_eq!(named(&content, &rules), wanted);
        assert!(named(&content, &ProfileSettings::default()).is_empty());
    }

    #[test]
    fn what_is_lacking_is_looked_for_more_and_more_rarely_until_it_is_here() {
        let mut archive = Archive::default();
        archive.want(all(0..2), &BTreeSet::from([hash(0)]), NOW);
        let mut now = NOW;
        let mut pauses = Vec::new();
        let mut last = NOW;
        while pauses.len() < 9 {
            for one in archive.due(now) {
                assert_eq!((one.hash, one.path.as_str()), (hash(1), "/etc/1"));
                pauses.push(now.since(last).as_secs());
                assert_eq!(one.tries as usize, pauses.len() - 1);
                last = now;
            }
            now = now.after(Duration::from_secs(1));
        }
        assert_eq!(pauses, [0, 4, 8, 16, 32, 64, 128, 256, 256]);
        // Another version that names it as well does not begin anew.
        archive.want(all(1..3), &BTreeSet::new(), now);
        let due = archive.due(now);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].hash, hash(2));
        archive.on_kept(&hash(1));
        archive.on_kept(&hash(2));
        let later = now.after(Duration::from_secs(9_999));
        assert!(archive.due(later).is_empty());
        archive.on_damage(&hash(9), later);
        archive.on_damage(&hash(2), later);
        let due = archive.due(later);
        assert_eq!(due.len(), 1, "what nobody names is not looked for");
        assert_eq!((due[0].hash, due[0].tries), (hash(2), 0));
    }

    #[test]
    fn not_all_are_looked_for_at_once_and_none_is_left_out() {
        let mut archive = Archive::default();
        archive.want(all(0..100), &BTreeSet::new(), NOW);
        let mut seen = BTreeSet::new();
        for _ in 0..100_usize.div_ceil(AT_ONCE) {
            let due = archive.due(NOW);
            assert!(due.len() <= AT_ONCE);
            seen.extend(due.into_iter().map(|one| one.hash));
        }
        assert_eq!(seen.len(), 100);
        assert_eq!(archive.needed().len(), 100);
    }
}
