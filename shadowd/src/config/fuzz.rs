//! The configuration, for the fuzzer: people write it.

use std::path::Path;

/// The file as it lies there. What is refused must say so in words.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = super::parse(text, Path::new("shadowd.toml")) {
        assert!(!error.to_string().is_empty());
    }
}

/// The example that comes with the package, and one with most tables.
pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let example = include_str!("../../../packaging/shadowd.toml");
    // What the example only shows stands behind `# `.
    let shown: String = example
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| is_toml(rest))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let id = "abc".repeat(18);
    let small = format!(
        "[host]\nname = \"a\"\nlisten = \"192.0.2.1:7373\"\n[[peer]]\nname = \"b\"\nid = \"{id}\"\n\
         address = \"192.0.2.2:7373\"\n[[group]]\nname = \"web\"\nmembers = [\"a\", \"b\"]\n\
         priority = 100\nprotection = \"none\"\nheartbeat = \"10ms\"\nsuspect_after = \"30ms\"\n\
         interface = \"eth0\"\nvips = [\"192.0.2.10/24\", \"2001:db8::10/64\"]\n\
         [[group.unit]]\nname = \"nginx.service\"\nmode = \"warm\"\n"
    );
    vec![example.into(), shown.into_bytes(), small.into_bytes()]
}

fn is_toml(line: &str) -> bool {
    line.starts_with('[') || line.contains(" = ")
}
