//! Build and test commands.

pub mod demo;
pub mod lab;
pub mod probe;
