//! Holds the import edges between the rooms of `shadowd/src`, and what `decide` may not touch.
//!
//! The table below is the code form of the one in docs/ARCHITECTURE.md.

use super::Finding;
use super::paths::crate_paths;
use super::source::SourceFile;
use super::tokens::{Kind, Token};

/// What a room may import besides itself.
enum May {
    /// Only these; `serve::protocol` names a module inside a room.
    Only(&'static [&'static str]),
    /// All rooms but these.
    AllBut(&'static [&'static str]),
}

/// The most specific entry is the one that counts: `serve::protocol` before `serve`.
const EDGES: &[(&str, May)] = &[
    ("facts", May::Only(&[])),
    ("fuzz", May::AllBut(&[])),
    ("ethernet", May::Only(&[])),
    ("config", May::Only(&["facts"])),
    ("decide", May::Only(&["facts", "config"])),
    ("observe", May::Only(&["facts", "config", "ethernet"])),
    ("act", May::Only(&["facts", "config", "ethernet"])),
    ("link", May::Only(&["facts", "config"])),
    ("store", May::Only(&["facts", "config"])),
    ("serve::protocol", May::Only(&["facts"])),
    ("serve", May::Only(&["facts", "config"])),
    (
        "cli",
        May::Only(&[
            "serve::protocol",
            "decide::map",
            "decide::cluster",
            "facts",
            "config",
        ]),
    ),
    ("run", May::AllBut(&["cli"])),
    ("bin::shadowd", May::Only(&["run", "config"])),
    ("bin::shadowctl", May::Only(&["cli"])),
];

/// Crates and names that would give the pure core a clock, a socket, a die or a voice.
const IMPURE_CRATES: &[&str] = &[
    "aya",
    "libc",
    "nix",
    "rand",
    "rtnetlink",
    "socket2",
    "tokio",
    "tracing",
    "zbus",
];
const IMPURE_NAMES: &[&str] = &[
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
];
const IMPURE_STD: &[&str] = &["env", "fs", "io", "os", "process", "thread"];

/// Checks one file; files outside `shadowd/src` have no edges.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    let Some(module) = file.module() else {
        return Vec::new();
    };
    let module: Vec<&str> = module.iter().map(String::as_str).collect();
    let Some((room, may)) = EDGES.iter().find(|(room, _)| within(room, &module)) else {
        return unknown_room(file, &module);
    };
    let mut findings = Vec::new();
    for path in crate_paths(&file.tokens, &module) {
        let target: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        let is_room = EDGES
            .iter()
            .any(|(room, _)| room.split("::").next() == target.first().copied());
        if is_room && !allowed(room, may, &target) {
            let what = format!("`{room}` may not import `{}`", path.segments.join("::"));
            findings.push(file.finding(path.line, what));
        }
    }
    if *room == "decide" {
        findings.extend(impurities(file));
    }
    findings
}

fn within(room: &str, module: &[&str]) -> bool {
    room.split("::")
        .zip(
            module
                .iter()
                .copied()
                .map(Some)
                .chain(std::iter::repeat(None)),
        )
        .all(|(segment, place)| Some(segment) == place)
}

fn allowed(room: &str, may: &May, target: &[&str]) -> bool {
    if within(room, target) {
        return true;
    }
    match may {
        May::Only(rooms) => rooms.iter().any(|room| within(room, target)),
        May::AllBut(rooms) => !rooms.iter().any(|room| within(room, target)),
    }
}

/// A folder without an entry would have no rules at all, so it is a finding itself. `lib.rs` and
/// the files beside it only declare rooms.
fn unknown_room(file: &SourceFile, module: &[&str]) -> Vec<Finding> {
    match module.first() {
        None => Vec::new(),
        Some(room) => vec![file.finding(
            1,
            format!("`{room}` has no import edges; add it to xtask/src/lint/edges.rs"),
        )],
    }
}

fn impurities(file: &SourceFile) -> Vec<Finding> {
    let tokens = &file.tokens;
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let Some(word) = token.word() else { continue };
        if file.in_test(index) {
            continue;
        }
        let starts_path = follows_joint(tokens, index + 1) && !joint_before(tokens, index);
        let impure = IMPURE_NAMES.contains(&word)
            || starts_path && IMPURE_CRATES.contains(&word)
            || in_std(tokens, index) && IMPURE_STD.contains(&word);
        if impure {
            findings.push(file.finding(
                token.line,
                format!("`decide` is pure: it may not use `{word}`"),
            ));
        }
    }
    findings
}

