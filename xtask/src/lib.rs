//! Build and test commands of shadowd, as a library so that the tests can use the lab.
//!
//! Builds on a bare machine: nothing here needs a system library, because `setup` lives here too.

pub mod bench;
pub mod build;
pub mod command;
pub mod demo;
pub mod fuzz;
pub mod lab;
pub mod lint;
pub mod probe;
pub mod prove;
pub mod random;
pub mod setup;
pub mod sim;
pub mod test;
