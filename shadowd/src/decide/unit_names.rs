//! Control group path -> systemd unit (systemd.unit(5), src/basic/cgroup-util.c for the escape).

/// Units that hold processes, innermost first; a slice only counts when nothing else does.
const KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// The unit that the group at `path` belongs to: its innermost component that names one. A group
/// that a unit made below itself belongs to the unit. `None` for a path without a unit.
pub fn unit_of(path: &str) -> Option<String> {
    let innermost = |kinds: &[&str]| {
        let names = |part: &&str| {
            kinds
                .iter()
                .any(|kind| part.len() > kind.len() && part.ends_with(kind))
        };
        path.rsplit('/').find(names).map(unescape)
    };
    innermost(&KINDS).or_else(|| innermost(&[".slice"]))
}

/// systemd puts `_` before a name that the kernel's own files in a group could clash with.
fn unescape(name: &str) -> String {
    name.strip_prefix('_').unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_innermost_unit() {
        for (path, unit) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice/nginx.service/payload", Some("nginx.service")),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
            ),
            (
                "/user.slice/user-0.slice/session-1.scope",
                Some("session-1.scope"),
            ),
            ("/user.slice/user-0.slice", Some("user-0.slice")),
            ("/init.scope", Some("init.scope")),
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/system.slice/dev-sda1.swap", Some("dev-sda1.swap")),
            ("/", None),
            ("", None),
            ("/docker/0123", None),
            ("/.service", None),
        ] {
            assert_eq!(unit_of(path).as_deref(), unit, "{path}");
        }
    }
}
