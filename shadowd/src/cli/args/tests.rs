//! The command line is whole, teaches, and refuses what is out of range.

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent_and_every_command_has_an_example() {
    Arguments::command().debug_assert();
    let leaves = |command: &clap::Command| !command.has_subcommands();
    for command in Arguments::command()
        .get_subcommands()
        .filter(|command| leaves(command))
    {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(after.contains("Example"), "{}", command.get_name());
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
    for good in [
        "shadowctl events --limit 10000",
        "shadowctl failover maintenance --all on",
        "shadowctl failover maintenance web off",
        "shadowctl failover freeze web --for 30m",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for bad in [
        "shadowctl events --limit 0",
        "shadowctl events --limit 10001",
        "shadowctl top --limit 0",
        "shadowctl top --watch 0",
        "shadowctl flows --remote nowhere",
        "shadowctl flows --port 0",
        "shadowctl flows --port 65536",
        "shadowctl flows --proto icmp",
        "shadowctl syscalls --pid 0",
        "shadowctl map --dot --svg",
        "shadowctl map --json --svg",
        "shadowctl map --nodes 0",
        "shadowctl flows --until 14:00",
        "shadowctl top --at soon",
        "shadowctl units --at now --watch 1",
        "shadowctl replay --speed 0",
        "shadowctl failover handover a/b",
        "shadowctl failover maintenance on",
        "shadowctl failover maintenance web",
        "shadowctl failover maintenance web on --all",
        "shadowctl failover maintenance web on --for 31days",
        "shadowctl failover freeze web --for 0s",
        "shadowctl",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
