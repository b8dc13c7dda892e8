//! `shadowctl map`: its forms, and the file it writes.

use std::fs;

use serde_json::Value;

use super::daemon::Daemon;
use super::shadowctl::{code, command, parsed, shown, words};

#[test]
fn the_map_has_four_forms_and_goes_into_a_file() {
    let daemon = Daemon::start();
    let tree = shown(&daemon, "map");
    assert!(tree.contains("<-  192.0.2.7  tcp 80"), "{tree}");
    assert_eq!(
        parsed::<Value>(&daemon, "map")["edges"][0]["to"],
        "unit:nginx.service"
    );
    let dot = shown(&daemon, "map --dot");
    assert!(dot.starts_with("digraph shadowd {") && dot.ends_with("}\n"));
    let svg = shown(&daemon, "map --svg");
    assert!(svg.contains("Dependencies of a<") && svg.ends_with("</svg>\n"));
    let file = daemon.scratch.0.join("map.svg");
    let arguments = format!("map --svg --output {}", file.display());
    assert_eq!(shown(&daemon, &arguments), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), svg);
    let nowhere = format!("map --output {}/no/map", daemon.scratch.0.display());
    let output = command(&daemon.socket, &nowhere).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        words(&output).contains("cannot write"),
        "{}",
        words(&output)
    );
}
