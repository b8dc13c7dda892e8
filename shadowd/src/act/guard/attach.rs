//! Attaching the programs so that they stay when the daemon is gone.
//!
//! What is attached already is exchanged in place, by the kernel, so there is no moment in which
//! nothing guards, whatever build attached it. A TCX link stays because it is pinned, a filter of
//! clsact because it belongs to the interface.

use std::fmt;
use std::io;
use std::path::Path;

use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{Link, LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use thiserror::Error;

use super::GuardError;
use super::place::{self, Identity};

/// Before all filters of others: one of them may take a packet and not pass it on.
const PRIORITY: u16 = 1;
/// Tells our filter from others of that priority: "shd", 1.
const HANDLE: TcHandle = TcHandle::new(0x5368, 0x6401);

/// A direction of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What arrives.
    Ingress,
    /// What is sent.
    Egress,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "guard_ingress",
            Self::Egress => "guard_egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By links, before the programs of others; from Linux 6.6 on.
    Tcx,
    /// As filters of the clsact queueing discipline, which is added if need be.
    Clsact,
}

/// Why a program could not be attached or detached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel refused it.
    #[error("the program is refused")]
    Program(#[from] ProgramError),
    /// There is no clsact to attach it to.
    #[error("clsact cannot be added")]
    Clsact(#[source] TcError),
    /// The link of an earlier daemon cannot be read.
    #[error("the link cannot be read")]
    Link(#[from] LinkError),
    /// The link cannot be pinned.
    #[error("the link cannot be pinned")]
    Pin(#[from] PinError),
    /// A pin of an interface that is gone cannot be removed.
    #[error("an old pin cannot be removed")]
    Unpin(#[source] io::Error),
}

/// Attaches one program to the interface, or puts it in the place of what an earlier daemon
/// attached there.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    direction: Direction,
    how: Attachment,
    pin: &Path,
) -> Result<(), AttachError> {
    match how {
        Attachment::Tcx => tcx(program, interface, direction, pin),
        Attachment::Clsact => clsact(program, interface, direction),
    }
}

/// Whether the kernel does not know TCX (before 6.6).
pub(super) fn is_unknown(error: &AttachError) -> bool {
    matches!(error, AttachError::Program(error) if errno(error) == Some(libc::EINVAL))
}

fn tcx(
    program: &mut SchedClassifier,
    interface: &str,
    direction: Direction,
    pin: &Path,
) -> Result<(), AttachError> {
    match PinnedLink::from_pin(pin) {
        Ok(old) => {
            let old = SchedClassifierLink::try_from(FdLink::from(old))?;
            match program.attach_to_link(old) {
                Ok(id) => {
                    // Its pin holds it.
                    drop(program.take_link(id)?);
                    return Ok(());
                }
                // It was attached to an interface that is gone.
                Err(error) if errno(&error) == Some(libc::ENOLINK) => {
                    std::fs::remove_file(pin).map_err(AttachError::Unpin)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
        }
        Err(error) => return Err(error.into()),
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, direction.into(), options)?;
    FdLink::try_from(program.take_link(id)?)?.pin(pin)?;
    Ok(())
}

fn clsact(
    program: &mut SchedClassifier,
    interface: &str,
    direction: Direction,
) -> Result<(), AttachError> {
    match qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        result => result.map_err(AttachError::Clsact)?,
    }
    let old = filter(interface, direction).map_err(ProgramError::from)?;
    let attached = match program.attach_to_link(old) {
        Err(error) if errno(&error) == Some(libc::ENOENT) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            });
            program.attach_with_options(interface, direction.into(), options)
        }
        attached => attached,
    };
    // Dropped, the link would take the filter away.
    std::mem::forget(program.take_link(attached?)?);
    Ok(())
}

/// Takes our filter off the interface, if it has one.
pub(super) fn detach_filter(interface: &str, direction: Direction) -> Result<(), AttachError> {
    let Ok(filter) = filter(interface, direction) else {
        // An interface that is gone has no filters.
        return Ok(());
    };
    match filter.detach() {
        // No such filter; no clsact; the interface went; the kernel has no clsact at all.
        Err(error)
            if matches!(
                errno(&error),
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Removes every link pin but the one in use: those of interfaces that had this name before.
pub(super) fn remove_other_links(
    folder: &Path,
    used: Option<&Identity>,
    direction: Direction,
) -> Result<(), GuardError> {
    let used = used.map(|identity| identity.link(direction));
    let start = format!("{}-", direction.name());
    for name in place::names(folder)? {
        if name.starts_with(&start) && Some(&name) != used.as_ref() {
            place::unpin(&folder.join(name))?;
        }
    }
    Ok(())
}

fn filter(interface: &str, direction: Direction) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, direction.into(), PRIORITY, HANDLE, None)
}

impl From<Direction> for TcAttachType {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}

/// The kernel's own word on a failure.
fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) => error.raw_os_error(),
        _ => None,
    }
}
