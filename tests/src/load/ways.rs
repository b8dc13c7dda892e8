//! The ways in which a program moves bytes into a socket and out of it.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, recv, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::{REFUSED, sys};

/// Most bytes of one call: odd, so that calls never end where segments do.
const PIECE: usize = 8_191;

/// How bytes go in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// write(2) and read(2).
    Write,
    /// writev(2) and readv(2).
    Writev,
    /// sendmsg(2) and recvmsg(2).
    Sendmsg,
    /// send(2), and recv(2) after a look by MSG_PEEK at the same bytes.
    Peek,
    /// sendfile(2) from a file; out by splice(2) into a pipe.
    Sendfile,
    /// splice(2) from a file through a pipe; out by splice(2) into a pipe.
    Splice,
    /// IORING_OP_SEND and IORING_OP_RECV.
    Uring,
}

/// Moves bytes, and counts what the kernel took and gave.
pub struct Mover {
    way: Way,
    file: File,
    pipe: (OwnedFd, OwnedFd),
    ring: Option<sys::Ring>,
    buffer: Vec<u8>,
}

impl Mover {
    /// Prepares for one way.
    ///
    /// # Errors
    /// The kernel does not offer it: then the message begins with [`REFUSED`].
    pub fn new(way: Way) -> Result<Self> {
        let descriptor = memfd_create("load", MFdFlags::MFD_CLOEXEC)?;
        let mut file = File::from(descriptor);
        file.write_all(&[b'f'; PIECE])?;
        let ring = match way {
            Way::Uring => Some(sys::Ring::new().with_context(|| format!("{REFUSED}io_uring"))?),
            _ => None,
        };
        Ok(Self {
            way,
            file,
            pipe: nix::unistd::pipe()?,
            ring,
            buffer: vec![b'b'; PIECE],
        })
    }

    /// Sends exactly `count` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&mut self, stream: &mut TcpStream, count: u64) -> Result<()> {
        let mut left = usize::try_from(count)?;
        while left > 0 {
            left -= self.send_some(stream, left.min(PIECE))?;
        }
        Ok(())
    }

    fn send_some(&mut self, stream: &mut TcpStream, most: usize) -> Result<usize> {
        let bytes = &self.buffer[..most];
        let halves = bytes.split_at(most / 2);
        let halves = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
        let descriptor = stream.as_raw_fd();
        Ok(match self.way {
            Way::Write => stream.write(bytes)?,
            Way::Writev => stream.write_vectored(&halves)?,
            Way::Sendmsg => sendmsg::<()>(descriptor, &halves, &[], MsgFlags::MSG_NOSIGNAL, None)?,
            Way::Peek => nix::sys::socket::send(descriptor, bytes, MsgFlags::MSG_NOSIGNAL)?,
            Way::Sendfile => sendfile(stream.as_fd(), &self.file, Some(&mut 0), most)?,
            Way::Splice => {
                let filled = splice(
                    &self.file,
                    Some(&mut 0),
                    &self.pipe.1,
                    None,
                    most,
                    SpliceFFlags::empty(),
                )?;
                let mut gone = 0;
                while gone < filled {
                    gone += splice(
                        &self.pipe.0,
                        None,
                        stream.as_fd(),
                        None,
                        filled - gone,
                        SpliceFFlags::empty(),
                    )?;
                }
                gone
            }
            Way::Uring => {
                let ring = self.ring.as_mut().context("a ring was made")?;
                ring.send(stream.as_fd(), bytes)?
            }
        })
    }

    /// Receives exactly `count` bytes.
    ///
    /// # Errors
    /// The kernel's, or the peer closed before.
    pub fn receive(&mut self, stream: &mut TcpStream, count: u64) -> Result<()> {
        let mut left = usize::try_from(count)?;
        while left > 0 {
            let got = self.receive_some(stream, left.min(PIECE))?;
            ensure!(got > 0, "the peer closed with {left} bytes to come");
            left -= got;
        }
        Ok(())
    }

    fn receive_some(&mut self, stream: &mut TcpStream, most: usize) -> Result<usize> {
        let descriptor = stream.as_raw_fd();
        let bytes = &mut self.buffer[..most];
        Ok(match self.way {
            Way::Write => stream.read(bytes)?,
            Way::Writev => {
                let (first, second) = bytes.split_at_mut(most / 2);
                stream.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])?
            }
            Way::Sendmsg => {
                let mut into = [IoSliceMut::new(bytes)];
                recvmsg::<()>(descriptor, &mut into, None, MsgFlags::empty())?.bytes
            }
            Way::Peek => {
                let seen = recv(descriptor, bytes, MsgFlags::MSG_PEEK)?;
                ensure!(seen > 0, "the peer closed");
                recv(descriptor, &mut bytes[..seen], MsgFlags::empty())?
            }
            Way::Sendfile | Way::Splice => {
                let filled = splice(
                    stream.as_fd(),
                    None,
                    &self.pipe.1,
                    None,
                    most,
                    SpliceFFlags::empty(),
                )?;
                let mut pipe = File::from(self.pipe.0.try_clone()?);
                pipe.read_exact(&mut bytes[..filled])?;
                filled
            }
            Way::Uring => {
                let ring = self.ring.as_mut().context("a ring was made")?;
                ring.receive(stream.as_fd(), bytes)?
            }
        })
    }
}
