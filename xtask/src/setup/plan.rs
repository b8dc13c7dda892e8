//! Turns what is missing into steps, each with its reason, before anything is changed.
//!
//! A plan holds no surprise: what is printed is what `install` does, in this order.

use std::fmt;

use super::machine::Machine;
use super::needs::{DEBIAN_KERNEL_COMPILER, LLVM_PREFIX, Need, Remedy};

/// The distribution's package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Debian and its derivatives: packages are installed.
    Apt,
    /// Fedora and its derivatives: the packages are named, the user installs them.
    Dnf,
    /// Anything else: the programs are named.
    Unknown,
}

impl Manager {
    pub fn of(machine: &dyn Machine) -> Self {
        if machine.program("apt-get").is_some() {
            Self::Apt
        } else if machine.program("dnf").is_some() {
            Self::Dnf
        } else {
            Self::Unknown
        }
    }
}

/// One thing that `install` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One apt-get transaction for all packages.
    Apt(Vec<&'static str>),
    /// Packages that only the user can install: the command to type, or a description.
    ByHand(String),
    /// A component for the active toolchain.
    RustupComponent(&'static str),
    /// Nightly with its source, where the distribution has no compiler for the kernel side.
    RustupNightly,
    /// bpf-linker, built against the LLVM that was installed before.
    BpfLinker,
}

/// The steps, in order, with the needs they serve.
#[derive(Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    reasons: Vec<String>,
}

impl Plan {
    pub fn make(machine: &dyn Machine, missing: &[&Need]) -> Self {
        let manager = Manager::of(machine);
        let mut packages: Vec<&'static str> = Vec::new();
        let mut rpm_packages: Vec<&'static str> = Vec::new();
        let mut later = Vec::new();
        for need in missing {
            match need.remedy {
                Remedy::Packages { apt, rpm } => {
                    packages.extend(apt);
                    rpm_packages.extend(rpm);
                }
                Remedy::RustupComponent(name) => later.push(Step::RustupComponent(name)),
                Remedy::KernelCompiler if apt_has_kernel_compiler(manager, machine) => {
                    packages.extend(DEBIAN_KERNEL_COMPILER);
                }
                Remedy::KernelCompiler => later.push(Step::RustupNightly),
                Remedy::BpfLinker => {
                    if !machine.exists(LLVM_PREFIX) {
                        packages.extend(["llvm-22-dev", "libpolly-22-dev"]);
                        rpm_packages.push("llvm-devel (22)");
                    }
                    later.push(Step::BpfLinker);
                }
            }
        }
        let mut steps = Vec::new();
        for list in [&mut packages, &mut rpm_packages] {
            list.sort_unstable();
            list.dedup();
        }
        if !packages.is_empty() {
            steps.push(match manager {
                Manager::Apt => Step::Apt(packages),
                Manager::Dnf => Step::ByHand(format!("dnf install {}", rpm_packages.join(" "))),
                Manager::Unknown => Step::ByHand(format!(
                    "what Debian calls {}; there is no apt-get here",
                    packages.join(", ")
                )),
            });
        }
        steps.extend(later);
        let reasons = missing
            .iter()
            .map(|need| format!("{}: {}", need.what, need.why))
            .collect();
        Self { steps, reasons }
    }
}

/// Whether apt knows Debian's pair. Before the first `apt-get update` it may know nothing at all;
/// Debian itself has the pair, so there the answer is yes.
fn apt_has_kernel_compiler(manager: Manager, machine: &dyn Machine) -> bool {
    if manager != Manager::Apt {
        return false;
    }
    let known = machine
        .output("apt-cache", &["policy", DEBIAN_KERNEL_COMPILER[1]])
        .is_some_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"));
    known || machine.exists("/etc/debian_version") && !machine.exists("/etc/lsb-release")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "missing:")?;
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        write!(f, "steps:")?;
        for step in &self.steps {
            write!(f, "\n  {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apt(packages) => write!(f, "apt-get install {}", packages.join(" ")),
            Self::ByHand(text) => write!(f, "to be installed by hand: {text}"),
            Self::RustupComponent(name) => write!(f, "rustup component add {name}"),
            Self::RustupNightly => {
                f.write_str("rustup toolchain install nightly --component rust-src")
            }
            Self::BpfLinker => f.write_str("cargo install bpf-linker (about a minute)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::fake::Fake;
    use super::super::needs::NEEDS;
    use super::*;

    fn all() -> Vec<&'static Need> {
        NEEDS.iter().collect()
    }

    #[test]
    fn a_bare_debian_gets_one_transaction_and_then_the_linker() {
        let debian = Fake::default()
            .path("/bin/apt-get")
            .path("/etc/debian_version");
        let plan = Plan::make(&debian, &all());
        let Some(Step::Apt(packages)) = plan.steps.first() else {
            panic!("packages come first: {plan}");
        };
        for name in [
            "rustc-web",
            "libstd-rust-web-dev-bpf",
            "llvm-22-dev",
            "libsystemd-dev",
        ] {
            assert!(packages.contains(&name), "{name} is installed");
        }
        let named_once = packages
            .iter()
            .filter(|name| **name == "debian-archive-keyring")
            .count();
        assert_eq!(named_once, 1);
        assert_eq!(plan.steps.get(1), Some(&Step::BpfLinker));
        assert!(!plan.steps.contains(&Step::RustupNightly));
    }

    #[test]
    fn a_derivative_without_the_pair_gets_nightly() {
        let ubuntu = Fake::default()
            .path("/bin/apt-get")
            .path("/etc/debian_version")
            .path("/etc/lsb-release");
        let plan = Plan::make(&ubuntu, &all());
        assert!(plan.steps.contains(&Step::RustupNightly));
        assert!(!plan.to_string().contains("rustc-web pair,libstd"));
    }

    #[test]
    fn fedora_is_told_the_packages_in_its_own_names_and_nothing_is_installed() {
        let fedora = Fake::default().path("/bin/dnf");
        let plan = Plan::make(&fedora, &all());
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::Apt(_))));
        let text = plan.to_string();
        assert!(
            text.contains("dnf install") && text.contains("systemd-devel"),
            "{text}"
        );
        assert!(!text.contains("libsystemd-dev"), "{text}");
    }

    #[test]
    fn an_llvm_that_is_there_is_not_installed_again() {
        let linker: Vec<_> = all()
            .into_iter()
            .filter(|need| need.what == "bpf-linker")
            .collect();
        let with_llvm = Fake::default().path("/bin/apt-get").path(LLVM_PREFIX);
        assert_eq!(Plan::make(&with_llvm, &linker).steps, [Step::BpfLinker]);
    }
}
