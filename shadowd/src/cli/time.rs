//! Moments as people write them.

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

/// A moment, ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

/// What [`moment`] understands, for help and errors.
pub const FORMS: &str = "\"2026-11-20 14:03\" or \"14:03\" (local time), \"2026-11-20T14:03:00Z\", \
                         \"10m ago\", \"now\", or @SECONDS since 1970";

/// Reads a moment; local times are those of the system's zone, or of `TZ`.
///
/// # Errors
/// What is allowed, in words.
pub fn moment(text: &str) -> Result<Moment, String> {
    parse(text.trim(), Timestamp::now(), &TimeZone::system())
        .ok_or_else(|| format!("a time is {FORMS}"))
}

/// A moment in local time, with its offset: `2026-11-20 14:03:00 +01:00`.
pub fn local(wall_ms: i64) -> String {
    shown(wall_ms, &TimeZone::system())
}

fn shown(wall_ms: i64, zone: &TimeZone) -> String {
    match Timestamp::from_millisecond(wall_ms) {
        Ok(at) => at
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S %:z")
            .to_string(),
        Err(_) => format!("@{}", wall_ms / 1_000),
    }
}

fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Moment> {
    let moment = |at: Timestamp| Some(Moment(at.as_millisecond()));
    if text == "now" {
        return moment(now);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return epoch(seconds);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return moment(at);
    }
    // A `Time` is also read from a mere hour, and from a text with a date.
    if text.contains(':')
        && !text.contains('-')
        && let Ok(time) = text.parse::<Time>()
    {
        // The last time that the clock showed it.
        let today = now.to_zoned(zone.clone()).date();
        let at = zone.to_timestamp(today.to_datetime(time)).ok()?;
        if at <= now {
            return moment(at);
        }
        let yesterday = today.yesterday().ok()?.to_datetime(time);
        return moment(zone.to_timestamp(yesterday).ok()?);
    }
    // When the clocks go back, the first of two; when they go forward, what the clock would have
    // shown (RFC 5545 section 3.3.5).
    if let Ok(local) = text.parse::<DateTime>() {
        return moment(zone.to_timestamp(local).ok()?);
    }
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    if let Ok(ago) = humantime::parse_duration(ago) {
        let ago = i64::try_from(ago.as_millis()).ok()?;
        return Some(Moment(now.as_millisecond().saturating_sub(ago)));
    }
    // Ten digits and more: a date within the last decades, in seconds or in milliseconds.
    (text.len() >= 10).then(|| epoch(text)).flatten()
}

fn epoch(text: &str) -> Option<Moment> {
    let number: f64 = text.parse().ok()?;
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let milliseconds = if text.len() >= 13 && !text.contains('.') {
        number
    } else {
        number * 1_000.0
    };
    (is_plain && milliseconds < 253_402_300_800_000.0).then_some(Moment(milliseconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 12:00:00 UTC.
    const NOON: i64 = 1_795_176_000;

    #[test]
    fn a_moment_is_read_as_people_write_it() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("the rule is legal");
        let now = Timestamp::from_second(NOON).expect("it is in range");
        let at = |text: &str| parse(text, now, &zone).map(|Moment(ms)| ms);
        for (text, seconds) in [
            ("now", NOON),
            ("10m ago", NOON - 600),
            ("10m", NOON - 600),
            ("2h 30min ago", NOON - 9_000),
            ("2026-11-20 12:03", NOON - 3_420),
            ("2026-11-20T12:03:10", NOON - 3_410),
            ("2026-11-20", NOON - 46_800),
            ("2026-11-20T12:03:00Z", NOON + 180),
            ("2026-11-20 12:03:00+05:00", NOON - 17_820),
            ("13:00", NOON),
            ("12:59:59", NOON - 1),
            ("13:30", NOON + 1_800 - 86_400),
            ("1795176000", NOON),
            ("@5", 5),
        ] {
            assert_eq!(at(text), Some(seconds * 1_000), "{text}");
        }
        assert_eq!(at("1795176000123"), Some(NOON * 1_000 + 123));
        // Summer time ends on 2026-10-25: 02:30 was twice, 2:30 CEST is the first.
        assert_eq!(at("2026-10-25 02:30"), Some(1_792_888_200_000));
        for bad in [
            "",
            "soon",
            "25:00",
            "2026-13-01",
            "12",
            "-5m",
            "@",
            "@x",
            "10m later",
            "1e12",
        ] {
            assert_eq!(at(bad), None, "{bad:?}");
        }
        assert_eq!(shown(NOON * 1_000, &zone), "2026-11-20 13:00:00 +01:00");
        assert_eq!(shown(i64::MAX, &zone), format!("@{}", i64::MAX / 1_000));
    }
}
