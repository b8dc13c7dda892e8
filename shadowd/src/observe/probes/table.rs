//! The table of probes: every feature of capture, the hooks that can feed it, the best first.

use super::{Feature, Hook, Need, Program, Way};

/// System calls.
pub const SYSCALLS: Feature = Feature {
    name: "syscalls",
    feeds: "system calls, their times and errors by process and unit",
    ways: &[
        Way {
            programs: &[
                MOVED,
                SYS_ENTER,
                SYS_EXIT,
                again("sys_enter_again", "sys_enter"),
                again("sys_exit_again", "sys_exit"),
            ],
            needs: SYSCALL_NEEDS_WHERE_PREEMPTED,
        },
        Way {
            programs: &[MOVED, SYS_ENTER, SYS_EXIT],
            needs: SYSCALL_NEEDS,
        },
    ],
};

const fn raw(name: &'static str) -> Program {
    Program {
        name,
        hook: Hook::RawTracepoint(name),
    }
}

/// A second program at a tracepoint. The kernel leaves out the runs of a program that is at work on
/// that processor already, interrupted in its middle; the second one does what the first one
/// missed. Its name ends in [`AGAIN`].
const fn again(name: &'static str, tracepoint: &'static str) -> Program {
    Program {
        name,
        hook: Hook::RawTracepoint(tracepoint),
    }
}

/// The end of the name of a program that does what the one of the rest of the name misses.
pub const AGAIN: &str = "_again";

const fn exit(name: &'static str) -> Program {
    Program {
        name,
        hook: Hook::FunctionExit(name),
    }
}

const fn after(name: &'static str) -> Program {
    Program {
        name,
        hook: Hook::After,
    }
}

const fn at_return(name: &'static str) -> Program {
    Program {
        name,
        hook: Hook::RawTracepoint("sys_exit"),
    }
}

const RETURN_NEEDS: &[Need] = &[Need::Arguments("sys_exit", 2)];

const fn over_map(name: &'static str) -> Program {
    Program {
        name,
        hook: Hook::Iterator("bpf_map_elem"),
    }
}

const fn address(name: &'static str, number: u32) -> Program {
    Program {
        name,
        hook: Hook::SocketAddress(name, number),
    }
}

/// System calls on a kernel that keeps nothing with a task: another object, and a table of threads
/// that has to be kept in order.
pub const SYSCALLS_IN_TABLE: Feature = Feature {
    name: SYSCALLS.name,
    feeds: SYSCALLS.feeds,
    ways: &[Way {
        programs: &[
            raw("sched_process_exec"),
            raw("sched_process_exit"),
            MOVED,
            SYS_ENTER,
            SYS_EXIT,
        ],
        needs: SYSCALL_NEEDS,
    }],
};

const MOVED: Program = raw("cgroup_attach_task");
const SYS_ENTER: Program = raw("sys_enter");
const SYS_EXIT: Program = raw("sys_exit");
const SYSCALL_NEEDS_WHERE_PREEMPTED: &[Need] = &[
    Need::Preemption,
    Need::Arguments("sys_enter", 2),
    Need::Arguments("sys_exit", 2),
];
const SYSCALL_NEEDS: &[Need] = &[
    Need::Arguments("sys_enter", 2),
    Need::Arguments("sys_exit", 2),
];

/// TCP.
pub const TCP: Feature = Feature {
    name: "tcp",
    feeds: "TCP connections: opened, closed, failed, reset, direction, bytes, round trips",
    ways: &[Way {
        programs: &[
            over_map("look_at_connections"),
            over_map("report_flows"),
            raw("tcp_receive_reset"),
            raw("tcp_send_reset"),
            raw("inet_sock_set_state"),
            again("inet_sock_set_state_again", "inet_sock_set_state"),
        ],
        needs: &[
            Need::Arguments("inet_sock_set_state", 3),
            Need::Arguments("tcp_receive_reset", 1),
            Need::Arguments("tcp_send_reset", 1),
        ],
    }],
};

