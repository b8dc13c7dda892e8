//! observe

pub mod carrier;
