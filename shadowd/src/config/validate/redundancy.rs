//! Spares, and how a group gets its shadows back.

use std::time::Duration;

use toml::Spanned;

use super::{Checked, Source};
use crate::config::file;
use crate::config::notify::CommandSettings;
use crate::config::redundancy::{ProviderRules, RedundancySettings};
use crate::config::settings::{HostSettings, PeerSettings};
use crate::facts::Name;

const MAX_SPARES: usize = 4;
const ATTEMPTS_MAX: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

impl Source<'_> {
    /// Whether this host is a spare of the group, and the others that are.
    pub(super) fn spares(
        &self,
        group: &file::Group,
        host: &HostSettings,
        peers: &[PeerSettings],
    ) -> Checked<(bool, Vec<Name>)> {
        let Some(written) = &group.spares else {
            return Ok((false, Vec::new()));
        };
        let (own, others) = self.hosts("group.spares", written.get_ref(), host, peers)?;
        let witnesses = group.witnesses.iter().flat_map(|list| list.get_ref());
        let voters: Vec<&String> = group
            .members
            .get_ref()
            .iter()
            .chain(witnesses)
            .map(Spanned::get_ref)
            .collect();
        let votes = |name: &&Spanned<String>| voters.contains(&name.get_ref());
        if let Some(both) = written.get_ref().iter().find(votes) {
            let allowed = "a host that is neither a member nor a witness: a spare does not vote";
            return Err(self.refuse("group.spares", both, allowed));
        }
        if others.len() + usize::from(own) > MAX_SPARES {
            return Err(self.refuse("group.spares", written, "at most 4 spares"));
        }
        Ok((own, others))
    }

    /// How many shadows the group wants; `others` is how many members it has but for the owner.
    pub(super) fn redundancy(
        &self,
        written: &file::Group,
        others: usize,
    ) -> Checked<RedundancySettings> {
        let table = &written.redundancy;
        let most = u8::try_from(others).unwrap_or(u8::MAX).max(1);
        let default = RedundancySettings::of(most);
        let shadows = match &table.shadows {
            None => default.shadows,
            Some(shadows) => u8::try_from(*shadows.get_ref())
                .ok()
                .filter(|shadows| (1..=most).contains(shadows))
                .ok_or_else(|| {
                    let allowed = format!("from 1 to {most}: the members but for the active one");
                    self.refuse("group.redundancy.shadows", shadows, allowed)
                })?,
        };
        let span = |key, value: &Option<Spanned<String>>, default| {
            self.duration(key, value.as_ref(), default, SECOND..=DAY)
        };
        let provider = table.provider.as_ref();
        Ok(RedundancySettings {
            shadows,
            rejoin_within: span(
                "group.redundancy.rejoin_within",
                &table.rejoin_within,
                default.rejoin_within,
            )?,
            release_after: span(
                "group.redundancy.release_after",
                &table.release_after,
                default.release_after,
            )?,
            provider: provider.map(|it| self.rules(written, it)).transpose()?,
        })
    }

    fn rules(&self, group: &file::Group, written: &file::Provider) -> Checked<ProviderRules> {
        let default = ProviderRules::default();
        let spares = group.spares.as_ref();
        if spares.is_none_or(|spares| spares.get_ref().is_empty()) {
            let allowed = "only in a group with spares: it creates hosts that are configured \
                           already, such as spares = [\"c\"]";
            return Err(self.refuse(
                "group.redundancy.provider.command",
                &written.command,
                allowed,
            ));
        }
        let span = |key, value: &Option<Spanned<String>>, default, longest| {
            self.duration(key, value.as_ref(), default, SECOND..=longest)
        };
        let attempts = match &written.attempts {
            None => default.attempts,
            Some(attempts) => u32::try_from(*attempts.get_ref())
                .ok()
                .filter(|attempts| (1..=ATTEMPTS_MAX).contains(attempts))
                .ok_or_else(|| {
                    let allowed = "from 1 to 100";
                    self.refuse("group.redundancy.provider.attempts", attempts, allowed)
                })?,
        };
        Ok(ProviderRules {
            deadline: span(
                "group.redundancy.provider.deadline",
                &written.deadline,
                default.deadline,
                HOUR,
            )?,
            ready_within: span(
                "group.redundancy.provider.ready_within",
                &written.ready_within,
                default.ready_within,
                DAY,
            )?,
            retry: span(
                "group.redundancy.provider.retry",
                &written.retry,
                default.retry,
                HOUR,
            )?,
            attempts,
        })
    }

    /// The command of the group's provider, if it has one.
    pub(super) fn provider(
        &self,
        group: &file::Group,
        rules: Option<ProviderRules>,
    ) -> Checked<Option<CommandSettings>> {
        let (Some(written), Some(rules)) = (&group.redundancy.provider, rules) else {
            return Ok(None);
        };
        let key = "group.redundancy.provider.command";
        let user = written.user.as_ref();
        Ok(Some(CommandSettings {
            command: self.command(key, &written.command)?,
            user: user
                .map(|user| self.user("group.redundancy.provider.user", user))
                .transpose()?,
            deadline: rules.deadline,
        }))
    }
}
