//! Threads in a network namespace that work until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, bail};

use super::wire::place;

/// Told to stop when it is dropped.
#[derive(Default)]
pub struct Crew {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Crew {
    /// One more thread, inside the namespace; `work` ends soon after its flag is set.
    ///
    /// # Errors
    /// The namespace is not there.
    pub fn start(
        &mut self,
        namespace: &str,
        work: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let thread = place::inside(namespace, move || work(&stop))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends it and waits for all.
    ///
    /// # Errors
    /// A thread ended before, with an error: then its work was not done.
    pub fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
