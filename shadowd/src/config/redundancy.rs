//! How many shadows a group wants, and how it gets them back, after validation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many shadows a group wants, and what is done when there are fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedundancySettings {
    /// How many ready shadows: as many as the group has other members, or fewer.
    pub shadows: u8,
    /// Members have so long to come back before something else is tried.
    pub rejoin_within: Duration,
    /// A spare is released when there were enough shadows without it for so long.
    pub release_after: Duration,
    /// When and how often a provider is asked; none: there is none.
    pub provider: Option<ProviderRules>,
}

impl RedundancySettings {
    /// As where nothing is written, for a group with so many other members.
    pub fn of(shadows: u8) -> Self {
        Self {
            shadows,
            rejoin_within: Duration::from_secs(120),
            release_after: Duration::from_secs(60),
            provider: None,
        }
    }
}

/// When and how often a provider is asked. Its command stands in
/// [`super::settings::Settings::providers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRules {
    /// One run of the command is killed after so long: 1 s to 1 h.
    pub deadline: Duration,
    /// A host that was created is heard within so long, or the attempt has failed.
    pub ready_within: Duration,
    /// Before the second attempt; doubled each time, up to 16 times as long.
    pub retry: Duration,
    /// So many for each spare.
    pub attempts: u32,
}

impl Default for ProviderRules {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(120),
            ready_within: Duration::from_secs(300),
            retry: Duration::from_secs(30),
            attempts: 5,
        }
    }
}
