//! The rules of this host's packet filter, as nft(8) lists them.

use std::path::Path;
use std::process::Command;

use thiserror::Error;

use super::packages::{PackageError, output};

const NFT: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];
/// Tables of the filter before nftables, which nft does not list: none of them unless somebody uses it.
const LEGACY: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
/// What shows that rules may be there that only nft would list.
const MODULES: &str = "/proc/modules";
const NFT_BY_OTHERS: &str = "/usr/sbin/xtables-nft-multi";
/// A host without rules.
const NOTHING: &str = r#"{"nftables": []}"#;

/// Why the rules are not known.
#[derive(Debug, Error)]
pub enum FilterError {
    /// There are rules that are not looked at.
    #[error("rules of iptables-legacy are not looked at")]
    Legacy,
    /// There may be rules, and nothing that lists them.
    #[error("nft is not installed, which would list the rules")]
    NoTool,
    /// It did not list them.
    #[error(transparent)]
    Tool(#[from] PackageError),
}

/// What `nft -j list ruleset` prints; an empty ruleset where there is no filter.
///
/// # Errors
/// See [`FilterError`].
pub fn listed() -> Result<String, FilterError> {
    let used = |path: &str| std::fs::read_to_string(path).is_ok_and(|names| !names.is_empty());
    if LEGACY.iter().any(|path| used(path)) {
        return Err(FilterError::Legacy);
    }
    if !NFT.iter().any(|path| Path::new(path).exists()) {
        let modules = std::fs::read_to_string(MODULES).unwrap_or_default();
        let loaded = modules.lines().any(|line| line.starts_with("nf_tables "));
        return match loaded || Path::new(NFT_BY_OTHERS).exists() {
            true => Err(FilterError::NoTool),
            false => Ok(NOTHING.to_owned()),
        };
    }
    let mut command = Command::new("nft");
    command.args(["--json", "list", "ruleset"]);
    Ok(output("nft", command)?)
}