/// Sends and receives.
pub const UDP: Feature = Feature {
    name: "udp",
    feeds: "UDP bytes; which process uses a TCP connection, how long it takes to answer",
    ways: &[
        Way {
            programs: &[raw("sock_send_length"), raw("sock_recv_length")],
            needs: &[
                Need::Arguments("sock_send_length", 3),
                Need::Arguments("sock_recv_length", 3),
            ],
        },
        // Until 6.4 files are sent by a function of its own.
        Way {
            programs: &[
                exit("inet_sendmsg"),
                exit("inet6_sendmsg"),
                exit("inet_sendpage"),
                exit("inet_recvmsg"),
                exit("inet6_recvmsg"),
            ],
            needs: &[],
        },
        Way {
            programs: &[
                exit("inet_sendmsg"),
                exit("inet6_sendmsg"),
                exit("inet_recvmsg"),
                exit("inet6_recvmsg"),
            ],
            needs: &[],
        },
    ],
};

const SENDMSG4: Program = address("sendmsg4", 14);
const SENDMSG6: Program = address("sendmsg6", 15);
const RECVMSG4: Program = address("recvmsg4", 19);
const RECVMSG6: Program = address("recvmsg6", 20);

const fn datagram(name: &'static str) -> Program {
    Program {
        name,
        hook: Hook::FunctionExit("__skb_recv_udp"),
    }
}

/// Remotes of sockets that are not connected. Control groups tell of a receive only if it asks who
/// sent: without `__skb_recv_udp` recv(2) and read(2) count on the flow without a remote. The
/// tracepoint `skb_copy_datagram_iovec` is no help: the kernel passes it by for every datagram in
/// one piece.
pub const REMOTES: Feature = Feature {
    name: "udp-remotes",
    feeds: "remotes of datagrams on sockets that are not connected; \
            of receives that ask for no address only by __skb_recv_udp",
    ways: &[
        // Before 5.19; later the function has an argument less, and refuses the program.
        Way {
            programs: &[
                SENDMSG4,
                SENDMSG6,
                RECVMSG4,
                RECVMSG6,
                datagram("datagram_noblock"),
            ],
            needs: &[],
        },
        Way {
            programs: &[SENDMSG4, SENDMSG6, RECVMSG4, RECVMSG6, datagram("datagram")],
            needs: &[],
        },
        Way {
            programs: &[SENDMSG4, SENDMSG6, RECVMSG4, RECVMSG6],
            needs: &[],
        },
        Way {
            programs: &[
                Program {
                    name: "inet_sendmsg_begins",
                    hook: Hook::FunctionEntry("inet_sendmsg"),
                },
                Program {
                    name: "inet6_sendmsg_begins",
                    hook: Hook::FunctionEntry("inet6_sendmsg"),
                },
            ],
            needs: &[],
        },
    ],
};

/// Queues of listening sockets.
pub const LISTENING: Feature = Feature {
    name: "listeners",
    feeds: "listening sockets: connections that wait, connections refused",
    ways: &[Way {
        programs: &[over_map("look_at_listeners")],
        needs: &[],
    }],
};

/// What was there before capture.
pub const BEFORE: Feature = Feature {
    name: "before",
    feeds: "connections and listening sockets from before capture began",
    ways: &[Way {
        programs: &[Program {
            name: "adopt_files",
            hook: Hook::Iterator("task_file"),
        }],
        needs: &[],
    }],
};

/// Begin and end of processes.
pub const PROCESSES: Feature = Feature {
    name: "processes",
    feeds: "programs begun and processes ended",
    ways: &[Way {
        programs: &[
            raw("sched_process_exec"),
            raw("sched_process_exit"),
            again("sched_process_exec_again", "sched_process_exec"),
            again("sched_process_exit_again", "sched_process_exit"),
        ],
        needs: &[],
    }],
};

/// Names of control groups.
pub const CGROUPS: Feature = Feature {
    name: "cgroups",
    feeds: "names of control groups that are made",
    ways: &[Way {
        programs: &[
            raw("cgroup_mkdir"),
            again("cgroup_mkdir_again", "cgroup_mkdir"),
        ],
        needs: &[],
    }],
};

const BLOCK_ISSUE: Program = raw("block_rq_issue");
const BLOCK_MERGE: Program = raw("block_rq_merge");
const BLOCK_COMPLETE: Program = raw("block_rq_complete");

