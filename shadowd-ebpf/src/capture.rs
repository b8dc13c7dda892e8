//! The kernel side of capture: counts system calls and connections, streams what is rare.
//!
//! Raw tracepoints only: they exist wherever BTF does and need no architecture-specific hook.
//! Field offsets come from user space (see `context`), so one object fits every kernel. Nothing
//! here changes what a task or a packet does, and nothing waits.
#![no_std]
#![no_main]
// Atomic addition is an instruction that only assembly reaches (see `tcp`).
#![feature(asm_experimental_arch)]

mod context;
mod lifecycle;
mod syscalls;
mod tcp;

/// The helpers that read kernel memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
