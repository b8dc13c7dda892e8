//! What is known without eBPF: the kernel's own totals, looked at on each tick.
//!
//! The last way to feed a feature, after every hook was refused. What comes and goes between two
//! looks is not seen, and each feature says so.

mod diag;
mod flows;
mod io;

use std::collections::BTreeSet;

use crate::facts::{ProbeStatus, Protocol, Sample};

use super::cgroups::Cgroups;
use super::probes::SWITCHED_OFF;
use super::seed;
pub use diag::connections;
use flows::Flows;
use io::{DiskIo, ProcessIo};

/// A way to feed a feature without eBPF.
struct Way {
    /// Name of the feature.
    feature: &'static str,
    /// Where it comes from.
    hook: &'static str,
    /// What that cannot see.
    missing: &'static str,
}

const WAYS: &[Way] = &[
    Way {
        feature: "tcp",
        hook: "sock_diag tcp",
        missing: "connections that begin and end between two looks are not seen, nor are bytes \
                  after the last look, failed connects and response times",
    },
    Way {
        feature: "udp",
        hook: "sock_diag udp",
        missing: "only connected sockets are seen, and no datagrams are counted",
    },
    Way {
        feature: "listeners",
        hook: "sock_diag tcp",
        missing: "refused connections are not counted",
    },
    Way {
        feature: "files",
        hook: "procfs /proc/PID/io",
        missing: "pipes and sockets are counted too, no opens are, and processes that begin and \
                  end between two looks are not seen",
    },
    Way {
        feature: "block",
        hook: "procfs /proc/diskstats",
        missing: "totals of disks only: no process, no unit, no times",
    },
    Way {
        feature: "processes",
        hook: "procfs /proc/PID/stat",
        missing: "processes that begin and end between two looks are not seen, nor are programs \
                  begun and exit statuses; an owner's end is heard from systemd only",
    },
    Way {
        feature: "cgroups",
        hook: "walk of the cgroup2 tree",
        missing: "control groups that are made and removed between two looks have no name",
    },
];

/// Feeds features that no program feeds.
#[derive(Debug, Default)]
pub struct Fallback {
    features: BTreeSet<&'static str>,
    flows: Flows,
    files: ProcessIo,
    disks: DiskIo,
    /// Sockets that one look could not hold.
    dropped: u64,
}

impl Fallback {
    /// Takes over the features that no program feeds, as far as there is a way and they are not
    /// among those switched `off`; says so in their lines.
    pub fn take_over(&mut self, statuses: &mut [ProbeStatus], off: &BTreeSet<String>) {
        for status in statuses.iter_mut().filter(|status| status.hook.is_none()) {
            if off.contains(&status.name) {
                status.degraded = Some(SWITCHED_OFF.to_owned());
                continue;
            }
            let Some(way) = WAYS.iter().find(|way| way.feature == status.name) else {
                continue;
            };
            let why = status.degraded.take().unwrap_or_default();
            status.hook = Some(way.hook.to_owned());
            status.degraded = Some(format!("{} (no eBPF: {why})", way.missing));
            self.features.insert(way.feature);
        }
    }

    /// Adds what changed since the last look to a sample.
    ///
    /// # Errors
    ///
    /// The feature that could not be looked at, and why.
    pub fn look(
        &mut self,
        sample: &mut Sample,
        cgroups: &Cgroups,
    ) -> Result<(), (&'static str, String)> {
        if self.features.contains("files") {
            sample.files.extend(self.files.look());
        }
        if self.features.contains("block") {
            sample.block.extend(self.disks.look());
        }
        let (tcp, udp, listening) = (self.has("tcp"), self.has("udp"), self.has("listeners"));
        if !tcp && !udp && !listening {
            return Ok(());
        }
        let feature = self.lost().0;
        let (sockets, dropped) = diag::sockets().map_err(|error| (feature, error.to_string()))?;
        self.dropped += dropped;
        let find = |wanted: &_| seed::holders(wanted, cgroups);
        let (flows, listeners) = self.flows.look(&sockets, find);
        sample
            .flows
            .extend(flows.into_iter().filter(|flow| match flow.protocol {
                Protocol::Tcp => tcp,
                Protocol::Udp => udp,
            }));
        if listening {
            sample.listeners.extend(listeners);
        }
        Ok(())
    }

    /// Sockets that a look could not hold, by feature.
    pub fn lost(&self) -> (&'static str, u64) {
        let features = ["tcp", "udp", "listeners"];
        let first = features.into_iter().find(|feature| self.has(feature));
        (first.unwrap_or("tcp"), self.dropped)
    }

    fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, degraded: &str) -> ProbeStatus {
        ProbeStatus {
            name: name.to_owned(),
            degraded: Some(degraded.to_owned()),
            ..ProbeStatus::default()
        }
    }

    #[test]
    fn what_programs_feed_or_nobody_wants_is_left_alone() {
        let on = ProbeStatus {
            name: "files".to_owned(),
            hook: Some("fexit vfs_read".to_owned()),
            ..ProbeStatus::default()
        };
        let mut statuses = [
            status("tcp", "no BTF"),
            status("udp", "no BTF"),
            status("syscalls", "no BTF"),
            on.clone(),
        ];
        let mut fallback = Fallback::default();
        fallback.take_over(&mut statuses, &["udp".to_owned()].into());
        assert_eq!(statuses[0].hook.as_deref(), Some("sock_diag tcp"));
        let why = statuses[0].degraded.as_deref().unwrap_or_default();
        assert!(why.contains("between two looks") && why.ends_with("(no eBPF: no BTF)"));
        assert_eq!(statuses[1].hook, None);
        assert_eq!(statuses[1].degraded.as_deref(), Some(SWITCHED_OFF));
        assert_eq!(
            statuses[2],
            status("syscalls", "no BTF"),
            "there is no other way"
        );
        assert_eq!(statuses[3], on);
        assert!(fallback.has("tcp") && !fallback.has("udp") && !fallback.has("files"));
    }
}
