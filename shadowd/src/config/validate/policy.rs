//! What bounds automatic failover: failback and the flap budget.

use std::time::Duration;

use toml::Spanned;

use super::{Checked, Source};
use crate::config::file;
use crate::config::settings::{DAY_MINUTES, DayWindow, FlapSettings, PolicySettings};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What one failover adds.
const SUPPRESS_MIN: u32 = 1_000;
const SUPPRESS_MAX: u32 = 100_000;
const REUSE_MIN: u32 = 100;

impl Source<'_> {
    /// What bounds automatic failover of one group.
    pub(super) fn policy(&self, group: &file::Group) -> Checked<PolicySettings> {
        let failback = self.failback(group.failback.as_ref())?;
        if let (Some(written), None) = (&group.failback_window, failback) {
            let allowed = "only with a failback, such as failback = \"5m\"";
            return Err(self.refuse("group.failback_window", written, allowed));
        }
        let window = group.failback_window.as_ref();
        Ok(PolicySettings {
            failback,
            failback_window: window
                .map(|written| self.window("group.failback_window", written))
                .transpose()?,
            flap: self.flap(&group.flap)?,
        })
    }

    fn failback(&self, written: Option<&Spanned<String>>) -> Checked<Option<Duration>> {
        let Some(written) = written.filter(|written| written.get_ref() != "never") else {
            return Ok(None);
        };
        let span = humantime::parse_duration(written.get_ref());
        let span = span.ok().filter(|span| (SECOND..=DAY).contains(span));
        let allowed = "\"never\", or for how long a member with a better priority has to be ready: \
                       a duration from 1s to 24h, such as 5m";
        let span = span.ok_or_else(|| self.refuse("group.failback", written, allowed))?;
        Ok(Some(span))
    }

    /// A part of each day.
    pub(super) fn window(
        &self,
        key: &'static str,
        written: &Spanned<String>,
    ) -> Checked<DayWindow> {
        let window = written.get_ref().split_once('-').and_then(|(from, to)| {
            let (from, to) = (minute(from.trim())?, minute(to.trim())?);
            (from != to).then_some(DayWindow { from, to })
        });
        let allowed = "two different times of the day, local time, such as \"02:00-04:00\"";
        window.ok_or_else(|| self.refuse(key, written, allowed))
    }

    fn flap(&self, flap: &file::Flap) -> Checked<FlapSettings> {
        let default = FlapSettings::default();
        let half_life = self.duration(
            "group.flap.half_life",
            flap.half_life.as_ref(),
            default.half_life,
            SECOND..=DAY,
        )?;
        let number = |written: &Spanned<i64>| u32::try_from(*written.get_ref()).ok();
        let suppress = match &flap.suppress {
            None => default.suppress,
            Some(written) => number(written)
                .filter(|value| *value == 0 || (SUPPRESS_MIN..=SUPPRESS_MAX).contains(value))
                .ok_or_else(|| {
                    let allowed = "0 (never hold back), or from 1000, which one failover adds, to \
                                   100000";
                    self.refuse("group.flap.suppress", written, allowed)
                })?,
        };
        let most = if suppress == 0 {
            SUPPRESS_MAX
        } else {
            suppress
        };
        let reuse = match &flap.reuse {
            None => default.reuse.min(most / 2),
            Some(written) => number(written)
                .filter(|value| (REUSE_MIN..most).contains(value))
                .ok_or_else(|| {
                    let allowed = format!("from 100, and less than suppress ({most})");
                    self.refuse("group.flap.reuse", written, allowed)
                })?,
        };
        Ok(FlapSettings {
            half_life,
            suppress,
            reuse,
        })
    }
}

/// The minute of the day of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60)
        .then_some(hours * 60 + minutes)
        .filter(|minute| *minute < DAY_MINUTES)
}
