//! Throws damaged and made-up bytes at every decoder of bytes that this host did not make itself.
//!
//! [`TARGETS`] is the list of those decoders: peers, whoever is on the segment, the kernel, files,
//! users. A decoder answers any bytes with a value or an error; a panic, an overflow, a second of
//! work or a room of memory is a finding. Each room keeps its own bodies beside its decoders; this
//! one only drives them, as a test, on the stable compiler. Coverage does not guide it: the inputs
//! are valid encodings, damaged ([`mutate`]).
//!
//! What is not here has no decoder of ours: netlink, D-Bus and HTTP are read by their crates, and
//! maps of the kernel side have types of fixed size.

mod drive;
mod mutate;
mod words;

use crate::decide::profile::fuzz as profile;
use crate::observe::inventory::fuzz as inventory;
use crate::{act, cli, config, ethernet, link, observe, run, serve, store};

/// One decoder.
struct Target {
    /// What `cargo xtask fuzz` calls it.
    name: &'static str,
    /// Decodes, and panics when the answer is not what it has to be.
    decode: fn(&[u8]),
    /// Valid encodings to damage.
    seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, decode: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target {
        name,
        decode,
        seeds,
    }
}

/// Every decoder of bytes that others make.
const TARGETS: &[Target] = &[
    // From the network.
    target("datagram", link::fuzz::datagram, link::fuzz::datagrams),
    target("sealed", link::fuzz::sealed, link::fuzz::sealed_datagrams),
    target("replay", link::fuzz::replay, link::fuzz::counters),
    target("frame", link::fuzz::frame, link::fuzz::frames),
    target(
        "certificate",
        link::fuzz::certificate,
        link::fuzz::certificates,
    ),
    target(
        "statement",
        ethernet::fuzz::statement,
        ethernet::fuzz::frames,
    ),
    target(
        "statement-valid-sum",
        ethernet::fuzz::summed_statement,
        ethernet::fuzz::frames,
    ),
    target("letter", run::fuzz::letter, run::fuzz::letters),
    target("profile-version", profile::version, profile::versions),
    target("dns", observe::fuzz::dns, observe::fuzz::dns_packets),
    // From the kernel.
    target(
        "lifecycle-event",
        observe::fuzz::lifecycle,
        observe::fuzz::records,
    ),
    target("open-event", observe::fuzz::open, observe::fuzz::records),
    target("btf", observe::fuzz::btf, observe::fuzz::btf_blobs),
    target("procfs", observe::fuzz::procfs, observe::fuzz::procfs_texts),
    // From files.
    target(
        "environment-file",
        inventory::environment,
        inventory::environments,
    ),
    target(
        "certificate-file",
        inventory::certificate,
        inventory::certificates,
    ),
    target("key-file", link::fuzz::key_file, link::fuzz::key_files),
    target(
        "history-file",
        store::fuzz::history,
        store::fuzz::history_files,
    ),
    target("history-record", store::fuzz::record, store::fuzz::records),
    target(
        "history-name",
        store::fuzz::history_name,
        store::fuzz::history_names,
    ),
    target("store-json", store::fuzz::json, store::fuzz::jsons),
    target(
        "repository-object",
        store::fuzz::object,
        store::fuzz::objects,
    ),
    target(
        "repository-name",
        store::fuzz::object_name,
        store::fuzz::object_names,
    ),
    target(
        "configuration",
        config::fuzz::configuration,
        config::fuzz::configurations,
    ),
    // From users and programs of this host.
    target("request-body", serve::fuzz::body, serve::fuzz::bodies),
    target("request-query", serve::fuzz::query, serve::fuzz::queries),
    target("provider-answer", act::fuzz::answer, act::fuzz::answers),
    target("time", cli::fuzz::time, cli::fuzz::times),
    target("words", words::decode, words::seeds),
];
