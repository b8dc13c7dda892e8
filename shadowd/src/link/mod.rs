//! How two hosts talk: a pinned TLS stream for what is bulky, sealed datagrams for what is urgent.
//!
//! [`stream`] keeps one TLS 1.3 connection per peer; each handshake puts a pair of datagram keys
//! into the [`keyring`], and [`datagrams`] seals and opens with whatever keys are there. So a
//! stream that stalls, closes or is made anew never silences the heartbeats. A message that does
//! not authenticate is counted and changes nothing. The room decides nothing: what a datagram
//! means is for `decide`.

mod admission;
mod backoff;
mod codec;
pub mod datagrams;
mod dial;
mod frame;
pub mod identity;
pub mod keyring;
pub mod post;
mod refusals;
mod replay;
mod seal;
mod session;
pub mod signature;
mod socket;
pub mod stream;
mod tls;

pub use datagrams::{Datagrams, Heard};
pub use identity::{Identity, IdentityError};
pub use keyring::{Arrival, Keyring};
pub use post::{Letter, Post};
pub use stream::{Listener, StreamError};

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
