//! Calling the next program that wants to see a system call return.

use aya_ebpf::macros::map;
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::RawTracePointContext;

/// The next program, if there is one, put there by user space. It begins with the same context and
/// never comes back. So one tracepoint serves several features, and a call that interests none of
/// the others pays for none of them.
#[map]
static AFTER: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Lets the next program go on. Comes back only when there is none.
#[inline(always)]
pub fn go_on(ctx: &RawTracePointContext) {
    // SAFETY: nothing in the programs has a destructor.
    unsafe { AFTER.tail_call(ctx, 0) };
}
