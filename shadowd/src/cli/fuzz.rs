//! What people type, and what is shown of what others wrote, for the fuzzer.

/// A time, and text on its way to a terminal.
pub(crate) fn time(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = super::time::moment(&text);
    let shown = super::human::clean(&text);
    assert!(
        !shown.chars().any(|one| one == '\u{1b}' || one == '\u{7}'),
        "{shown:?}"
    );
}

/// The forms of a time, and an escape sequence.
pub(crate) fn times() -> Vec<Vec<u8>> {
    let texts = [
        "10min ago",
        "2026-11-20 14:03:00 +01:00",
        "14:03",
        "@1790000000",
        "yesterday 10:00",
        "\u{1b}[31mred\u{7}",
    ];
    texts.map(Into::into).into()
}
