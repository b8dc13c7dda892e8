//! The system calls of the load that no crate makes without `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};

/// Takes over a descriptor that recvmsg(2) just made.
pub fn own(received: RawFd) -> OwnedFd {
    // SAFETY: the kernel made it for this process by SCM_RIGHTS, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(received) }
}

/// A ring for one operation at a time.
pub struct Ring(IoUring);

impl Ring {
    /// Makes it.
    ///
    /// # Errors
    /// The kernel or its administrator refuses io_uring.
    pub fn new() -> io::Result<Self> {
        IoUring::new(2).map(Self)
    }

    /// IORING_OP_SEND.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length);
        self.complete(entry.build())
    }

    /// IORING_OP_RECV.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), bytes.as_mut_ptr(), length);
        self.complete(entry.build())
    }

    /// Submits one entry and waits for it. The callers hold its buffer borrowed until then.
    fn complete(&mut self, entry: squeue::Entry) -> io::Result<usize> {
        // SAFETY: the entry's descriptor and buffer are borrowed by the caller, which returns only
        // once the completion was taken.
        unsafe { self.0.submission().push(&entry) }.map_err(io::Error::other)?;
        let result = loop {
            match self.0.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    other?;
                }
            }
            if let Some(done) = self.0.completion().next() {
                break done.result();
            }
        };
        usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
    }
}
