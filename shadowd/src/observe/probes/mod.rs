//! Probes: what feeds each feature of capture, loaded and attached.
//!
//! Which hook a kernel offers is found by asking it: needs are looked up in its BTF, and a program
//! that it refuses makes room for the next way. A feature that nothing feeds is off and says why;
//! the others go on.

mod cost;
mod load;
mod needs;
mod object;
mod room;
mod table;

pub use cost::CostMeter;
pub use load::{Attached, LoadError, Losses, Prepared, SWITCHED_OFF, reason};
pub use needs::preempts_programs;
pub use object::{Descriptors, Object};
pub use table::*;

/// Where a program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint, arguments as plain words.
    RawTracepoint(&'static str),
    /// Nowhere itself: called by the program before it that sees system calls return, with the
    /// context of a raw tracepoint.
    After,
    /// The entry of a kernel function.
    FunctionEntry(&'static str),
    /// The return of a kernel function.
    FunctionExit(&'static str),
    /// A control group's hook for addresses of datagrams, and its number (enum bpf_attach_type):
    /// attached to the root of this host's groups.
    SocketAddress(&'static str, u32),
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
    /// Tracepoints whose programs another task can meet in their middle: kernels from 7.0 on.
    Preemption,
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
