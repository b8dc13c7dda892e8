//! Words that stand in more than one place: names, identities, addresses, patterns, topics.

use crate::config::pattern;
use crate::decide::unit_names;
use crate::facts::{HostId, Name, Topic, Vip};

/// Reads `bytes` as each of them; what reads must show and read back the same.
pub(super) fn decode(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    if let Ok(id) = text.parse::<HostId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(vip) = text.parse::<Vip>() {
        assert_eq!(vip.to_string().parse(), Ok(vip));
    }
    let _ = text.parse::<Topic>();
    let _ = text.parse::<pattern::Network>();
    if let Ok(glob) = text.parse::<pattern::Glob>() {
        let _ = glob.matches(&text);
    }
    let _ = unit_names::unit_of(&text);
}

/// One of each.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "web-1",
        "192.0.2.10/24",
        "2001:db8::10/64",
        "::ffff:192.0.2.1/0",
        "nginx*.s?rvice",
        "***a*?*b***",
        "unit_died",
        "/system.slice/system-getty.slice/getty@tty1.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope",
    ];
    let mut seeds: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push(HostId::from_bytes([9; 32]).to_string().into_bytes());
    seeds
}
