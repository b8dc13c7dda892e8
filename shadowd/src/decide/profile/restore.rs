//! How a restore of a host to a version goes on and when it is over.
//!
//! ```text
//!             lacking and can be mended
//!               .---------.
//!               v         |
//! begun ----> running ----'
//!               |-- nothing of the version is lacking ----------------> restored
//!               |-- nothing that can be mended for SETTLE, deadline --> incomplete
//!               '-- this host owns the group -----------------------> abandoned
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::provision::{admits, contents, plan};
use crate::config::settings::{ProfileSettings, Provision, ProvisionSettings};
use crate::facts::{Act, BootTime, Item, ItemKind, Readiness, ValueHash, Verdict};

/// What was mended takes effect within this: a unit comes up, a name resolves.
const SETTLE: Duration = Duration::from_secs(10);

/// How a restore ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The host is as the version has it.
    Restored,
    /// Nothing that is still lacking can be mended here.
    Stuck,
    /// The time is over.
    Late,
    /// This host owns the group now.
    Owner,
}

/// The rules of a host for a restore: an operator asked for all of it. Files are touched only where
/// `replicate` lets contents in, as ever.
pub fn everything(rules: &ProfileSettings) -> ProfileSettings {
    ProfileSettings {
        provision: ProvisionSettings {
            files: Provision::Apply,
            packages: Provision::Apply,
            units: Provision::Apply,
            parameters: Provision::Apply,
            // Neither is part of a version.
            ..rules.provision
        },
        ..rules.clone()
    }
}

/// Whether a host is as a version has it: nothing is not ready, and what the version itself names is
/// known to be. Room, clock and reach of a host are no part of a version, so that nobody can tell them
/// does not count.
pub fn is_restored(readiness: &Readiness) -> bool {
    let of_version = |kind: ItemKind| match kind {
        ItemKind::Unit
        | ItemKind::Package
        | ItemKind::File
        | ItemKind::Environment
        | ItemKind::Limit
        | ItemKind::Port
        | ItemKind::Parameter => true,
        ItemKind::Firewall
        | ItemKind::Cache
        | ItemKind::Disk
        | ItemKind::Memory
        | ItemKind::Cpu
        | ItemKind::Dependency
        | ItemKind::Certificate
        | ItemKind::Clock => false,
    };
    let is_well = |item: &Item| match item.verdict {
        Verdict::Ready => true,
        Verdict::CannotTell => !of_version(item.kind),
        Verdict::NotReady => false,
    };
    !readiness.items.is_empty() && readiness.items.iter().all(is_well)
}

/// One restore.
#[derive(Clone, Debug)]
pub struct Course {
    until: BootTime,
    /// Since when there is nothing to do about what is lacking.
    idle_since: Option<BootTime>,
}

impl Course {
    /// One that ends at `until`.
    pub const fn new(until: BootTime) -> Self {
        Self {
            until,
            idle_since: None,
        }
    }

