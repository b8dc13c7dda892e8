//! Names of users and groups. The system's own lookup may ask a directory service, so answers are kept.

use std::collections::HashMap;

use nix::unistd::{Gid, Group, Uid, User};

/// Names that are kept.
const KEPT: usize = 4_096;

/// Names by number.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
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

    /// Asks again from now on: accounts may have changed.
    pub fn forget(&mut self) {
        self.users.clear();
        self.groups.clear();
    }
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
}
