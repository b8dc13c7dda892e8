//! Numbers, times and foreign text as people read them.

use std::time::{Duration, SystemTime};

/// Bytes in binary units (IEC 80000-13), three digits at most: `0 B`, `1.5 KiB`, `312 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would print as 1000: the next unit is shorter.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A span by its two largest units: `850 ns`, `1.20 ms`, `3.4 s`, `2m 05s`, `3h 07m`, `2d 04h`.
pub(super) fn span(span: Duration) -> String {
    let nanos = span.as_nanos();
    let seconds = span.as_secs();
    match seconds {
        0 if nanos < 1_000 => format!("{nanos} ns"),
        0 if nanos < 1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        0 => format!("{:.2} ms", nanos as f64 / 1e6),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A count with its thousands apart: `1,234,567`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of one processor in percent: `12.3 %`.
pub(super) fn share(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Milliseconds since the Unix epoch, in UTC (RFC 3339).
pub(super) fn wall(wall_ms: u64) -> String {
    // The last millisecond of the year 9999, which RFC 3339 can still write.
    const LAST: u64 = 253_402_300_799_999;
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms.min(LAST));
    humantime::format_rfc3339_millis(at).to_string()
}

/// `yes` or `no`.
pub(super) const fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// `text` with every control character replaced: names come from processes and peers, and must not
/// steer the terminal.
pub(super) fn clean(text: &str) -> String {
    let steers = |letter: char| {
        // Direction overrides reorder what surrounds them (Unicode TR 9).
        letter.is_control() || matches!(letter, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|letter| if steers(letter) { '\u{FFFD}' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (312 * 1024 * 1024, "312 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (value, text) in table {
            assert_eq!(bytes(value), text);
        }
        assert_eq!([count(0), count(999), count(1000)], ["0", "999", "1,000"]);
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(share(0.1234), "12.3 %");
    }

    #[test]
    fn spans_and_times_read_well() {
        let table = [
            (850, "850 ns"),
            (1_500, "1.5 us"),
            (1_200_000, "1.20 ms"),
            (3_400_000_000, "3.4 s"),
            (125_000_000_000, "2m 05s"),
            (11_220_000_000_000, "3h 07m"),
            (187_200_000_000_000, "2d 04h"),
        ];
        for (nanos, text) in table {
            assert_eq!(span(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(wall(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert!(wall(u64::MAX).starts_with("9999-"));
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\n\u{9b}c\u{202e}é"),
            "a\u{FFFD}[2Jb\u{FFFD}\u{FFFD}c\u{FFFD}é"
        );
    }
}
