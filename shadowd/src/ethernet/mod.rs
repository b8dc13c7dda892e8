//! Ethernet, as far as neighbours of a link tell each other who has an address: ARP and neighbour
//! discovery as bytes.
//!
//! Two rooms need it: `act` announces, `observe` listens and asks. It knows neither groups nor
//! epochs, and decides nothing.

pub mod frames;

pub use frames::Mac;
