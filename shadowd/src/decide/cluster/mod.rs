//! Who owns a group: heartbeats and local facts in, actions out.
//!
//! One [`Group`] is one member's view of one group. It never touches an address, a unit or a
//! socket: it asks for that by [`Action`] and is told what came of it by [`Done`].

mod action;
mod definition;
mod echo;
mod flap;
mod group;
mod handover;
mod health;
mod lease;
mod member;
mod memory;
mod messages;
mod neighbours;
mod ownership;
mod pause;
mod policy;
mod rhythm;
mod silence;
mod status;
#[cfg(test)]
mod tests;
mod voter;
mod votes;
mod witness;

pub use action::{Action, Done, Record, Step};
pub use echo::Echo;
pub use group::{Group, Peer};
pub use handover::Refusal;
pub use witness::Witness;
