//! What the kernel itself says of a connection: TCP_INFO (tcp(7)).

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use serde::{Deserialize, Serialize};

/// `struct tcp_info` up to `tcpi_bytes_retrans` (include/uapi/linux/tcp.h, since 4.19).
type Raw = [u8; 216];

/// TCP_INFO, as bytes.
#[derive(Clone, Copy, Debug)]
struct RawInfo;

nix::getsockopt_impl!(
    RawInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    Raw,
    GetStruct<Raw>
);

/// TCP_INFO, as far as it is compared. Of a listening socket `unacked` is the queue's length and
/// `sacked` its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// tcpi_unacked.
    pub unacked: u64,
    /// tcpi_sacked.
    pub sacked: u64,
    /// tcpi_rtt, microseconds.
    pub rtt_us: u64,
    /// tcpi_total_retrans: segments sent again.
    pub retransmits: u64,
    /// tcpi_bytes_received: in order, without the peer's FIN as long as none came.
    pub received: u64,
    /// tcpi_segs_out.
    pub segments_out: u64,
    /// tcpi_segs_in.
    pub segments_in: u64,
    /// tcpi_bytes_sent - tcpi_bytes_retrans.
    pub sent: u64,
}

impl Info {
    /// Reads it.
    ///
    /// # Errors
    /// It is no TCP socket, or the kernel tells less than 4.19 did.
    pub fn read(socket: impl AsFd) -> Result<Self> {
        let raw = getsockopt(&socket, RawInfo).context("TCP_INFO")?;
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&raw[at..at + 4]);
            u64::from(u32::from_ne_bytes(bytes))
        };
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&raw[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        Ok(Self {
            unacked: word(24),
            sacked: word(28),
            rtt_us: word(68),
            retransmits: word(100),
            received: long(128),
            segments_out: word(136),
            segments_in: word(140),
            sent: long(200) - long(208),
        })
    }
}
