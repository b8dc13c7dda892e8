//! Whether this host could take a group over, item by item.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Act;
use crate::facts::Name;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A unit: there, enabled as on the active, not masked, warm ones active.
    Unit,
    /// A package and its version.
    Package,
    /// A file: content, owner, group, mode.
    File,
    /// A variable of a unit's environment.
    Environment,
    /// A limit of a unit.
    Limit,
    /// A port that a unit is going to listen on.
    Port,
    /// Room on a file system.
    Disk,
    /// Memory for the predicted peak.
    Memory,
    /// Processors for the predicted peak.
    Cpu,
    /// A kernel parameter.
    Parameter,
    /// Something that a unit connects to.
    Dependency,
    /// A certificate's expiry.
    Certificate,
    /// The clock.
    Clock,
    /// The packet filter: a port that the active lets everybody in to is open here.
    Firewall,
    /// Files that a unit keeps in memory on the active. Always ready: what is read from the disk takes
    /// longer and is the same, and what is in memory comes and goes.
    Cache,
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unit => "unit",
            Self::Package => "package",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Limit => "limit",
            Self::Port => "port",
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Parameter => "parameter",
            Self::Dependency => "dependency",
            Self::Certificate => "certificate",
            Self::Clock => "clock",
            Self::Firewall => "firewall",
            Self::Cache => "cache",
        })
    }
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As the profile has it.
    Ready,
    /// It could not be found out, which is no reason to believe that all is well.
    CannotTell,
    /// Not as the profile has it.
    NotReady,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What is compared.
    pub kind: ItemKind,
    /// Which: a unit, a path, a package, `unit: VARIABLE`.
    pub subject: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Why, in words; empty for what is ready, unless it could be readier.
    pub cause: String,
    /// What an operator can do about it, as a command or a sentence.
    pub remedy: Option<String>,
    /// What shadowd could do about it, if its policy let it.
    pub act: Option<Act>,
}

/// Whether this host could take a group over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// The group.
    pub group: Name,
    /// The items that are not ready first, then those that nobody can tell; by kind and subject.
    pub items: Vec<Item>,
}

impl Readiness {
    /// The worst verdict of all items; nothing compared is nothing proven.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.items.iter().map(|item| item.verdict);
        verdicts.max().unwrap_or(Verdict::CannotTell)
    }

    /// The share of items that are ready, 0 to 1; 0 when nothing was compared.
    pub fn score(&self) -> f64 {
        let ready = self.count(Verdict::Ready);
        match self.items.len() {
            0 => 0.0,
            all => ready as f64 / all as f64,
        }
    }

    /// How many items have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let items = self.items.iter();
        items.filter(|item| item.verdict == verdict).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(verdicts: &[Verdict]) -> Readiness {
        let item = |verdict: &Verdict| Item {
            kind: ItemKind::Clock,
            subject: "clock".into(),
            verdict: *verdict,
            cause: String::new(),
            remedy: None,
            act: None,
        };
        Readiness {
            group: "web".parse().unwrap(),
            items: verdicts.iter().map(item).collect(),
        }
    }

    #[test]
    fn the_worst_item_decides_and_nothing_proves_nothing() {
        use Verdict::{CannotTell, NotReady, Ready};
        assert_eq!(readiness(&[]).verdict(), CannotTell);
        assert_eq!(readiness(&[Ready, Ready]).verdict(), Ready);
        assert_eq!(readiness(&[Ready, CannotTell]).verdict(), CannotTell);
        assert_eq!(
            readiness(&[CannotTell, NotReady, Ready]).verdict(),
            NotReady
        );
        assert_eq!(readiness(&[]).score(), 0.0);
        assert_eq!(readiness(&[Ready, NotReady]).score(), 0.5);
    }
}
