//! Every decision of a simulated daemon comes out of its journal once more, whatever happened.

use shadowd_tests::sim::many;

#[test]
fn what_daemons_did_comes_out_of_their_journals_once_more() {
    let sum = many::run(
        0,
        120,
        |plan| plan.replays = true,
        |line| println!("{line}"),
    );
    assert_eq!(sum.broken, 0, "{}", sum.violations.join("\n"));
    assert!(sum.claims > sum.runs);
}
