//! Where the fields lie that the kernel side reads, found in the kernel's BTF before the load.
//!
//! One table names every field and who needs it, so a kernel that lacks one degrades that probe
//! only, and the reason names the field.

use std::collections::BTreeMap;

use shadowd_common::Settings;

use super::btf::Btf;

/// One field: who needs it, where it is, and the setting that tells the kernel side.
struct Field {
    probe: &'static str,
    structure: &'static str,
    /// Alternatives, the first that exists is taken: names differ between architectures.
    paths: &'static [&'static [&'static str]],
    set: fn(&mut Settings, u32),
}

macro_rules! field {
    ($probe:literal, $structure:literal, $([$($step:literal),+])|+, $setting:ident) => {
        Field {
            probe: $probe,
            structure: $structure,
            paths: &[$(&[$($step),+]),+],
            set: |settings, offset| settings.$setting = offset,
        }
    };
}

const FIELDS: &[Field] = &[
    field!(
        "syscalls",
        "pt_regs",
        ["orig_ax"] | ["syscallno"],
        regs_number
    ),
    field!("tcp", "sock", ["sk_protocol"], sk_protocol),
    field!("tcp", "sock", ["__sk_common", "skc_family"], sk_family),
    field!("tcp", "sock", ["__sk_common", "skc_daddr"], sk_daddr),
    field!(
        "tcp",
        "sock",
        ["__sk_common", "skc_rcv_saddr"],
        sk_rcv_saddr
    ),
    field!("tcp", "sock", ["__sk_common", "skc_v6_daddr"], sk_v6_daddr),
    field!(
        "tcp",
        "sock",
        ["__sk_common", "skc_v6_rcv_saddr"],
        sk_v6_rcv_saddr
    ),
    field!("tcp", "sock", ["__sk_common", "skc_dport"], sk_dport),
    field!("tcp", "sock", ["__sk_common", "skc_num"], sk_num),
    field!("tcp", "sock", ["__sk_common", "skc_flags"], sk_flags),
    field!("tcp", "sock", ["__sk_common", "skc_net", "net"], sk_net),
    field!("tcp", "inet_sock", ["inet_sport"], inet_sport),
    field!("tcp", "net", ["ns", "inum"], net_inum),
    field!("tcp", "tcp_sock", ["bytes_sent"], tcp_bytes_sent),
    field!("tcp", "tcp_sock", ["bytes_retrans"], tcp_bytes_retrans),
    field!("tcp", "tcp_sock", ["bytes_received"], tcp_bytes_received),
    field!("processes", "task_struct", ["exit_code"], task_exit_code),
    field!("cgroups", "cgroup", ["kn"], cgroup_node),
    field!("cgroups", "cgroup", ["root"], cgroup_root),
    field!("cgroups", "cgroup_root", ["hierarchy_id"], root_hierarchy),
    field!("cgroups", "kernfs_node", ["id"], node_id),
];

/// Fills in the offsets, and says for each probe that lacks one why.
pub fn resolve(btf: &Btf, settings: &mut Settings) -> BTreeMap<&'static str, String> {
    let mut missing = BTreeMap::new();
    for field in FIELDS {
        let mut found = None;
        let mut reason = None;
        for path in field.paths {
            match btf.offset(field.structure, path) {
                Ok(offset) => found = found.or(Some(offset)),
                Err(error) => reason = reason.or(Some(error.to_string())),
            }
        }
        match (found, reason) {
            (Some(offset), _) => (field.set)(settings, offset),
            (None, Some(reason)) => {
                missing.entry(field.probe).or_insert(reason);
            }
            (None, None) => {}
        }
    }
    // Kernels before 5.15 keep tagged bits in this word: then the socket does not tell its group.
    let creator = ["sk_cgrp_data", "cgroup"];
    if !missing.contains_key("cgroups") && btf.is_pointer("sock", &creator) {
        settings.sk_cgroup = btf.offset("sock", &creator).unwrap_or(0);
    }
    let arguments = btf.tracepoint_arguments("sched_process_exit");
    settings.exit_tells_group = u32::from(arguments.is_some_and(|count| count >= 2));
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_field() {
        let Ok(btf) = Btf::of_kernel() else {
            return; // built on a host without BTF: `cargo xtask test kernels` covers it
        };
        let mut settings = Settings::default();
        assert_eq!(resolve(&btf, &mut settings), BTreeMap::new());
        assert_ne!(settings.tcp_bytes_received, settings.tcp_bytes_sent);
        assert_ne!(settings.sk_protocol, 0);
    }
}
