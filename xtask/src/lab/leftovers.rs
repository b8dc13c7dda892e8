//! Looks for what a lab left on the machine: nothing, if all is well.

use std::fs;
use std::path::Path;

use super::state::State;

/// Names every namespace, mount, process, control group, directory and pinned object of the lab
/// that is still there.
pub fn leftovers(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    for namespace in state.namespaces() {
        if Path::new("/run/netns").join(namespace).exists() {
            found.push(format!("network namespace {namespace}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = state.directory.to_string_lossy();
    let cgroup = format!("shadowd-lab-{}", state.id);
    let name = format!("shadowd-{}-", state.id);
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        if mount.starts_with(&*directory) || mount.contains(&cgroup) || mount.contains(&name) {
            found.push(format!("mount {mount}"));
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // A zombie has ended; its parent, which is none of ours, has not looked yet.
        let ended = stat
            .rsplit_once(") ")
            .is_none_or(|(_, state)| state.starts_with(['Z', 'X']));
        if !ended && (groups.contains(&cgroup) || line.contains(&name)) {
            found.push(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    for path in [
        Some(&state.directory),
        Some(&state.cgroup),
        state.cpu_cgroup.as_ref(),
    ] {
        if let Some(path) = path.filter(|path| path.exists()) {
            found.push(format!("directory {}", path.display()));
        }
    }
    for entry in fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("shadowd") {
            found.push(format!("pinned object {}", entry.path().display()));
        }
    }
    found
}
