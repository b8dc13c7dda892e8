//! The table of everything shadowd needs from a machine: what, why, how it is found, what has it.
//!
//! Found by effect (a program answers, a library is known to pkg-config), not by package name, so
//! that a need met in another way is met. Installs nothing.

use super::machine::Machine;

/// Which commands have the need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Compiling anything beyond this tool.
    Build,
    /// `cargo xtask lint`.
    Lint,
    /// Test hosts with a real systemd: lab, demo, `test hosts`.
    Hosts,
    /// Other kernels under QEMU: `test kernels`.
    Kernels,
    /// What `bench` measures beside shadowd.
    Bench,
}

impl Part {
    /// Every part, in the order of the commands.
    pub const ALL: [Self; 5] = [
        Self::Build,
        Self::Lint,
        Self::Hosts,
        Self::Kernels,
        Self::Bench,
    ];

    /// The word for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Lint => "lint",
            Self::Hosts => "hosts",
            Self::Kernels => "kernels",
            Self::Bench => "bench",
        }
    }
}

/// How a met need is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detect {
    /// A program of this name is on the path or in the system's sbin folders.
    Program(&'static str),
    /// pkg-config knows this library.
    Library(&'static str),
    /// This file or folder exists.
    Path(&'static str),
    /// A Rust compiler that can build for the kernel: Debian's pair or nightly with rust-src.
    KernelCompiler,
    /// bpf-linker of a version that the recipe was tried with.
    BpfLinker,
}

/// How a missing need is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Packages by their Debian names, and by their Fedora names for systems with dnf.
    Packages {
        /// Debian and its derivatives.
        apt: &'static [&'static str],
        /// Fedora and its derivatives; they are named to the user, never installed.
        rpm: &'static [&'static str],
    },
    /// A component of the active rustup toolchain.
    RustupComponent(&'static str),
    /// Debian's compiler where apt offers it, else rustup's nightly with rust-src.
    KernelCompiler,
    /// `cargo install bpf-linker`.
    BpfLinker,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// What is needed, in a word or two.
    pub what: &'static str,
    /// What would not work without it.
    pub why: &'static str,
    /// The commands that have the need.
    pub part: Part,
    /// How it is recognised.
    pub detect: Detect,
    /// How it is met.
    pub remedy: Remedy,
}

/// Debian's compiler for the kernel side: the compiler and the precompiled `core` for BPF.
pub const DEBIAN_KERNEL_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// Where Debian's pair puts the precompiled `core`.
pub const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
/// Debian's compiler, which stands beside the one of rustup.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The LLVM that bpf-linker is linked against.
pub const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The series of bpf-linker that the recipe was tried with.
pub const BPF_LINKER_SERIES: &str = "0.13";

const fn package(
    part: Part,
    what: &'static str,
    detect: Detect,
    apt: &'static [&'static str],
    rpm: &'static [&'static str],
    why: &'static str,
) -> Need {
    Need {
        what,
        why,
        part,
        detect,
        remedy: Remedy::Packages { apt, rpm },
    }
}

/// Every need; order is the order of installation, so what others build on comes first.
pub const NEEDS: &[Need] = &[
    package(
        Part::Build,
        "C compiler",
        Detect::Program("gcc"),
        &["gcc", "libc6-dev"],
        &["gcc", "glibc-devel"],
        "links every program and builds SQLite and ring",
    ),
    package(
        Part::Build,
        "pkg-config",
        Detect::Program("pkg-config"),
        &["pkg-config"],
        &["pkgconf-pkg-config"],
        "finds libsystemd",
    ),
    package(
        Part::Build,
        "libsystemd",
        Detect::Library("libsystemd"),
        &["libsystemd-dev"],
        &["systemd-devel"],
        "readiness, watchdog and journal of the daemon",
    ),
    Need {
        what: "kernel compiler",
        why: "compiles shadowd-ebpf: Debian's rustc-web, or nightly + rust-src",
        part: Part::Build,
        detect: Detect::KernelCompiler,
        remedy: Remedy::KernelCompiler,
    },
    Need {
        what: "bpf-linker",
        why: "links the kernel side and writes its BTF",
        part: Part::Build,
        detect: Detect::BpfLinker,
        remedy: Remedy::BpfLinker,
    },
    Need {
        what: "rustfmt",
        why: "cargo fmt --check",
        part: Part::Lint,
        detect: Detect::Program("cargo-fmt"),
        remedy: Remedy::RustupComponent("rustfmt"),
    },
    Need {
        what: "clippy",
        why: "cargo clippy",
        part: Part::Lint,
        detect: Detect::Program("cargo-clippy"),
        remedy: Remedy::RustupComponent("clippy"),
    },
    package(
        Part::Hosts,
        "mmdebstrap",
        Detect::Program("mmdebstrap"),
        &["mmdebstrap"],
        &["mmdebstrap"],
        "builds the root filesystem of a test host",
    ),
    package(
        Part::Hosts,
        "Debian keyring",
        Detect::Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
        &["debian-archive-keyring"],
        &["debian-keyring"],
        "checks the signatures of the packages in that root filesystem",
    ),
    package(
        Part::Hosts,
        "systemd-nspawn",
        Detect::Program("systemd-nspawn"),
        &["systemd-container"],
        &["systemd-container"],
        "boots a test host with a real systemd",
    ),
    package(
        Part::Hosts,
        "ip",
        Detect::Program("ip"),
        &["iproute2"],
        &["iproute"],
        "namespaces, veth pairs and the bridge between hosts",
    ),
    package(
        Part::Hosts,
        "nft",
        Detect::Program("nft"),
        &["nftables"],
        &["nftables"],
        "loss, partitions and one-way cuts",
    ),
    package(
        Part::Hosts,
        "nsenter",
        Detect::Program("nsenter"),
        &["util-linux"],
        &["util-linux"],
        "runs commands inside a test host",
    ),
    package(
        Part::Hosts,
        "curl",
        Detect::Program("curl"),
        &["curl"],
        &["curl"],
        "real requests with known byte counts",
    ),
    package(
        Part::Hosts,
        "wrk",
        Detect::Program("wrk"),
        &["wrk"],
        &["wrk"],
        "real load on nginx",
    ),
    package(
        Part::Kernels,
        "QEMU",
        Detect::Program("qemu-system-x86_64"),
        &["qemu-system-x86"],
        &["qemu-system-x86-core"],
        "boots other kernels",
    ),
    package(
        Part::Kernels,
        "cpio",
        Detect::Program("cpio"),
        &["cpio"],
        &["cpio"],
        "packs the test program as the first process of such a kernel",
    ),
    package(
        Part::Kernels,
        "Debian keyring",
        Detect::Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
        &["debian-archive-keyring"],
        &["debian-keyring"],
        "checks the signatures of the kernels",
    ),
    package(
        Part::Bench,
        "bpftrace",
        Detect::Program("bpftrace"),
        &["bpftrace"],
        &["bpftrace"],
        "counts the same system calls as capture does, to be compared with",
    ),
];

