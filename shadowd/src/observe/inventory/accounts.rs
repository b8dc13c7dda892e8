//! Names of users and groups. The system's own lookup may ask a directory service, so answers are kept.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::{Gid, Group, Uid, User};

/// Names that are kept.
const KEPT: usize = 4_096;
/// What changes when an account of this host does.
const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// Inode, time of the last change, and length of each file.
type Stamps = [Option<(u64, i64, i64, u64)>; 2];

/// Names by number.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    stamps: Stamps,
}

impl Accounts {
    /// The user's name, or its number.
    pub fn user(&mut self, number: u32) -> String {
        lookup(&mut self.users, number, || {
            let user = User::from_uid(Uid::from_raw(number));
            Some(user.ok()??.name)
        })
    }

    /// The group's name, or its number.
    pub fn group(&mut self, number: u32) -> String {
        lookup(&mut self.groups, number, || {
            let group = Group::from_gid(Gid::from_raw(number));
            Some(group.ok()??.name)
        })
    }

    /// Forgets all names when accounts have changed, and says so.
    pub fn renew(&mut self) -> bool {
        self.renew_by(FILES.map(stamp))
    }

    fn renew_by(&mut self, stamps: Stamps) -> bool {
        let changed = self.stamps != stamps;
        if changed {
            self.stamps = stamps;
            self.users.clear();
            self.groups.clear();
        }
        changed
    }
}

fn stamp(path: &str) -> Option<(u64, i64, i64, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.size()))
}

fn lookup(
    known: &mut HashMap<u32, String>,
    number: u32,
    ask: impl FnOnce() -> Option<String>,
) -> String {
    if known.len() >= KEPT {
        known.clear();
    }
    let name = known.entry(number);
    name.or_insert_with(|| ask().unwrap_or_else(|| number.to_string()))
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_a_stranger_a_number() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.user(0), "root");
        assert_eq!(accounts.group(0), "root");
        assert_eq!(accounts.user(3_999_999_999), "3999999999");
    }

    #[test]
    fn names_are_asked_for_again_when_accounts_have_changed() {
        let mut accounts = Accounts::default();
        assert!(accounts.renew_by([Some((1, 2, 3, 4)), None]));
        accounts.users.insert(0, "gone".into());
        assert!(!accounts.renew_by([Some((1, 2, 3, 4)), None]));
        assert_eq!(accounts.user(0), "gone");
        assert!(accounts.renew_by([Some((1, 2, 4, 4)), None]));
        assert_eq!(accounts.user(0), "root");
    }
}
