//! Which groups a daemon that is restarted can keep for the next one: those that it will still have
//! by its configuration, with the same voters and addresses. The others are given up, as at a stop:
//! nobody would take their addresses off the interface, or be the owner that the voters wait for.

use std::collections::BTreeSet;
use std::path::Path;

use tracing::warn;

use crate::config::settings::{GroupSettings, Settings};
use crate::facts::{HostId, Name};

/// The groups of `now` that a daemon which reads the configuration at `path` goes on with; none
/// when it could not start with that.
pub fn going_on(now: &Settings, path: &Path) -> Vec<Name> {
    let next = match crate::config::load(path) {
        Ok(next) => next,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            warn!(
                why,
                "the configuration is bad: all groups are given up before this daemon ends"
            );
            return Vec::new();
        }
    };
    kept(now, &next)
}

fn kept(now: &Settings, next: &Settings) -> Vec<Name> {
    let goes_on = |group: &&GroupSettings| {
        let same = |other: &&GroupSettings| other.name == group.name;
        let found = next.groups.iter().find(same);
        found.is_some_and(|other| is_same(now, group, next, other))
    };
    let kept = now.groups.iter().filter(goes_on);
    kept.map(|group| group.name.clone()).collect()
}

fn is_same(now: &Settings, group: &GroupSettings, next: &Settings, other: &GroupSettings) -> bool {
    let about = |group: &GroupSettings| (group.protection, group.guard, group.spare);
    now.host.name == next.host.name
        && group.interface == other.interface
        && group.vips == other.vips
        && about(group) == about(other)
        && voters(now, group) == voters(next, other)
}

fn voters<'a>(settings: &'a Settings, group: &'a GroupSettings) -> BTreeSet<(&'a Name, HostId)> {
    let named = group.members.iter().chain(&group.witnesses);
    let of = |name: &Name| settings.peers.iter().find(|peer| peer.name == *name);
    named
        .filter_map(of)
        .map(|peer| (&peer.name, peer.id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const TEXT: &str = r#"[host]
name = "a"
listen = "192.0.2.1:7373"
[[peer]]
name = "b"
id = "ID2"
address = "192.0.2.2:7373"
[[peer]]
name = "w"
id = "ID3"
address = "192.0.2.3:7373"
[[group]]
name = "web"
members = ["a", "b"]
witnesses = ["w"]
protection = "lease"
priority = 100
interface = "eth0"
vips = ["192.0.2.10/24"]
[[group.unit]]
name = "nginx.service"
mode = "warm"
"#;

    fn settings(text: &str) -> Settings {
        let id = |number| HostId::from_bytes([number; 32]).to_string();
        let text = text.replace("ID2", &id(2)).replace("ID3", &id(3));
        parse(&text.replace("ID4", &id(4)), Path::new("next")).expect("it is good")
    }

    /// Whether the group goes on when the next daemon has the sample, changed.
    fn goes_on(change: impl Fn(&str) -> String) -> bool {
        let (now, next) = (settings(TEXT), settings(&change(TEXT)));
        kept(&now, &next) == [now.groups[0].name.clone()]
    }

    #[test]
    fn a_group_that_the_next_daemon_has_as_it_is_goes_on() {
        assert!(goes_on(str::to_owned));
        let other = |text: &str| text.replace("priority = 100", "priority = 90\ndrain = \"1s\"");
        assert!(goes_on(other));
    }

    #[test]
    fn a_group_with_other_addresses_or_voters_is_given_up() {
        assert!(!goes_on(|text| text.replace("10/24", "11/24")));
        assert!(!goes_on(|text| text.replace("eth0", "eth1")));
        assert!(!goes_on(|text| text.replace("ID3", "ID4")));
        assert!(!goes_on(|text| text.replace(
            "witnesses = [\"w\"]\nprotection = \"lease\"",
            "protection = \"none\""
        )));
    }

    #[test]
    fn a_group_that_is_gone_is_given_up_and_without_a_configuration_each() {
        assert!(!goes_on(|text| text.replace("\"web\"", "\"mail\"")));
        assert!(!goes_on(
            |text| text[..text.find("[[group]]").expect("it")].to_owned()
        ));
        assert_eq!(going_on(&settings(TEXT), Path::new("/nowhere")), []);
    }
}
