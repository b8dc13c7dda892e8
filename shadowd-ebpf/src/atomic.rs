//! Atomic additions to what other processors count as well.
#![allow(dead_code, reason = "each object uses its part of what all share")]

/// Adds atomically, without reading the sum back: kernels before 5.12 have no fetch-and-add, and
/// `core` has no atomic addition for this target.
///
/// # Safety
///
/// `sum` points to an aligned field of a live map value.
#[inline(always)]
pub unsafe fn plus(sum: *mut u64, more: u64) {
    if more != 0 {
        // SAFETY: the caller vouches for the pointer; the instruction touches nothing else.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({sum} + 0) += {more}",
                sum = in(reg) sum,
                more = in(reg) more,
                options(nostack),
            )
        };
    }
}

/// Adds 1 atomically to a field of 32 bits.
///
/// # Safety
///
/// `sum` points to an aligned field of a live map value.
#[inline(always)]
pub unsafe fn one_more(sum: *mut u32) {
    // SAFETY: the caller vouches for the pointer; the instruction touches nothing else.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({sum} + 0) += {more}",
            sum = in(reg) sum,
            more = in(reg) 1_u64,
            options(nostack),
        )
    };
}
