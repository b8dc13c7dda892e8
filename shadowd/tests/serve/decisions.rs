//! Explain, replay and simulate, from the command line and over the socket.

use shadowd::facts::Name;
use shadowd::serve::protocol::{Code, CoreNow, Decisions, RecordedDecision, Refusal};

pub fn list(group: &Name) -> Result<Decisions, Refusal> {
    Err(unknown(group))
}

pub fn one(group: &Name, _: u64) -> Result<RecordedDecision, Refusal> {
    Err(unknown(group))
}

pub fn core(group: &Name) -> Result<CoreNow, Refusal> {
    Err(unknown(group))
}

fn unknown(group: &Name) -> Refusal {
    Refusal::new(Code::UnknownGroup, format!("no group {group}"), "")
}
