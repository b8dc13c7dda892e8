//! End-to-end tests of shadowd: the simulated cluster lives here, the tests in `tests/`.

pub mod sim;
