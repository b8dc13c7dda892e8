//! Who owns a group: heartbeats and local facts in, actions out.
//!
//! One [`Group`] is one member's view of one group. It never touches an address, a unit or a
//! socket: it asks for that by [`Action`] and is told what came of it by [`Done`].

mod action;
mod answers;
mod ballots;
mod definition;
mod echo;
mod explain;
mod flap;
mod group;
mod handover;
mod health;
mod journal;
mod lease;
mod lend;
mod loan;
mod member;
mod memory;
mod messages;
mod neighbours;
mod ownership;
mod pause;
mod policy;
mod redundancy;
mod refused;
mod replay;
mod rhythm;
mod silence;
mod simulate;
mod spares;
mod status;
mod stretch;
mod survivors;
#[cfg(test)]
mod tests;
mod voter;
mod votes;
mod witness;

pub use action::{Action, Done, Record, Step, Wish};
pub use echo::Echo;
pub use explain::{Explanation, Line, explain};
pub use group::{Group, Peer};
pub use handover::Refusal;
pub use journal::{Entry, Input, Journaled, Window};
pub use replay::{Difference, Replayed, UnreadableWindow, replay};
pub use simulate::{Prospect, Reason, Takeover, UnknownHost, simulate};
pub use witness::Witness;
