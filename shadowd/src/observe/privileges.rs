//! Gives up capabilities that are not needed any more.
//!
//! Capabilities belong to threads (capabilities(7)): a thread gives up its own, and the threads it
//! starts afterwards never have them. So the daemon's first act is to start the capturing thread,
//! and its second to give up, for itself and all other threads, what only loading programs needs.
//! The capturing thread does the same once its programs are attached.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What the daemon runs with, all threads but the capturing one.
pub const DAEMON: CapabilitySet = CapabilitySet::NET_ADMIN // addresses
    .union(CapabilitySet::NET_RAW) // announcements
    .union(CapabilitySet::NET_BIND_SERVICE) // a port below 1024
    .union(CapabilitySet::SYS_NICE) // heartbeats go first
    .union(CapabilitySet::CHOWN) // the socket's group
    .union(CapabilitySet::FOWNER)
    .union(PROCESSES);

/// What reading other processes in procfs takes: ptrace(2) access, and their directories.
const PROCESSES: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// What makes bpf(2) work on what is loaded, where the kernel asks for it.
const MAPS: CapabilitySet = CapabilitySet::BPF;

/// What switches the statistics of programs on (kernel/bpf/syscall.c, bpf_enable_stats).
const STATISTICS: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// This thread keeps of its capabilities only those in `kept`, for good.
///
/// # Errors
///
/// The kernel's; giving up is never refused to a sane caller.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    let now = capabilities(None)?;
    let sets = CapabilitySets {
        effective: now.effective & kept,
        permitted: now.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// This thread, which captures, keeps what capture runs with. `measuring`: the statistics will be
/// switched on again. `answers` tells whether the kernel still answers about loaded programs.
///
/// Before Linux 5.19 every use of bpf(2) takes CAP_BPF while kernel.unprivileged_bpf_disabled is
/// set, later ones ask for it only to make maps and load programs (commit c8644cd0efe7). Which
/// kernel has which is found by asking.
///
/// # Errors
///
/// The kernel's.
pub fn keep_for_capture(measuring: bool, answers: impl Fn() -> bool) -> io::Result<()> {
    let mut kept = PROCESSES;
    let now = capabilities(None)?;
    let without = CapabilitySets {
        effective: now.effective & kept,
        ..now
    };
    set_capabilities(None, without)?;
    if !answers() {
        kept |= MAPS;
    }
    if measuring {
        kept |= STATISTICS;
    }
    let sets = CapabilitySets {
        effective: now.permitted & kept,
        permitted: now.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: the others keep what they have.
    fn apart(work: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(work).join()).expect("the thread ends well");
    }

    #[test]
    fn what_is_not_kept_is_gone_for_this_thread_and_its_children() {
        let before = capabilities(None).expect("it is readable");
        apart(|| {
            keep(CapabilitySet::NET_RAW).expect("giving up is allowed");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let now = capabilities(None).expect("it is readable");
                    let most = CapabilitySet::NET_RAW & before.permitted;
                    assert_eq!(
                        (now.effective, now.permitted),
                        (most & before.effective, most)
                    );
                });
            });
        });
        assert_eq!(capabilities(None).expect("it is readable"), before);
    }

    #[test]
    fn what_the_kernel_asks_for_is_kept_and_nothing_else() {
        let has = capabilities(None).expect("it is readable").permitted;
        for (measuring, answers, kept) in [
            (false, true, PROCESSES),
            (false, false, PROCESSES | CapabilitySet::BPF),
            (true, true, PROCESSES | CapabilitySet::SYS_ADMIN),
        ] {
            apart(|| {
                keep_for_capture(measuring, || answers).expect("giving up is allowed");
                let now = capabilities(None).expect("it is readable");
                assert_eq!((now.effective, now.permitted), (kept & has, kept & has));
            });
        }
    }
}
