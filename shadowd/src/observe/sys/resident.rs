//! Which pages of a file are in memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::unistd::{SysconfVar, sysconf};

/// The length of a page, bytes.
pub fn page_bytes() -> u64 {
    let told = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    told.and_then(|bytes| u64::try_from(bytes).ok())
        .filter(|bytes| bytes.is_power_of_two())
        .unwrap_or(4_096)
}

/// Whether each page of `length` bytes of a file from `offset` on, a multiple of a page, is in memory
/// (mincore(2)). The pages are mapped and never touched.
///
/// Since Linux 5.2 the kernel tells who could neither own nor write the file that all of it is.
///
/// # Errors
/// The kernel's.
pub fn resident(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Vec<bool>> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let mut pages = vec![0_u8; length.div_ceil(page_bytes() as usize)];
    // SAFETY: a new mapping at a place that the kernel chooses; nothing is accessed through it.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_NONE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            offset,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `length` bytes long, and the kernel writes one byte for each page of it.
    let told = unsafe { libc::mincore(at, length, pages.as_mut_ptr()) };
    let told = match told {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: it is the mapping made above, and nobody else knows it.
    unsafe { libc::munmap(at, length) };
    told.map(|()| pages.into_iter().map(|page| page & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_was_just_written_is_in_memory_and_a_hole_is_not() {
        let path = std::env::temp_dir().join(format!("shadowd-resident-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let page = page_bytes();
        file.write_all(&vec![7; 3 * page as usize]).unwrap();
        file.set_len(8 * page).unwrap();
        let told = resident(file.as_fd(), 0, 8 * page as usize).unwrap();
        assert_eq!(told.len(), 8);
        assert_eq!(told[..3], [true; 3]);
        assert_eq!(told[4..], [false; 4]);
        assert_eq!(resident(file.as_fd(), page, 1).unwrap(), [true]);
        assert!(
            resident(file.as_fd(), 1, 1).is_err(),
            "no multiple of a page"
        );
        assert!(resident(file.as_fd(), 0, 0).is_err(), "an empty mapping");
    }
}
