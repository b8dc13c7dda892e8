//! The real socket with the real `shadowctl` against it; only the daemon behind the socket is made
//! of fixed facts.

mod daemon;
mod shadowctl;
mod socket;
