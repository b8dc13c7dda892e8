//! The query tool.
fn main() {}
