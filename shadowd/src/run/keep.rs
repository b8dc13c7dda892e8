//! Leaves the kernel side with systemd, so that it goes on counting while the daemon is started
//! again.
//!
//! systemd keeps descriptors for a service while it restarts, also after a crash, and closes them
//! when the service is stopped (sd_notify(3), FDSTORE=1; FileDescriptorStoreMax= of the unit). So
//! nothing is pinned anywhere, and nothing stays behind on the host.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use tracing::{debug, warn};

use crate::observe::sys::inherited;
use crate::observe::{Capture, Descriptors};

/// The descriptors that the daemon before this one left. Call it once, before anything else in the
/// process opens files.
pub fn left() -> Descriptors {
    let passed = match systemd::daemon::listen_fds_with_names() {
        Ok(passed) => passed,
        Err(error) => {
            warn!(%error, "what the daemon before this one left cannot be taken over");
            return Descriptors::new();
        }
    };
    let named = passed.iter().filter_map(|(number, name)| {
        let name = name.to_str().ok()?.to_owned();
        Some((name, inherited(number)?))
    });
    named.collect()
}

/// Leaves what capture uses with systemd, and has it close what capture did not take over of the
/// names in `left`.
pub fn keep(capture: &Capture, left: &BTreeSet<String>) {
    let mut used = BTreeSet::new();
    for (name, descriptor) in capture.descriptors() {
        used.insert(name.to_owned());
        if !left.contains(name) {
            // Asked whether it is ready, a map answers with an error, for which systemd would close it.
            let words = [("FDSTORE", "1"), ("FDPOLL", "0"), ("FDNAME", name)];
            let told =
                systemd::daemon::pid_notify_with_fds(0, words.iter(), &[descriptor.as_raw_fd()]);
            if let Err(error) = told {
                warn!(%error, "systemd cannot keep the probes: a restart will not be counted");
                return;
            }
        }
    }
    for name in left.difference(&used) {
        let words = [("FDSTOREREMOVE", "1"), ("FDNAME", name.as_str())];
        if let Err(error) = systemd::daemon::notify(words.iter()) {
            debug!(%error, name, "systemd was not told to close a descriptor");
        }
    }
}
