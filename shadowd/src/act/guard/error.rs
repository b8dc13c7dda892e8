//! Why virtual IPs cannot be guarded, with what would help.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use nix::errno::Errno;
use shadowd_common::guard::VIPS_MAX;
use thiserror::Error;

use super::{AttachError, Direction};
use crate::facts::Vip;

/// Why virtual IPs cannot be guarded.
#[derive(Debug, Error)]
pub enum GuardError {
    /// There is no such interface.
    #[error("interface {interface} is not there")]
    NoInterface {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Its frames have another form than the programs read.
    #[error("interface {0} is not an Ethernet interface, so it cannot be guarded")]
    NotEthernet(String),
    /// There is nothing to pin in.
    #[error("{0} is not in a BPF file system: `mount -t bpf bpf /sys/fs/bpf` mounts one")]
    NoBpfFs(PathBuf),
    /// The folder of the pins, or one of them, cannot be made, read or removed.
    #[error("{path} cannot be used; its folders must be root's, with no dots in their names")]
    Folder {
        /// The folder or pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the maps.
    #[error("the maps of interface {interface} are refused; CAP_BPF is needed")]
    Load {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Box<EbpfError>,
    },
    /// The kernel refused a program.
    #[error("a program for interface {interface} is refused; CAP_BPF and CAP_NET_ADMIN are needed")]
    Program {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map cannot be read or changed.
    #[error("the map of addresses of interface {interface} cannot be used")]
    Addresses {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The slots cannot be mapped.
    #[error("the deadlines of interface {interface} cannot be mapped")]
    Deadlines {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program cannot be attached or detached.
    #[error("{direction} of interface {interface} is refused; CAP_NET_ADMIN is needed")]
    Attach {
        /// The interface.
        interface: String,
        /// Which way.
        direction: Direction,
        /// Why.
        #[source]
        source: Box<AttachError>,
    },
    /// More addresses than there are slots.
    #[error("more than {VIPS_MAX} virtual IPs on interface {0}")]
    TooMany(String),
    /// The address is not guarded here.
    #[error("{vip} is not guarded on interface {interface}")]
    NotWatched {
        /// The interface.
        interface: String,
        /// The first such address.
        vip: Vip,
    },
}
