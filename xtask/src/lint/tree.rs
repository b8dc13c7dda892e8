//! Checks that docs/ARCHITECTURE.md and the tree of folders say the same.

use std::collections::BTreeSet;

use super::Finding;

/// The page with the code map.
pub const PAGE: &str = "docs/ARCHITECTURE.md";

/// Compares the code map with the paths of all files.
pub fn check(page: &str, files: &[String]) -> Vec<Finding> {
    let mapped: BTreeSet<String> = code_map(page)
        .into_iter()
        .map(|(_, folder)| folder)
        .collect();
    let mut findings = Vec::new();
    if mapped.is_empty() {
        findings.push(finding(
            0,
            "has no code map: a table whose first column is a folder".to_owned(),
        ));
    }
    for (line, folder) in code_map(page) {
        let inside = format!("{folder}/");
        if !files.iter().any(|file| file.starts_with(&inside)) {
            findings.push(finding(
                line,
                format!("names `{folder}`, which is not in the tree"),
            ));
        }
    }
    for folder in rooms(files).union(&packages(files)) {
        let covered = mapped.contains(folder)
            || mapped
                .iter()
                .any(|entry| entry.starts_with(&format!("{folder}/")));
        if !covered {
            findings.push(finding(0, format!("does not name `{folder}`")));
        }
    }
    findings
}

fn finding(line: usize, what: String) -> Finding {
    Finding {
        path: PAGE.to_owned(),
        line,
        what,
        is_warning: false,
    }
}

/// Rows such as "| `shadowd/src/act` | what it does | ...", with their line numbers.
fn code_map(page: &str) -> Vec<(usize, String)> {
    let rows = page.lines().enumerate().filter_map(|(number, line)| {
        let cell = line.strip_prefix('|')?.split('|').next()?.trim();
        let folder = cell.strip_prefix('`')?.strip_suffix('`')?;
        Some((number + 1, folder.trim_end_matches('/').to_owned()))
    });
    rows.collect()
}

/// Folders directly under shadowd/src; `bin` holds only the two entry points.
fn rooms(files: &[String]) -> BTreeSet<String> {
    let inside = files
        .iter()
        .filter_map(|file| file.strip_prefix("shadowd/src/"));
    inside
        .filter_map(|file| file.split_once('/'))
        .filter(|(room, _)| *room != "bin")
        .map(|(room, _)| format!("shadowd/src/{room}"))
        .collect()
}

/// Folders of the workspace's packages.
fn packages(files: &[String]) -> BTreeSet<String> {
    let manifests = files
        .iter()
        .filter_map(|file| file.strip_suffix("/Cargo.toml"));
    manifests.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
| folder | what |
|---|---|
| `shadowd/src/act` | acts |
| `xtask` | builds |
";

    fn check_files(files: &[&str]) -> Vec<String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        check(MAP, &files)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    const TREE: [&str; 5] = [
        "shadowd/Cargo.toml",
        "shadowd/src/act/mod.rs",
        "shadowd/src/bin/shadowd.rs",
        "shadowd/src/lib.rs",
        "xtask/Cargo.toml",
    ];

    #[test]
    fn the_same_tree_is_fine() {
        assert_eq!(check_files(&TREE), Vec::<String>::new());
    }

    #[test]
    fn a_folder_that_is_gone_is_found() {
        assert_eq!(
            check_files(&TREE[..4]),
            ["names `xtask`, which is not in the tree"]
        );
    }

    #[test]
    fn a_room_or_package_without_a_row_is_found() {
        let more = [&TREE[..], &["shadowd/src/attic/mod.rs", "extra/Cargo.toml"]].concat();
        assert_eq!(
            check_files(&more),
            ["does not name `extra`", "does not name `shadowd/src/attic`"]
        );
    }

    #[test]
    fn a_page_without_a_map_is_found() {
        assert!(
            check("# Architecture\n", &[])
                .iter()
                .any(|one| one.what.contains("no code map"))
        );
    }
}
