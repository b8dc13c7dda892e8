//! Replays of what simulated daemons did, through the very bytes that a store would keep.

use shadowd::decide::cluster::{Journaled, Window, replay};
use shadowd::facts::{BootTime, Decision, EventKind};

use super::check::Violation;
use super::world::World;

/// Whether what a daemon did since its journal begins comes out of it once more.
pub fn replays(core: &mut Journaled) -> Result<(), String> {
    // What a daemon that died wanted done was not carried out, but it was wanted.
    while core.poll_action().is_some() {}
    let decision = Decision {
        number: 0,
        at: BootTime::default(),
        wall_ms: 0,
        kind: EventKind::RoleChanged,
        epoch: 0,
        first_epoch: 0,
        last_epoch: 0,
        cause: None,
    };
    let window = core.window(decision.clone());
    let bytes = window.to_bytes().map_err(|error| error.to_string())?;
    let window = Window::from_bytes(decision, &bytes).map_err(|error| error.to_string())?;
    let replayed = replay(&window).map_err(|error| error.to_string())?;
    match replayed.difference {
        None => Ok(()),
        Some(difference) => Err(format!("{difference:?}")),
    }
}

impl World {
    /// What every daemon of the run did comes out of its journal once more.
    pub(super) fn replay_all(&mut self) -> Result<(), Violation> {
        for host in &mut self.hosts {
            host.replay();
            if let Some(what) = host.unlike.take() {
                return Err(Violation { at: self.now, what });
            }
        }
        Ok(())
    }
}
