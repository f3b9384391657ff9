//! Being told to stop: SIGTERM and SIGINT go to the main thread only, which waits for them.
//!
//! How the shards learn of it is the caller's: a lane to each shard is one way, since its sending
//! end works on any thread.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// The two signals, blocked everywhere.
pub struct StopSignals(SigSet);

impl StopSignals {
    /// Blocks the signals for this thread and all that it will start: call it first of all.
    pub fn block() -> io::Result<StopSignals> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        Ok(StopSignals(signals))
    }

    /// Waits for the first one. A second one ends the process at once, with the exit code that a
    /// shell gives to a process killed by it.
    pub fn wait(self) -> io::Result<Signal> {
        let first = self.0.wait()?;
        std::thread::Builder::new().name("second-signal".into()).spawn(move || {
            if let Ok(second) = self.0.wait() {
                std::process::exit(128 + second as i32);
            }
        })?;
        Ok(first)
    }
}