fn follows_joint(tokens: &[Token], index: usize) -> bool {
    tokens
        .get(index)
        .is_some_and(|token| token.kind == Kind::Joint)
}

fn joint_before(tokens: &[Token], index: usize) -> bool {
    index > 0 && follows_joint(tokens, index - 1)
}

/// `std::WORD`, or WORD directly inside `std::{...}`.
fn in_std(tokens: &[Token], index: usize) -> bool {
    let mut depth = 0_usize;
    for at in (0..index).rev() {
        match &tokens[at].kind {
            Kind::Mark('}') => depth += 1,
            Kind::Mark('{') if depth > 0 => depth -= 1,
            Kind::Mark('{') => {
                return at >= 2 && joint_before(tokens, at) && tokens[at - 2].is_word("std");
            }
            Kind::Joint if at + 1 == index => return at >= 1 && tokens[at - 1].is_word("std"),
            Kind::Mark(';') => return false,
            Kind::Word(_) | Kind::Joint | Kind::Mark(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::new(path, text))
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn rooms_do_not_import_each_other() {
        for (path, text) in [
            ("shadowd/src/act/vip.rs", "use crate::link::Peer;"),
            (
                "shadowd/src/act/vip.rs",
                "use super::super::store;\nfn f() { super::super::store::x() }",
            ),
            ("shadowd/src/facts/ids.rs", "use crate::config::Settings;"),
            ("shadowd/src/ethernet/frames.rs", "use crate::facts::Vip;"),
            ("shadowd/src/decide/mod.rs", "use crate::ethernet::Mac;"),
            (
                "shadowd/src/decide/mod.rs",
                "fn f() { crate::observe::start() }",
            ),
            (
                "shadowd/src/serve/protocol.rs",
                "use crate::{facts::Name, config::Settings};",
            ),
            (
                "shadowd/src/serve/protocol/mod.rs",
                "use super::socket::Socket;",
            ),
            (
                "shadowd/src/cli/mod.rs",
                "use crate::serve::socket::Socket;",
            ),
            (
                "shadowd/src/run/mod.rs",
                "use crate::cli;\nuse crate::cli::Args;",
            ),
            ("shadowd/src/bin/shadowctl.rs", "use shadowd::run::main;"),
        ] {
            assert!(!findings(path, text).is_empty(), "{path}: {text}");
        }
    }

    #[test]
    fn what_the_design_allows_is_allowed() {
        for (path, text) in [
            (
                "shadowd/src/act/vip.rs",
                "use crate::{act::announce, config::Settings, facts::Vip};",
            ),
            (
                "shadowd/src/observe/neighbours/mod.rs",
                "use crate::ethernet::Mac;",
            ),
            (
                "shadowd/src/cli/top.rs",
                "use crate::serve::protocol::Status;",
            ),
            (
                "shadowd/src/serve/socket.rs",
                "use super::protocol::Status;",
            ),
            (
                "shadowd/src/run/mod.rs",
                "use crate::{act, decide, link, observe, serve, store};",
            ),
            (
                "shadowd/src/bin/shadowd.rs",
                "fn main() { shadowd::run::main() }",
            ),
            (
                "shadowd/src/act/mod.rs",
                "// crate::link is not imported\nconst X: &str = \"crate::link::X\";",
            ),
            ("xtask/src/main.rs", "use crate::anything::at_all;"),
            ("shadowd/src/lib.rs", "pub mod act;"),
        ] {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn a_room_without_rules_is_found() {
        assert!(!findings("shadowd/src/attic/mod.rs", "//! Old things.").is_empty());
    }

    #[test]
    fn decide_is_pure_outside_its_tests() {
        let path = "shadowd/src/decide/cluster.rs";
        for text in [
            "use tokio::sync::mpsc;",
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::net::UdpSocket;",
            "use std::{collections::BTreeMap, fs};",
            "fn f() { std::thread::sleep(x) }",
            "fn f() { tracing::info!(\"said\") }",
            "fn f() { rand::random() }",
        ] {
            assert_eq!(findings(path, text).len(), 1, "{text}");
        }
        for text in [
            "use std::{collections::BTreeMap, net::IpAddr, time::Duration};",
            "#[cfg(test)]\nmod tests { use rand::Rng; use std::fs; }",
            "fn process(io: u8) -> u8 { let env = io; env }",
        ] {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{text}");
        }
    }
}
