//! What capture says of flows against a load that knows what it did.

mod adoption;
mod ledger;
mod listeners;
mod loss;
mod owners;
mod tcp;
mod udp;
mod wire;

use shadowd::observe::Capture;
use shadowd_tests::load::Plan;
use shadowd_tests::load::udp::UdpWay;
use shadowd_tests::load::ways::Way;

use crate::{Check, units};

/// Every check, by name.
pub const CHECKS: &[(&str, Check)] = &[
    ("flows_write_read", |capture| tcp::way(capture, Way::Write)),
    ("flows_writev_readv", |capture| {
        tcp::way(capture, Way::Writev)
    }),
    ("flows_sendmsg_recvmsg", |capture| {
        tcp::way(capture, Way::Sendmsg)
    }),
    ("flows_peeked_bytes_count_once", |capture| {
        tcp::way(capture, Way::Peek)
    }),
    ("flows_sendfile_and_splice_out", |capture| {
        tcp::way(capture, Way::Sendfile)
    }),
    ("flows_splice_in_and_out", |capture| {
        tcp::way(capture, Way::Splice)
    }),
    ("flows_io_uring", |capture| tcp::way(capture, Way::Uring)),
    ("flows_agree_with_tcp_info", tcp::agrees_with_tcp_info),
    ("flows_open_connections_tell", tcp::open_connections_tell),
    ("flows_refused", tcp::refused),
    ("flows_reset_by_linger", tcp::reset),
    ("flows_response_latency", tcp::response_latency),
    ("flows_prefork_server", owners::prefork),
    ("flows_passed_descriptor", owners::passed),
    ("flows_unix_sockets_are_none", owners::unix_is_none),
    ("flows_udp_connected", |capture| {
        udp::way(capture, UdpWay::Connected)
    }),
    ("flows_udp_sendto_recvfrom", |capture| {
        udp::way(capture, UdpWay::Unconnected)
    }),
    ("flows_udp_sendmsg_recvmsg", |capture| {
        udp::way(capture, UdpWay::Message)
    }),
    ("flows_udp_recv_without_address", |capture| {
        udp::way(capture, UdpWay::Addressless)
    }),
    ("flows_listener_queue_and_overflow", listeners::overflow),
    (
        "loss_is_counted_by_the_smallest_tables",
        loss::smallest_tables,
    ),
];

/// What fits on a real machine.
pub const ON_A_HOST: &[(&str, Check)] = &[
    ("flows_10000_connections_have_their_owners", |capture| {
        tcp::many(capture, 10_000)
    }),
    (
        "flows_start_amid_500_open_and_1000_a_second",
        |_: &mut Capture| adoption::each_once(250, 500, 4),
    ),
    (
        "loss_after_5_s_without_a_drain_at_4000_a_second",
        |capture| loss::undrained(capture, 4_000),
    ),
    ("flows_on_a_wire_that_loses", wire::retransmissions),
    ("units_of_5000_processes_of_20_ms", |capture| {
        units::short_processes(capture, 5_000)
    }),
    ("units_of_200_groups_of_20_ms", |capture| {
        units::short_groups(capture, 200)
    }),
];

/// The same in a size that fits on emulated processors.
pub const EMULATED: &[(&str, Check)] = &[
    ("flows_1000_connections_have_their_owners", |capture| {
        tcp::many(capture, 1_000)
    }),
    (
        "flows_start_amid_50_open_and_100_a_second",
        |_: &mut Capture| adoption::each_once(25, 50, 2),
    ),
    (
        "loss_after_5_s_without_a_drain_at_100_a_second",
        |capture| loss::undrained(capture, 100),
    ),
    ("units_of_100_processes_of_20_ms", |capture| {
        units::short_processes(capture, 100)
    }),
    ("units_of_20_groups_of_20_ms", |capture| {
        units::short_groups(capture, 20)
    }),
];

/// What listens, what connects to it, and the address by which both are known.
const FAMILIES: [(&str, &str); 4] = [
    ("127.0.0.1", "127.0.0.1"),
    ("::1", "::1"),
    // A v6 socket that serves v4, reached by a v4 and by a v6 socket.
    ("::", "127.0.0.1"),
    ("::", "::ffff:127.0.0.1"),
];

/// Connections of most checks.
const CONNECTIONS: u32 = 3;
/// Bytes each way: neither is a multiple of a page, a segment or a call.
const REQUEST: u64 = 70_001;
const ANSWER: u64 = 300_007;

fn plan(address: &str, port: u16, way: Way) -> anyhow::Result<Plan> {
    Ok(Plan {
        address: (address.parse::<std::net::IpAddr>()?, port).into(),
        way,
        connections: CONNECTIONS,
        request: REQUEST,
        answer: ANSWER,
        rounds: 1,
        delay_ms: 0,
    })
}
