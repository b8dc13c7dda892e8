//! What a host's packet filter does with connections to a port.

use serde::{Deserialize, Serialize};

/// What becomes of a new connection from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passage {
    /// It is let in.
    Open,
    /// It is dropped or refused.
    Closed {
        /// By which chain, in words.
        by: String,
        /// A rule at the beginning of this chain would let it in; none where another program keeps the
        /// rules.
        chain: Option<FilterChain>,
        /// What an operator would type.
        remedy: String,
    },
    /// It depends on what is not known here: on what, in words.
    Unclear(String),
}

/// A chain of nftables, by the names that nft(8) has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterChain {
    /// `inet`, `ip` or `ip6`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl FilterChain {
    /// The three as arguments of nft(8), which reads its arguments as one line; none when a name could
    /// be read as something else.
    pub fn words(&self) -> Option<[&str; 3]> {
        let known = matches!(self.family.as_str(), "inet" | "ip" | "ip6");
        let name = |text: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(legal)
        };
        let sound = known && name(&self.table) && name(&self.chain);
        sound.then_some([&self.family, &self.table, &self.chain])
    }
}
