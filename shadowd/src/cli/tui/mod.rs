//! `shadowctl top` on a terminal: a view that lives until it is left.
//!
//! [`state`] decides what to show, `draw` puts it on cells, this file owns the terminal, the keys
//! and the questions. The terminal is given back as it was on every way out: a key, a signal, an
//! error, a panic.

mod draw;
mod state;
mod tables;
mod value;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Failure;
use super::client::{CallError, Client};
use crate::facts::{Observation, ProbeStatus};
use crate::serve::protocol::{OBSERVATION, STATUS, StatusAnswer};
use draw::Palette;
use state::{Input, State};

/// The thread that reads keys looks this often whether it should end.
const LOOK: Duration = Duration::from_millis(100);
/// Keys and sizes that wait.
const WAITING: usize = 64;

/// How the view begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Between two questions.
    pub(super) interval: Duration,
    /// Title of the column that units and processes are sorted by.
    pub(super) sort: &'static str,
    /// Whether to colour.
    pub(super) colour: bool,
}

/// What the terminal tells.
enum Told {
    Key(KeyEvent),
    Size,
}

/// The terminal, taken; given back when dropped.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        // Also gives the terminal back before a panic speaks.
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the view until it is left.
///
/// # Errors
/// When the terminal cannot be read or written. A daemon that does not answer is no error: the view
/// says so and asks again.
pub(super) async fn run(client: &Client, start: Start) -> Result<(), Failure> {
    let mut state = State::new(start.interval);
    state.sort_by(start.sort);
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let [terminate, interrupt, hangup] = &mut ends;
    let mut screen = Screen::take()?;
    let (keys, stop) = listen()?;
    let mut keys = StopWith { keys, stop };
    let mut due = Instant::now();
    let mut asking = None;
    while !state.ended() {
        state.on(Input::Height(screen.0.size()?.height));
        let palette = Palette(start.colour);
        screen
            .0
            .draw(|frame| draw::draw(frame, &state.view(), palette))?;
        let asks = state.asks() && asking.is_none();
        tokio::select! {
            told = keys.keys.recv() => match told {
                Some(Told::Key(key)) => {
                    let before = state.interval();
                    state.on(Input::Key(key));
                    if state.interval() < before {
                        due = Instant::now();
                    }
                }
                Some(Told::Size) => {}
                None => break, // the terminal is gone
            },
            () = sleep_until(due), if asks => {
                due = Instant::now() + state.interval();
                let client = client.clone();
                asking = Some(tokio::spawn(async move { ask(&client).await }));
            }
            answer = answered(&mut asking) => {
                asking = None;
                state.on(answer);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    Ok(())
}

/// Reads keys on a thread of its own: reading a terminal blocks.
fn listen() -> io::Result<(mpsc::Receiver<Told>, Arc<AtomicBool>)> {
    let (sender, keys) = mpsc::channel(WAITING);
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let told =
                    match event::poll(LOOK).and_then(|some| some.then(event::read).transpose()) {
                        Ok(None) => continue,
                        Ok(Some(Event::Key(key))) => Told::Key(key),
                        Ok(Some(Event::Resize(..))) => Told::Size,
                        Ok(Some(_)) => continue,
                        Err(_) => return,
                    };
                if sender.blocking_send(told).is_err() {
                    return;
                }
            }
        })?;
    Ok((keys, stop))
}

/// The keys; their thread ends when they are dropped.
struct StopWith {
    keys: mpsc::Receiver<Told>,
    stop: Arc<AtomicBool>,
}

impl Drop for StopWith {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits for the answer of the question that is under way; for ever when there is none.
async fn answered(asking: &mut Option<tokio::task::JoinHandle<Input>>) -> Input {
    match asking {
        Some(question) => question
            .await
            .unwrap_or_else(|_| Input::Failed("the question failed".to_owned())),
        None => std::future::pending().await,
    }
}

async fn ask(client: &Client) -> Input {
    match both(client).await {
        Ok((seen, probes)) => Input::Answer(Arc::new(seen), probes),
        Err(error) => Input::Failed(error.to_string()),
    }
}

async fn both(client: &Client) -> Result<(Observation, Vec<ProbeStatus>), CallError> {
    let seen: Observation = client.get(OBSERVATION).await?;
    let status: StatusAnswer = client.get(STATUS).await?;
    Ok((seen, status.status.capture.probes))
}

#[cfg(test)]
mod tests;
