//! Follows TCP connections from the first packet to the last, counts the bytes of TCP and UDP by
//! process and remote, and looks at open connections and at queues when asked.
//!
//! All sums are cumulative; user space keeps what it read last. Nothing is locked: a connection's
//! entry has one holder at a time (`tcp::hold`), and a look never counts twice (`FlowValue`).

#![no_std]
#![no_main]
// Atomic addition is an instruction that only assembly reaches.
#![feature(asm_experimental_arch)]

mod adopt;
#[path = "../context.rs"]
mod context;
mod flows;
mod io;
mod kernel;
mod listen;
mod look;
mod owner;
mod tcp;

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use aya_ebpf::macros::{cgroup_sock_addr, fentry, fexit, raw_tracepoint};
use aya_ebpf::programs::{FEntryContext, FExitContext, RawTracePointContext, SockAddrContext};
use shadowd_common::MAPPED;
use shadowd_common::sockets::{
    FLOW_COUNT, FlowKey, FlowValue, IDLE_SINCE, Listening, Socket, TCP, TICK, UDP,
};

use crate::context::{current, read, setting};
use crate::io::Way;
use crate::kernel::OFFSETS;
use crate::tcp::{CLOSE, ESTABLISHED, LISTEN, SYN_SENT};

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let _ = step(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn step(sk: u64, old: i32, new: i32) -> Option<()> {
    if old == new || read::<u16>(sk, setting!(OFFSETS, sk_protocol))? != u16::from(TCP) {
        return None;
    }
    match new {
        SYN_SENT => tcp::connecting(sk),
        LISTEN => {
            let task = current()?;
            listen::listening(sk, task.tgid, task.cgroup)
        }
        ESTABLISHED => tcp::established(sk, old),
        CLOSE if old == LISTEN => listen::unlistening(sk),
        CLOSE => tcp::closed(sk, old),
        _ => None,
    }
}

/// For what `inet_sock_set_state` misses: where an interrupt, or another task, meets it in its
/// middle, the kernel leaves out its runs until it has ended.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state_again(ctx: RawTracePointContext) -> i32 {
    let (sk, new) = (ctx.arg(0), ctx.arg(2));
    if !tcp::is_done(sk, new) {
        let _ = step(sk, ctx.arg(1), new);
    }
    0
}

/// `tcp_receive_reset(struct sock *sk)`
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: RawTracePointContext) -> i32 {
    let _ = tcp::reset(ctx.arg(0));
    0
}

/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, ...)`
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: RawTracePointContext) -> i32 {
    let _ = tcp::reset(ctx.arg(0));
    0
}

/// `sock_send_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn sock_send_length(ctx: RawTracePointContext) -> i32 {
    // The flags of a send say nothing about what it moved.
    let _ = io::moved(ctx.arg(0), ctx.arg(1), 0, Way::Send);
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    let _ = io::moved(
        ctx.arg(0),
        ctx.arg(1),
        ctx.arg::<i32>(2) as u32,
        Way::Receive,
    );
    0
}

/// The `sock` of a `struct socket`.
#[inline(always)]
fn sock(socket: u64) -> u64 {
    read(socket, setting!(OFFSETS, socket_sk)).unwrap_or(0)
}

/// `inet_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)`: the address may be
/// another one when it returns.
#[fentry(function = "inet_sendmsg")]
pub fn inet_sendmsg_begins(ctx: FEntryContext) -> i32 {
    begins(ctx.arg(0), ctx.arg(1))
}

/// As `inet_sendmsg`.
#[fentry(function = "inet6_sendmsg")]
pub fn inet6_sendmsg_begins(ctx: FEntryContext) -> i32 {
    begins(ctx.arg(0), ctx.arg(1))
}

#[inline(always)]
fn begins(socket: u64, message: u64) -> i32 {
    if kernel::protocol(sock(socket)) != Some(TCP) {
        let _ = io::peer_of_message(message);
    }
    0
}

/// `inet_sendmsg` returned.
#[fexit(function = "inet_sendmsg")]
pub fn inet_sendmsg(ctx: FExitContext) -> i32 {
    let _ = io::moved(sock(ctx.arg(0)), ctx.arg(3), 0, Way::Send);
    0
}

/// `inet6_sendmsg` returned.
#[fexit(function = "inet6_sendmsg")]
pub fn inet6_sendmsg(ctx: FExitContext) -> i32 {
    let _ = io::moved(sock(ctx.arg(0)), ctx.arg(3), 0, Way::Send);
    0
}

/// `inet_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`
/// returned.
#[fexit(function = "inet_sendpage")]
pub fn inet_sendpage(ctx: FExitContext) -> i32 {
    let _ = io::moved(sock(ctx.arg(0)), ctx.arg(5), 0, Way::Send);
    0
}

/// `inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)` returned.
#[fexit(function = "inet_recvmsg")]
pub fn inet_recvmsg(ctx: FExitContext) -> i32 {
    received(ctx.arg(0), ctx.arg(1), ctx.arg(3), ctx.arg(4))
}

/// As `inet_recvmsg`.
#[fexit(function = "inet6_recvmsg")]
pub fn inet6_recvmsg(ctx: FExitContext) -> i32 {
    received(ctx.arg(0), ctx.arg(1), ctx.arg(3), ctx.arg(4))
}

#[inline(always)]
fn received(socket: u64, message: u64, flags: i32, returned: i32) -> i32 {
    let sk = sock(socket);
    if returned >= 0 && kernel::protocol(sk) != Some(TCP) {
        let _ = io::peer_of_message(message);
    }
    let _ = io::moved(sk, returned, flags as u32, Way::Receive);
    0
}

