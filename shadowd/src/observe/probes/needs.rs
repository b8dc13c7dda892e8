//! What a way needs of the kernel, looked up in its types before anything is loaded.

use procfs::sys::kernel::Version;

use super::Need;
use crate::observe::btf::Btf;

/// Whether this kernel has what a way needs.
pub(super) fn meets(btf: &Btf, need: &Need) -> Result<(), String> {
    match need {
        Need::Preemption if preempts_programs() => Ok(()),
        Need::Preemption => Err("this kernel ends a program before another task runs".to_owned()),
        Need::Arguments(tracepoint, least) => match btf.tracepoint_arguments(tracepoint) {
            None => Err(format!("the kernel has no tracepoint {tracepoint}")),
            Some(count) if count < *least => Err(format!(
                "the kernel's tracepoint {tracepoint} has {count} arguments, {least} are needed"
            )),
            Some(_) => Ok(()),
        },
    }
}

/// From this release on, programs are taken to be ones that another task can meet in their middle:
/// seen on 7.2, not on 6.18, and nothing in the kernel's types tells.
const PREEMPTS_SINCE: (u8, u8) = (7, 0);

/// Whether another task can run, on the same processor, in the middle of a program.
pub fn preempts_programs() -> bool {
    // What cannot be told costs a little where it is not so, and counts where it is.
    Version::current().map_or(true, |version| {
        (version.major, version.minor) >= PREEMPTS_SINCE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fields::{Field, field, resolve};

    /// The running kernel's types with one name changed.
    fn doctored(old: &str, new: &str) -> Btf {
        assert_eq!(old.len(), new.len());
        let mut bytes = std::fs::read(crate::observe::btf::KERNEL).expect("the kernel has BTF");
        let needle = [b"\0", old.as_bytes(), b"\0"].concat();
        let at = bytes.windows(needle.len()).position(|part| part == needle);
        let at = at.expect("the name is there") + 1;
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        Btf::parse(bytes).expect("it is still BTF")
    }

    #[derive(Default)]
    struct Offsets {
        daddr: u32,
        dport: u32,
    }

    #[test]
    fn a_missing_field_is_named_and_only_what_reads_it_is_off() {
        let btf = doctored("skc_daddr", "skc_xaddr");
        let missing: [Field<Offsets>; 1] = [field!("sock", ["__sk_common", "skc_daddr"], daddr)];
        let why = resolve(&btf, &missing).err().expect("the field is gone");
        let why = why.to_string();
        assert!(why.contains("sock") && why.contains("skc_daddr"), "{why}");
        let other: [Field<Offsets>; 1] = [field!("sock", ["__sk_common", "skc_dport"], dport)];
        let offsets = resolve(&btf, &other).expect("the other field is there");
        assert!(offsets.dport > 0 && offsets.daddr == 0);
        for way in super::super::SYSCALLS.ways {
            let types = way.needs.iter();
            for need in types.filter(|need| !matches!(need, Need::Preemption)) {
                assert_eq!(meets(&btf, need), Ok(()), "{need:?}");
            }
        }
    }

    #[test]
    fn a_tracepoint_of_another_arity_or_none_refuses_the_way() {
        let btf = doctored("btf_trace_sys_exit", "btf_trace_sys_exiX");
        let why = meets(&btf, &Need::Arguments("sys_exit", 2)).expect_err("it is gone");
        assert_eq!(why, "the kernel has no tracepoint sys_exit");
        let kernel = Btf::of_kernel().expect("the kernel has BTF");
        let why = meets(&kernel, &Need::Arguments("sys_exit", 9)).expect_err("it has two");
        assert!(why.contains("has 2 arguments, 9 are needed"), "{why}");
    }
}
