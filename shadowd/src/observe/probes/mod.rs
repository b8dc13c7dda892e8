//! The table of probes: every feature of capture, the hooks that can feed it, the best first.
//!
//! Which hook a kernel offers is found by asking it: needs are looked up in its BTF, and a program
//! that it refuses makes room for the next way. A feature that nothing feeds is off and says why;
//! the others go on.

mod load;
mod object;

pub use load::{Attached, LoadError, Losses, Prepared, reason};
pub use object::{Descriptors, Object};

/// Where a program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint, arguments as plain words.
    RawTracepoint(&'static str),
    /// A tracepoint, arguments as typed pointers that can be followed without a helper.
    BtfTracepoint(&'static str),
    /// The entry of a kernel function.
    FunctionEntry(&'static str),
    /// The return of a kernel function.
    FunctionExit(&'static str),
    /// Loaded only: an iterator that the feature opens when it needs it.
    Iterator(&'static str),
}

/// One program of a way; its name is the function's in the kernel object.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name in the object.
    pub name: &'static str,
    /// Where it hangs.
    pub hook: Hook,
}

/// What the kernel must have before a way is tried.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A tracepoint with at least so many arguments.
    Arguments(&'static str, usize),
    /// A field of a structure.
    Field(&'static str, &'static [&'static str]),
}

/// One way to feed a feature: all programs or none.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The programs.
    pub programs: &'static [Program],
    /// What they need beyond a kernel that accepts them.
    pub needs: &'static [Need],
}

/// A feature of capture.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Its name in the status, in the configuration and in the kernel's field table.
    pub name: &'static str,
    /// What it feeds, in words.
    pub feeds: &'static str,
    /// The ways to feed it, the best first.
    pub ways: &'static [Way],
}

/// System calls.
pub const SYSCALLS: Feature = Feature {
    name: "syscalls",
    feeds: "system calls and their errors by process and unit",
    ways: &[Way {
        programs: &[Program {
            name: "sys_exit",
            hook: Hook::RawTracepoint("sys_exit"),
        }],
        needs: &[Need::Arguments("sys_exit", 2)],
    }],
};

/// TCP.
pub const TCP: Feature = Feature {
    name: "tcp",
    feeds: "TCP connections: opened, closed, failed, direction, bytes",
    ways: &[Way {
        programs: &[Program {
            name: "inet_sock_set_state",
            hook: Hook::RawTracepoint("inet_sock_set_state"),
        }],
        needs: &[Need::Arguments("inet_sock_set_state", 3)],
    }],
};

/// Begin and end of processes.
pub const PROCESSES: Feature = Feature {
    name: "processes",
    feeds: "programs begun and processes ended",
    ways: &[Way {
        programs: &[
            Program {
                name: "sched_process_exec",
                hook: Hook::RawTracepoint("sched_process_exec"),
            },
            Program {
                name: "sched_process_exit",
                hook: Hook::RawTracepoint("sched_process_exit"),
            },
        ],
        needs: &[],
    }],
};

/// Names of control groups.
pub const CGROUPS: Feature = Feature {
    name: "cgroups",
    feeds: "names of control groups that are made",
    ways: &[Way {
        programs: &[Program {
            name: "cgroup_mkdir",
            hook: Hook::RawTracepoint("cgroup_mkdir"),
        }],
        needs: &[],
    }],
};

/// Every feature that eBPF feeds.
pub const FEATURES: [Feature; 4] = [SYSCALLS, TCP, PROCESSES, CGROUPS];

/// What needs no eBPF: name, what it feeds, hook.
pub const PROCFS: (&str, &str, &str) = (
    "procfs",
    "processor time and memory by process and unit",
    "procfs /proc/PID/stat",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_name_of_its_own_and_a_way() {
        let mut names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FEATURES.len());
        for feature in FEATURES {
            let programs = feature.ways.iter().map(|way| way.programs.len());
            assert!(
                programs.min().is_some_and(|fewest| fewest > 0),
                "{}",
                feature.name
            );
        }
    }
}
