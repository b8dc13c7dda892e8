//! Ethernet, as far as neighbours of a link tell each other who has an address: ARP and neighbour
//! discovery as bytes, and the packet socket that carries them.
//!
//! Two rooms need it: `act` announces, `observe` listens and asks. It knows neither groups nor
//! epochs, and decides nothing.

pub mod frames;
pub mod socket;
pub mod statement;

/// An Ethernet address.
pub type Mac = [u8; 6];