impl Detect {
    /// Where or as what the need is met on this machine; `None` when it is missing.
    pub fn found(self, machine: &dyn Machine) -> Option<String> {
        match self {
            Self::Program(name) => machine.program(name),
            Self::Library(name) => {
                let version = machine.output("pkg-config", &["--modversion", name])?;
                Some(format!("{name} {}", version.trim()))
            }
            Self::Path(path) => machine.exists(path).then(|| path.to_owned()),
            Self::KernelCompiler => kernel_compiler(machine),
            Self::BpfLinker => bpf_linker(machine),
        }
    }
}

fn kernel_compiler(machine: &dyn Machine) -> Option<String> {
    if machine.exists(DEBIAN_BPF_CORE) && machine.exists(DEBIAN_RUSTC) {
        return Some(format!("{DEBIAN_RUSTC} and its BPF core"));
    }
    let sysroot = machine.output("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])?;
    let source = format!("{}/lib/rustlib/src/rust/library/core", sysroot.trim());
    machine
        .exists(&source)
        .then(|| "rustup nightly with rust-src".to_owned())
}

fn bpf_linker(machine: &dyn Machine) -> Option<String> {
    machine.program("bpf-linker")?;
    let answer = machine.output("bpf-linker", &["--version"])?;
    let version = answer.split_whitespace().nth(1)?;
    let same_series = version
        .strip_prefix(BPF_LINKER_SERIES)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    same_series.then(|| format!("bpf-linker {version}"))
}

#[cfg(test)]
mod tests {
    use super::super::machine::fake::Fake;
    use super::*;

    #[test]
    fn a_kernel_compiler_is_either_debians_pair_or_nightly_with_its_source() {
        let debian = Fake::default().path(DEBIAN_RUSTC).path(DEBIAN_BPF_CORE);
        assert!(Detect::KernelCompiler.found(&debian).is_some());
        // The compiler alone, as Debian's ordinary `rustc` package leaves it, cannot build.
        let half = Fake::default().path(DEBIAN_RUSTC);
        assert_eq!(Detect::KernelCompiler.found(&half), None);

        let ask = ["run", "nightly", "rustc", "--print", "sysroot"];
        let bare_nightly = Fake::default().answer("rustup", &ask, "/n\n");
        assert_eq!(Detect::KernelCompiler.found(&bare_nightly), None);
        let nightly = bare_nightly.path("/n/lib/rustlib/src/rust/library/core");
        assert!(Detect::KernelCompiler.found(&nightly).is_some());
    }

    #[test]
    fn a_linker_of_another_series_is_missing() {
        let with = |version: &str| {
            Fake::default().path("/bin/bpf-linker").answer(
                "bpf-linker",
                &["--version"],
                &format!("bpf-linker {version}\n"),
            )
        };
        assert_eq!(
            Detect::BpfLinker.found(&with("0.13.0")).as_deref(),
            Some("bpf-linker 0.13.0")
        );
        assert_eq!(Detect::BpfLinker.found(&with("0.9.15")), None);
        assert_eq!(Detect::BpfLinker.found(&with("0.130.1")), None);
        assert_eq!(Detect::BpfLinker.found(&Fake::default()), None);
    }

    #[test]
    fn a_library_is_what_pkg_config_says() {
        let ask = ["--modversion", "libsystemd"];
        let there = Fake::default().answer("pkg-config", &ask, "252\n");
        let found = Detect::Library("libsystemd").found(&there);
        assert_eq!(found.as_deref(), Some("libsystemd 252"));
        assert_eq!(Detect::Library("libsystemd").found(&Fake::default()), None);
    }

    #[test]
    fn every_package_need_has_a_name_in_both_worlds() {
        for need in NEEDS {
            if let Remedy::Packages { apt, rpm } = need.remedy {
                assert!(!apt.is_empty() && !rpm.is_empty(), "{}", need.what);
            }
        }
    }
}
