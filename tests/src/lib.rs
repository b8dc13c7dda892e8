//! End-to-end tests of shadowd: the simulated cluster and the load that knows what it did live
//! here, the tests in `tests/` and in the program `kernel-check`.

pub mod load;
pub mod series;
pub mod sim;
