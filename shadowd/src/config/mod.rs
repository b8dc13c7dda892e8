//! The configuration: [`file`] is the TOML as written, [`settings`] is what it means.
//!
//! Loading changes nothing and touches nothing but the file. What only the running host can tell
//! (does the interface exist, does systemd know the unit) is checked by `run` before it acts.

mod capture;
mod drill;
mod error;
pub mod file;
#[cfg(test)]
pub(crate) mod fuzz;
mod notify;
pub mod pattern;
mod policy;
mod profile;
mod redundancy;
mod repository;
pub mod secret;
pub mod settings;
pub mod several;
mod validate;

use std::path::Path;

pub use error::ConfigError;
use settings::Settings;

/// A longer file is refused: 1 MiB.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and validates the file at `path`.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_BYTES {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
            length,
            limit: MAX_BYTES,
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text, path)
}

/// Validates `text`; `path` is for messages only.
pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    let file = toml::from_str(text).map_err(|error| ConfigError::syntax(&error, text, path))?;
    validate::validate(file, text, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{HostId, UnitMode};

    fn sample() -> String {
        let id = HostId::from_bytes([7; 32]);
        format!(
            r#"[host]
name = "a"
listen = "192.0.2.1:7373"

[[peer]]
name = "b"
id = "{id}"
address = "192.0.2.2:7373"

[[group]]
name = "web"
members = ["a", "b"]
priority = 100
protection = "none"
heartbeat = "10ms"
suspect_after = "30ms"
interface = "eth0"
vips = ["192.0.2.10/24", "2001:db8::10/64"]

[[group.unit]]
name = "nginx.service"
mode = "warm"
"#
        )
    }

    fn refusal(old: &str, new: &str) -> String {
        let text = sample();
        assert!(text.contains(old), "the sample has {old}");
        match parse(&text.replacen(old, new, 1), Path::new("shadowd.toml")) {
            Ok(_) => panic!("{new} was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_sample_means_what_it_says() {
        let settings = parse(&sample(), Path::new("shadowd.toml")).expect("the sample is legal");
        let group = &settings.groups[0];
        assert_eq!(group.members.len(), 1, "the others, not this host");
        assert_eq!(group.suspect_after.as_millis(), 30);
        assert_eq!(group.units[0].mode, UnitMode::Warm);
        assert!(settings.capture.ebpf);
    }

    #[test]
    fn the_packaged_example_is_legal() {
        let text = include_str!("../../../packaging/shadowd.toml");
        let settings = parse(text, Path::new("shadowd.toml")).expect("the example is legal");
        assert_eq!(settings.peers[0].id, HostId::from_bytes([7; 32]));
        let group = &settings.groups[0];
        // The example shows these values, commented out, as the defaults.
        assert_eq!(group.suspect_after.as_millis(), 300);
        assert_eq!(group.join_wait.as_secs(), 3);
        assert_eq!(settings.host.state_dir, Path::new("/var/lib/shadowd"));
        assert_eq!(settings.host.socket, Path::new("/run/shadowd/shadowd.sock"));
    }

    #[test]
    fn a_refusal_names_file_line_key_value_and_range() {
        assert_eq!(
            refusal("heartbeat = \"10ms\"", "heartbeat = \"1ms\""),
            "shadowd.toml:15: group.heartbeat = \"1ms\": \
             a duration from 5ms to 10s, such as 250ms"
        );
        assert_eq!(
            refusal("priority = 100", "priority = 300"),
            "shadowd.toml:13: group.priority = 300: from 1 to 255"
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused_at_its_line() {
        for (old, new, line, key) in [
            (
                "suspect_after = \"30ms\"",
                "suspect_after = \"15ms\"",
                16,
                "group.suspect_after",
            ),
            (
                "members = [\"a\", \"b\"]",
                "members = [\"b\"]",
                12,
                "group.members",
            ),
            (
                "members = [\"a\", \"b\"]",
                "members = [\"a\", \"c\"]",
                12,
                "group.members",
            ),
            ("\"2001:db8::10/64\"", "\"192.0.2.10/32\"", 18, "group.vips"),
            ("192.0.2.10/24", "192.0.2.10", 18, "group.vips"),
            (
                "protection = \"none\"",
                "protection = \"hope\"",
                14,
                "group.protection",
            ),
            ("protection = \"none\"\n", "", 11, "group.protection"),
            (
                "interface = \"eth0\"",
                "interface = \"a/b\"",
                17,
                "group.interface",
            ),
            (
                "listen = \"192.0.2.1:7373\"",
                "listen = \"0.0.0.0:7373\"",
                3,
                "host.listen",
            ),
            (
                "address = \"192.0.2.2:7373\"",
                "address = \"192.0.2.1:7373\"",
                8,
                "peer.address",
            ),
            ("mode = \"warm\"", "mode = \"hot\"", 22, "group.unit.mode"),
            (
                "name = \"nginx.service\"",
                "name = \"nginx\"",
                21,
                "group.unit.name",
            ),
        ] {
            let refusal = refusal(old, new);
            let place = format!("shadowd.toml:{line}: {key} = ");
            assert!(refusal.starts_with(&place), "{new}: {refusal}");
        }
    }

    /// The sample with a lease from so many witnesses, and further lines in the group.
    fn leased(witnesses: u8, lines: &str) -> Result<settings::Settings, String> {
        let names: Vec<String> = (0..witnesses).map(|n| format!("\"w{n}\"")).collect();
        let quick = sample().replace("suspect_after = \"30ms\"", "suspect_after = \"20ms\"");
        let mut text = quick.replace(
            "protection = \"none\"",
            &format!(
                "protection = \"lease\"\nwitnesses = [{}]\n{lines}",
                names.join(", ")
            ),
        );
        for number in 0..witnesses {
            let id = crate::facts::HostId::from_bytes([100 + number; 32]);
            let address = 100 + number;
            text.push_str(&format!(
                "\n[[peer]]\nname = \"w{number}\"\nid = \"{id}\"\naddress = \"192.0.2.{address}:7373\"\n"
            ));
        }
        parse(&text, Path::new("x")).map_err(|error| error.to_string())
    }

    #[test]
    fn voters_are_odd_and_a_lease_outlasts_three_heartbeats() {
        for (witnesses, good) in [(0, false), (1, true), (2, false), (3, true), (4, false)] {
            let read = leased(witnesses, "");
            assert_eq!(read.is_ok(), good, "{witnesses} witnesses: {read:?}");
        }
        let refusal = leased(2, "").expect_err("four voters");
        assert!(refusal.contains("odd number of voters"), "{refusal}");
        let lease = |lines: &str| {
            let read = leased(1, lines);
            read.map(|settings| settings.groups[0].lease.as_millis())
        };
        assert_eq!(lease(""), Ok(30));
        assert_eq!(lease("lease = \"30ms\""), Ok(30));
        let refusal = lease("lease = \"29ms\"").expect_err("too short");
        assert!(refusal.contains("group.lease = \"29ms\""), "{refusal}");
        assert!(refusal.contains("from 30ms"), "{refusal}");
    }

    #[test]
    fn failback_and_the_flap_budget_are_read_and_bounded() {
        let read = |lines: &str| {
            let text = sample().replacen("priority = 100", lines, 1);
            let settings = parse(&text, Path::new("x")).map_err(|error| error.to_string())?;
            Ok::<_, String>(settings.groups[0].policy)
        };
        let default = settings::PolicySettings::default();
        assert_eq!(read("priority = 100"), Ok(default));
        assert_eq!(read("failback = \"never\""), Ok(default));
        let written = "failback = \"5m\"\nfailback_window = \"23:30-01:00\"\n\
                       flap = { half_life = \"1h\", suppress = 4000, reuse = 500 }";
        let policy = read(written).expect("it is legal");
        assert_eq!(policy.failback.map(|span| span.as_secs()), Some(300));
        let window = settings::DayWindow { from: 1410, to: 60 };
        assert_eq!(policy.failback_window, Some(window));
        assert_eq!((policy.flap.suppress, policy.flap.reuse), (4000, 500));
        for (bad, key) in [
            ("failback = \"soon\"", "group.failback ="),
            ("failback = \"0s\"", "group.failback ="),
            ("failback_window = \"02:00-04:00\"", "only with a failback"),
            (
                "failback = \"5m\"\nfailback_window = \"2-4\"",
                "two different times",
            ),
            (
                "failback = \"5m\"\nfailback_window = \"24:00-01:00\"",
                "two different",
            ),
            (
                "failback = \"5m\"\nfailback_window = \"02:00-02:00\"",
                "two different",
            ),
            ("flap = { suppress = 999 }", "group.flap.suppress = 999"),
            ("flap = { reuse = 2500 }", "less than suppress (2500)"),
            ("flap = { half_life = \"0s\" }", "group.flap.half_life"),
        ] {
            let refusal = read(bad).expect_err(bad);
            assert!(refusal.contains(key), "{bad}: {refusal}");
        }
    }

    #[test]
    fn metrics_stay_on_the_host_unless_allowed() {
        let read = |table: &str| {
            let text = format!("{}\n[metrics]\n{table}\n", sample());
            parse(&text, Path::new("x")).map_err(|error| error.to_string())
        };
        let metrics = |table: &str| read(table).expect("it is legal").metrics;
        assert_eq!(metrics(""), settings::MetricsSettings::default());
        for good in ["127.0.0.1:9464", "[::1]:9464"] {
            let listen = metrics(&format!("listen = \"{good}\"")).listen;
            assert_eq!(listen, good.parse().ok());
        }
        let open = metrics("listen = \"192.0.2.1:9464\"\nallow_remote = true");
        assert!(open.listen.is_some());
        let bounds = metrics("units = 10000\nremotes = 0");
        assert_eq!((bounds.units, bounds.remotes), (10_000, 0));
        for bad in [
            "listen = \"192.0.2.1:9464\"",
            "listen = \"192.0.2.1:9464\"\nallow_remote = false",
            "listen = \"192.0.2.1:7373\"\nallow_remote = true",
            "listen = \"0.0.0.0:9464\"\nallow_remote = true",
            "listen = \"localhost:9464\"",
            "units = 0",
            "units = 10001",
            "remotes = -1",
            "port = 9464",
        ] {
            let refusal = read(bad).expect_err(bad);
            assert!(refusal.contains("x:2"), "{bad}: {refusal}");
        }
    }

    #[test]
    fn the_history_is_bounded_as_written() {
        let with = |history: &str| {
            let text = format!("{}\n[history]\n{history}\n", sample());
            parse(&text, Path::new("shadowd.toml")).map(|settings| settings.history)
        };
        let default = with("").expect("all has defaults");
        assert!(default.record);
        assert_eq!(default.max_bytes, 256 << 20);
        assert_eq!(default.max_age.as_secs(), 7 * 86_400);
        assert_eq!(default.full_resolution.as_secs(), 7_200);
        let small = with("max_size = \"1 GiB\"\nmax_age = \"1h\"").expect("it is legal");
        assert_eq!(
            (small.max_bytes, small.full_resolution.as_secs()),
            (1 << 30, 3_600)
        );
        for bad in [
            "max_size = \"1MiB\"",
            "max_size = \"256\"",
            "max_size = \"256MB\"",
            "max_size = \"99999999999999999999TiB\"",
            "max_age = \"59min\"",
            "full_resolution = \"8days\"",
        ] {
            let error = with(bad).expect_err(bad).to_string();
            let key = bad.split(' ').next().unwrap_or_default();
            assert!(
                error.contains(&format!("shadowd.toml:25: history.{key} = ")),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_keys_and_broken_syntax_name_their_line() {
        assert!(refusal("priority = 100", "prioritty = 100").starts_with("shadowd.toml:13: "));
        assert!(refusal("[[group]]", "[[group]").starts_with("shadowd.toml:10: "));
    }

    fn capture(table: &str) -> Result<settings::CaptureSettings, String> {
        let text = format!("{}[capture]\n{table}\n", sample());
        parse(&text, Path::new("shadowd.toml"))
            .map(|settings| settings.capture)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn capture_means_what_it_says() {
        let capture = capture(
            r#"cost = "always"
probes_off = ["cgroups", "udp"]
paths = ["/etc", "/srv/app"]
units = { exclude = ["user@*.service"] }
ports = { include = [443] }
networks = { exclude = ["192.0.2.0/24", "2001:db8::/32"] }
redact = { commands = ["vault*"], paths = ["/srv/secret/*"], with = "hash" }
limits = { syscalls = 4096, events_bytes = 8192, flows = 100 }"#,
        )
        .expect("it is legal");
        assert_eq!(capture.cost, settings::CostMeasurement::Always);
        assert_eq!(capture.probes_off.len(), 2);
        assert_eq!(capture.paths, [Path::new("/etc"), Path::new("/srv/app")]);
        assert!(capture.filter.units.exclude[0].matches("user@1.service"));
        assert_eq!(capture.filter.ports.include, [443]);
        assert_eq!(capture.filter.networks.exclude.len(), 2);
        assert_eq!(capture.redact.with, settings::Redaction::Hash);
        let limits = capture.limits;
        assert_eq!((limits.syscalls, limits.flows), (Some(4096), Some(100)));
        assert_eq!((limits.events_bytes, limits.processes), (Some(8192), None));
        assert_eq!(
            parse(&sample(), Path::new("shadowd.toml"))
                .expect("the sample is legal")
                .capture,
            settings::CaptureSettings::default()
        );
    }

    #[test]
    fn what_capture_cannot_use_is_refused_with_its_line() {
        let long = format!("paths = [{}]", "\"/x\",".repeat(2));
        for (table, key, allowed) in [
            ("cost = \"never\"", "capture.cost", "\"always\""),
            (
                "probes_off = [\"gpu\"]",
                "capture.probes_off",
                "syscalls, tcp",
            ),
            ("paths = [\"etc\"]", "capture.paths", "absolute"),
            ("paths = [\"/etc/\"]", "capture.paths", "absolute"),
            ("paths = [\"/etc/../srv\"]", "capture.paths", "absolute"),
            ("paths = [\"/etc//x\"]", "capture.paths", "absolute"),
            (long.as_str(), "capture.paths", "once"),
            (
                "units = { exclude = [\"\"] }",
                "capture.units.exclude",
                "pattern",
            ),
            (
                "ports = { include = [0] }",
                "capture.ports.include",
                "1 to 65535",
            ),
            (
                "networks = { include = [\"192.0.2.1/24\"] }",
                "capture.networks.include",
                "192.0.2.0/24",
            ),
            (
                "redact = { with = \"rot13\" }",
                "capture.redact.with",
                "\"hash\"",
            ),
            (
                "limits = { events_bytes = 5000 }",
                "capture.limits.events_bytes",
                "power of two",
            ),
            (
                "limits = { flows = 0 }",
                "capture.limits.flows",
                "from 16 to 1048576",
            ),
        ] {
            let refusal = capture(table).expect_err(table);
            let place = format!("shadowd.toml:24: {key} = ");
            assert!(refusal.starts_with(&place), "{table}: {refusal}");
            assert!(refusal.contains(allowed), "{table}: {refusal}");
        }
        let unknown = capture("units = { exclud = [] }").expect_err("a key that is not there");
        assert!(unknown.starts_with("shadowd.toml:24: "), "{unknown}");
    }
}