    /// The host was compared with the version after the last act had ended; `lost` are contents that no
    /// member has. What came of it, if it is over.
    pub fn on_comparison(
        &mut self,
        readiness: &Readiness,
        (rules, lost): (&ProfileSettings, &BTreeSet<ValueHash>),
        is_member: &dyn Fn(&str) -> bool,
        now: BootTime,
    ) -> Option<End> {
        if is_restored(readiness) {
            return Some(End::Restored);
        }
        if now >= self.until {
            return Some(End::Late);
        }
        let acts = plan(readiness, &everything(rules), is_member);
        if acts.iter().any(|act| kept_out(act, rules, lost).is_none()) {
            self.idle_since = None;
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        (now.since(since) >= SETTLE).then_some(End::Stuck)
    }
}

/// What is still lacking, with why shadowd cannot mend it; `lost` are contents that no member has.
pub fn left(
    readiness: &Readiness,
    rules: &ProfileSettings,
    lost: &BTreeSet<ValueHash>,
) -> Vec<Item> {
    let lacking = readiness.items.iter();
    let lacking = lacking.filter(|item| item.verdict != Verdict::Ready);
    lacking
        .map(|item| {
            let mut item = item.clone();
            if let Some(why) = item.act.as_ref().and_then(|act| kept_out(act, rules, lost)) {
                item.cause = format!("{}; {why}", item.cause);
                item.act = None;
            }
            item
        })
        .collect()
}

/// Why an act is not done, if it is not.
fn kept_out(
    act: &Act,
    rules: &ProfileSettings,
    lost: &BTreeSet<ValueHash>,
) -> Option<&'static str> {
    if let Act::Copy { path, .. } | Act::Own { path, .. } | Act::Mode { path, .. } = act
        && !admits(rules, path)
    {
        return Some("`replicate` of this host does not let it in");
    }
    let needed = contents(std::slice::from_ref(act));
    needed
        .iter()
        .any(|(_, hash)| lost.contains(hash))
        .then_some("no member has this content any more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FileFact, FileKind};

    const NOW: BootTime = BootTime::from_nanos(1_000_000_000);

    fn item(kind: ItemKind, verdict: Verdict, act: Option<Act>) -> Item {
        Item {
            kind,
            subject: "/etc/app.conf".into(),
            verdict,
            cause: "other".into(),
            remedy: None,
            act,
        }
    }

    fn readiness(items: Vec<Item>) -> Readiness {
        Readiness {
            group: "web".parse().unwrap(),
            items,
        }
    }

    fn copy(path: &str) -> Act {
        let kind = FileKind::Regular {
            hash: ValueHash::from_bytes([1; 32]),
            size: 1,
            replicated: true,
        };
        Act::Copy {
            path: path.into(),
            fact: FileFact {
                kind,
                owner: "root".into(),
                group: "root".into(),
                mode: 0o644,
            },
        }
    }

    fn rules() -> ProfileSettings {
        ProfileSettings {
            replicate: vec!["/etc/*".parse().unwrap()],
            ..ProfileSettings::default()
        }
    }

    #[test]
    fn nothing_compared_is_nothing_restored_and_what_the_version_names_has_to_be_known() {
        use Verdict::{CannotTell, NotReady, Ready};
        let one = |kind, verdict| is_restored(&readiness(vec![item(kind, verdict, None)]));
        assert!(!is_restored(&readiness(Vec::new())));
        assert!(one(ItemKind::File, Ready));
        assert!(!one(ItemKind::File, CannotTell) && !one(ItemKind::File, NotReady));
        assert!(!one(ItemKind::Package, CannotTell) && !one(ItemKind::Unit, CannotTell));
        assert!(one(ItemKind::Clock, CannotTell) && one(ItemKind::Memory, CannotTell));
        assert!(!one(ItemKind::Clock, NotReady) && !one(ItemKind::Dependency, NotReady));
    }

    #[test]
    fn it_goes_on_while_something_can_be_mended_and_ends_when_nothing_can() {
        let after = |seconds: u64| NOW.after(Duration::from_secs(seconds));
        let mendable = readiness(vec![item(
            ItemKind::File,
            Verdict::NotReady,
            Some(copy("/etc/app.conf")),
        )]);
        let not = readiness(vec![item(ItemKind::Dependency, Verdict::NotReady, None)]);
        let well = readiness(vec![item(ItemKind::File, Verdict::Ready, None)]);
        let (all, none) = (rules(), BTreeSet::new());
        let mended = (&all, &none);
        let mut course = Course::new(after(300));
        for seconds in [0, 20, 299] {
            assert_eq!(
                course.on_comparison(&mendable, mended, &|_| true, after(seconds)),
                None
            );
        }
        assert_eq!(
            course.on_comparison(&mendable, mended, &|_| true, after(300)),
            Some(End::Late)
        );
        assert_eq!(
            course.on_comparison(&well, mended, &|_| true, after(301)),
            Some(End::Restored)
        );
        let mut course = Course::new(after(300));
        assert_eq!(
            course.on_comparison(&not, mended, &|_| true, after(0)),
            None
        );
        assert_eq!(
            course.on_comparison(&not, mended, &|_| true, after(9)),
            None
        );
        // It came to something else in between: the wait begins anew.
        assert_eq!(
            course.on_comparison(&mendable, mended, &|_| true, after(9)),
            None
        );
        assert_eq!(
            course.on_comparison(&not, mended, &|_| true, after(11)),
            None
        );
        assert_eq!(
            course.on_comparison(&not, mended, &|_| true, after(21)),
            Some(End::Stuck)
        );
        // What needs a content that nobody has cannot be mended either.
        let lost = BTreeSet::from([ValueHash::from_bytes([1; 32])]);
        let mut course = Course::new(after(300));
        assert_eq!(
            course.on_comparison(&mendable, (&all, &lost), &|_| true, after(0)),
            None
        );
        assert_eq!(
            course.on_comparison(&mendable, (&all, &lost), &|_| true, after(10)),
            Some(End::Stuck)
        );
    }

    #[test]
    fn what_is_kept_out_is_told_and_why() {
        let lacking = readiness(vec![
            item(
                ItemKind::File,
                Verdict::NotReady,
                Some(copy("/etc/app.conf")),
            ),
            item(ItemKind::File, Verdict::NotReady, Some(copy("/srv/x"))),
            item(ItemKind::Clock, Verdict::Ready, None),
        ]);
        let causes = |lost: &BTreeSet<ValueHash>| -> Vec<String> {
            let left = left(&lacking, &rules(), lost);
            left.into_iter().map(|item| item.cause).collect()
        };
        let kept_out = "other; `replicate` of this host does not let it in";
        assert_eq!(causes(&BTreeSet::new()), ["other", kept_out]);
        let lost = BTreeSet::from([ValueHash::from_bytes([1; 32])]);
        assert_eq!(
            causes(&lost),
            ["other; no member has this content any more", kept_out]
        );
        // And it is no act that anybody plans.
        assert!(
            plan(&lacking, &everything(&rules()), &|_| true)
                .iter()
                .all(|act| *act == copy("/etc/app.conf"))
        );
    }
}