/// Block I/O.
pub const BLOCK: Feature = Feature {
    name: "block",
    feeds: "block I/O by process, unit and disk: operations, bytes, errors, latency",
    ways: &[
        // From 6.5: the request is seen in the context of whoever makes it.
        Way {
            programs: &[
                Program {
                    name: "block_io_start",
                    hook: Hook::RawTracepoint("block_io_start"),
                },
                BLOCK_ISSUE,
                BLOCK_MERGE,
                BLOCK_COMPLETE,
            ],
            needs: &[
                Need::Arguments("block_io_start", 1),
                Need::Arguments("block_rq_complete", 3),
            ],
        },
        // A request that waits is seen when the scheduler takes it, another one when it is issued.
        Way {
            programs: &[
                Program {
                    name: "block_rq_insert",
                    hook: Hook::RawTracepoint("block_rq_insert"),
                },
                BLOCK_ISSUE,
                BLOCK_MERGE,
                BLOCK_COMPLETE,
            ],
            needs: &[Need::Arguments("block_rq_complete", 3)],
        },
    ],
};

/// Kills for want of memory.
pub const OOM: Feature = Feature {
    name: "oom",
    feeds: "processes killed for want of memory",
    ways: &[Way {
        programs: &[Program {
            name: "mark_victim",
            hook: Hook::RawTracepoint("mark_victim"),
        }],
        needs: &[Need::Arguments("mark_victim", 1)],
    }],
};

/// File I/O.
pub const FILES: Feature = Feature {
    name: "files",
    feeds: "reads, writes and opens of regular files by process and unit",
    ways: &[
        // Of the tracepoint's cost, only the calls of interest pay a share.
        Way {
            programs: &[after("files")],
            needs: &[],
        },
        Way {
            programs: &[at_return("files")],
            needs: RETURN_NEEDS,
        },
    ],
};

/// Files opened under the configuration roots.
pub const OPENS: Feature = Feature {
    name: "opens",
    feeds: "files opened under the configuration roots, by unit",
    ways: &[
        // Costs nothing but at an open, and sees io_uring and programs that are run too.
        Way {
            programs: &[Program {
                name: "do_filp_open",
                hook: Hook::FunctionExit("do_filp_open"),
            }],
            needs: &[],
        },
        Way {
            programs: &[after("opens")],
            needs: &[],
        },
        Way {
            programs: &[at_return("opens")],
            needs: RETURN_NEEDS,
        },
    ],
};

/// What the object of sockets feeds.
pub const SOCKETS: [Feature; 5] = [TCP, UDP, REMOTES, LISTENING, BEFORE];

/// Every feature that eBPF feeds.
pub const FEATURES: [Feature; 12] = [
    SYSCALLS, TCP, UDP, REMOTES, LISTENING, BEFORE, PROCESSES, CGROUPS, BLOCK, OOM, FILES, OPENS,
];

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
        for name in names {
            assert!(
                crate::facts::FEATURES.contains(&name),
                "{name} cannot be switched off"
            );
        }
        for feature in FEATURES {
            let programs = feature.ways.iter().map(|way| way.programs.len());
            assert!(
                programs.min().is_some_and(|fewest| fewest > 0),
                "{}",
                feature.name
            );
        }
    }

    #[test]
    fn a_second_program_comes_after_the_first_one_of_its_tracepoint() {
        for way in FEATURES.iter().flat_map(|feature| feature.ways) {
            for (at, program) in way.programs.iter().enumerate() {
                let Some(first) = program.name.strip_suffix(AGAIN) else {
                    continue;
                };
                let mut before = way.programs[..at].iter();
                let pair = before.any(|one| one.name == first && one.hook == program.hook);
                assert!(pair, "{}", program.name);
            }
        }
    }

    #[test]
    fn what_another_program_calls_can_hang_by_itself_too() {
        let called = |way: &Way| way.programs.iter().any(|one| one.hook == Hook::After);
        for feature in FEATURES {
            if feature.ways.iter().any(called) {
                let last = feature.ways.last().expect("it has a way");
                assert!(!called(last), "{} needs system calls", feature.name);
            }
        }
    }
}
