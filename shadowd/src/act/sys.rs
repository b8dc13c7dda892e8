//! The one module of this room that makes system calls itself: memory shared with the kernel side.
//!
//! It maps the slots of the guard and shows them as atomic words. Nothing here decides.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use shadowd_common::guard::{Slot, VIPS_MAX};

/// A [`Slot`] that the kernel side works on at the same time.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SharedSlot {
    pub deadline_ns: AtomicU64,
    pub dropped_rx: AtomicU64,
    pub dropped_tx: AtomicU64,
    pub passed: AtomicU64,
    pub successor: AtomicU64,
    pub successor_since_ns: AtomicU64,
    pub successor_until_ns: AtomicU64,
    pub predecessor: AtomicU64,
    pub predecessor_since_ns: AtomicU64,
    pub predecessor_until_ns: AtomicU64,
}

const _: () = {
    assert!(size_of::<SharedSlot>() == size_of::<Slot>());
    assert!(offset_of!(SharedSlot, deadline_ns) == offset_of!(Slot, deadline_ns));
    assert!(offset_of!(SharedSlot, dropped_rx) == offset_of!(Slot, dropped_rx));
    assert!(offset_of!(SharedSlot, dropped_tx) == offset_of!(Slot, dropped_tx));
    assert!(offset_of!(SharedSlot, passed) == offset_of!(Slot, passed));
    assert!(offset_of!(SharedSlot, successor) == offset_of!(Slot, successor));
    assert!(offset_of!(SharedSlot, successor_since_ns) == offset_of!(Slot, successor_since_ns));
    assert!(offset_of!(SharedSlot, predecessor_since_ns) == offset_of!(Slot, predecessor_since_ns));
    assert!(offset_of!(SharedSlot, successor_until_ns) == offset_of!(Slot, successor_until_ns));
    assert!(offset_of!(SharedSlot, predecessor) == offset_of!(Slot, predecessor));
    assert!(offset_of!(SharedSlot, predecessor_until_ns) == offset_of!(Slot, predecessor_until_ns));
};

/// All slots of one interface, mapped until this is dropped.
#[derive(Debug)]
pub(super) struct Slots(NonNull<SharedSlot>);

const COUNT: usize = VIPS_MAX as usize;
const BYTES: usize = COUNT * size_of::<Slot>();

impl Slots {
    /// Maps an array map of [`VIPS_MAX`] slots that was made to be mapped.
    ///
    /// # Errors
    /// The kernel's, such as when the map is smaller or another kind of map.
    pub fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(at.cast::<SharedSlot>());
        first
            .map(Self)
            .ok_or_else(|| io::Error::other("mapped at 0"))
    }

    /// The slots; the kernel side reads and counts in them at any time.
    pub fn all(&self) -> &[SharedSlot] {
        // SAFETY: the mapping is page-aligned, has room for COUNT slots (the kernel refuses to map
        // more than the map holds), lives as long as self, and is only accessed as atomic words.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), COUNT) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the slices of it cannot outlive self.
        unsafe { libc::munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Slots {}
// SAFETY: what is shared are atomic words.
unsafe impl Sync for Slots {}
