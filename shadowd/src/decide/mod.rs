//! decide

pub mod aggregate;
mod unit_names;