/// `__skb_recv_udp(struct sock *sk, unsigned int flags, int *off, int *err)` returned a datagram.
#[fexit(function = "__skb_recv_udp")]
pub fn datagram(ctx: FExitContext) -> i32 {
    let _ = io::peer_of_datagram(ctx.arg(0), ctx.arg(4));
    0
}

/// The same before 5.19: `__skb_recv_udp(struct sock *sk, unsigned int flags, int noblock,
/// int *off, int *err)`. A kernel with fewer arguments refuses it.
#[fexit(function = "__skb_recv_udp")]
pub fn datagram_noblock(ctx: FExitContext) -> i32 {
    let _ = io::peer_of_datagram(ctx.arg(0), ctx.arg(5));
    0
}

/// A datagram goes to an address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    peer4(&ctx)
}

/// A datagram goes to an address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    peer6(&ctx)
}

/// A datagram came from an address.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    peer4(&ctx)
}

/// A datagram came from an address.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    peer6(&ctx)
}

/// What these programs return: 1 lets the call go on.
const GO_ON: i32 = 1;

#[inline(always)]
fn peer4(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's; this field may be read.
    if unsafe { (*ctx.sock_addr).protocol } != u32::from(UDP) {
        return GO_ON;
    }
    // SAFETY: the context is the kernel's; these fields may be read.
    let (address, port) = unsafe {
        let addr = ctx.sock_addr;
        ((*addr).user_ip4, (*addr).user_port)
    };
    io::peer([0, 0, MAPPED, address], u16::from_be(port as u16));
    GO_ON
}

#[inline(always)]
fn peer6(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's; this field may be read.
    if unsafe { (*ctx.sock_addr).protocol } != u32::from(UDP) {
        return GO_ON;
    }
    // SAFETY: the context is the kernel's; these fields may be read, word by word.
    let (address, port) = unsafe {
        let addr = ctx.sock_addr;
        let words = &raw const (*addr).user_ip6;
        (
            [
                core::ptr::read_volatile((words as *const u32).add(0)),
                core::ptr::read_volatile((words as *const u32).add(1)),
                core::ptr::read_volatile((words as *const u32).add(2)),
                core::ptr::read_volatile((words as *const u32).add(3)),
            ],
            core::ptr::read_volatile(&raw const (*addr).user_port),
        )
    };
    io::peer(address, u16::from_be(port as u16));
    GO_ON
}

/// `struct bpf_iter_meta`
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// `struct bpf_iter__bpf_map_elem`
#[repr(C)]
pub struct Element<K, V> {
    meta: *const Meta,
    map: *const c_void,
    key: *const K,
    value: *mut V,
}

/// Hands a record to whoever reads the iterator; whether there was room. Without room the element
/// is come to again.
///
/// # Safety
///
/// `meta` is of the context of an iterator.
#[inline(always)]
unsafe fn write<T>(meta: *const Meta, record: *const T) -> bool {
    // SAFETY: the caller vouches for the pointer; the size is the type's own.
    unsafe { bpf_seq_write((*meta).seq.cast(), record.cast(), size_of::<T>() as u32) == 0 }
}

/// The look at open connections: an element of SOCKETS.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn look_at_connections(element: *const Element<u64, Socket>) -> i32 {
    // SAFETY: the context is the kernel's; the pointers are checked.
    unsafe {
        let key = (*element).key;
        let value = (*element).value;
        if !key.is_null() && !value.is_null() {
            let sk = *key;
            if let Some(socket) = tcp::SOCKETS.get_ptr_mut(&sk) {
                let _ = look::connection(sk, socket, tcp::setting_now(TICK));
            }
        }
    }
    0
}

/// The look at queues: an element of LISTENING.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn look_at_listeners(element: *const Element<u64, Listening>) -> i32 {
    // SAFETY: the context is the kernel's; the pointers are checked.
    unsafe {
        let key = (*element).key;
        let value = (*element).value;
        if !key.is_null() && !value.is_null() && listen::look(*key, value).is_some() {
            write((*element).meta, value);
        }
    }
    0
}

/// What user space was not told yet: an element of FLOWS. Removes what is idle for long.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn report_flows(element: *const Element<FlowKey, FlowValue>) -> i32 {
    // SAFETY: the context is the kernel's; the pointers are checked.
    unsafe {
        let key = (*element).key;
        let value = (*element).value;
        if !key.is_null() && !value.is_null() {
            let tick = tcp::setting_now(TICK);
            let mut news = flows::NO_NEWS;
            if flows::news(&*key, value, tick, &mut news) {
                if write((*element).meta, &raw const news) {
                    flows::told(value, tick, &news);
                }
            } else if (*value).changed == 0 {
                // Just made: what it was made for is about to be counted.
                (*value).changed = tick;
            } else if news.open <= 0
                && (*value).live_tick != tick
                && (*value).changed < tcp::setting_now(IDLE_SINCE)
            {
                let _ = flows::FLOWS.remove(&news.key);
            }
            if let Some(count) = tcp::STATE.get_ptr_mut(FLOW_COUNT) {
                *count += 1;
            }
        }
    }
    0
}

/// `struct bpf_iter__task_file`
#[repr(C)]
pub struct TaskFile {
    meta: *const Meta,
    task: u64,
    fd: u64,
    file: u64,
}

/// What was there before capture: an open file of a task.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn adopt_files(context: *const TaskFile) -> i32 {
    // Read by the helper, so that they are plain words.
    let context = context as u64;
    let task = read::<u64>(context, core::mem::offset_of!(TaskFile, task) as u32).unwrap_or(0);
    let file = read::<u64>(context, core::mem::offset_of!(TaskFile, file) as u32).unwrap_or(0);
    if task != 0 && file != 0 {
        let _ = adopt::file(task, file);
    }
    0
}
