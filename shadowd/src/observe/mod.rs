//! observe

pub mod carrier;
pub mod units;
