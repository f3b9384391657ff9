//! What is written becomes synced: when `flush.messages` or `flush.ms` say so, or when somebody
//! waits for it. At most one sync task runs per log; it syncs again as long as that is due.
//!
//! Only the segment that was written to last can hold unsynced data: a segment is synced before its
//! successor exists.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{AppendError, Inner, Mutant};
use crate::env::{Env, File, Queue};

impl<E: Env> Inner<E> {
    /// Starts a sync if the configuration asks for one now.
    pub(super) fn maybe_sync(&self) {
        let (due, timer) = {
            let mut state = self.state.borrow_mut();
            let behind = state.written.value().saturating_sub(state.synced.value());
            let due = behind > 0 && behind >= state.config.flush_messages;
            let timer = match state.config.flush_ms {
                Some(ms) if behind > 0 && !due && !state.flush_timer => {
                    state.flush_timer = true;
                    Some(Duration::from_millis(ms))
                }
                _ => None,
            };
            (due, timer)
        };
        if due {
            self.start_sync();
        }
        if let Some(after) = timer {
            let (env, log) = (self.env.clone(), self.me.clone());
            self.env.spawn(Queue::Background, async move {
                env.sleep_until(env.now().after(after)).await;
                if let Some(log) = log.upgrade() {
                    log.state.borrow_mut().flush_timer = false;
                    log.start_sync();
                }
            });
        }
    }

    /// Sees to it that what is written now becomes synced.
    pub(super) fn start_sync(&self) {
        let mut state = self.state.borrow_mut();
        let (written, synced) = (state.written.value(), state.synced.value());
        if !state.status.is_at_work() || synced >= written {
            return;
        }
        state.sync_wanted = state.sync_wanted.max(written);
        if !std::mem::replace(&mut state.syncing, true) {
            drop(state);
            self.start(Queue::Storage, sync(self.strong()));
        }
    }

    /// Waits until what is written now is synced. For the writer, and for a truncation while that
    /// rests: they are the ones that could give batches up, and with them the watch.
    pub(super) async fn sync_written(&self) -> io::Result<()> {
        self.start_sync();
        let (synced, written) = {
            let state = self.state.borrow();
            (state.synced.clone(), state.written.value())
        };
        let failed = |_| io::Error::other(AppendError::DiskFailed);
        synced.reach(written).await.map_err(failed)?;
        self.ensure_works()
    }

    /// Everything below `end` is synced, `bytes` since the log was opened.
    fn on_synced(&self, end: u64, bytes: u64) {
        let mut state = self.state.borrow_mut();
        if !state.status.is_at_work() {
            return;
        }
        state.counters.syncs += 1;
        state.synced_bytes = state.synced_bytes.max(bytes);
        let synced = state.synced.clone();
        drop(state);
        synced.raise(end);
    }
}

/// Syncs once, and again while that is due. Exactly one runs per log: `State::syncing`.
async fn sync<E: Env>(log: Rc<Inner<E>>) {
    loop {
        let (target, bytes, segment) = {
            let state = log.state.borrow();
            let at = state.tail.written_mark().segment;
            let segment = state.segments.iter().rfind(|s| s.base == at).cloned();
            (state.written.value(), state.written_bytes, segment)
        };
        let result = match segment {
            _ if log.shared.bounds.has(Mutant::SkipSync) => Ok(()),
            Some(segment) => match log.patient_file(&segment).await {
                Ok(file) => file.sync().await,
                Err(error) => Err(error),
            },
            // Rolled, finished (hence synced) and deleted meanwhile.
            None => Ok(()),
        };
        match result {
            Err(_) if log.shared.bounds.has(Mutant::IgnoreFailedSync) => {}
            Err(error) => {
                let mut state = log.state.borrow_mut();
                state.syncing = false;
                state.on_rest();
                drop(state);
                return log.fail("syncing", &error);
            }
            Ok(()) => {}
        }
        log.on_synced(target, bytes);
        let again = {
            let mut state = log.state.borrow_mut();
            let (written, synced) = (state.written.value(), state.synced.value());
            let behind = written.saturating_sub(synced);
            let asked = behind >= state.config.flush_messages || synced < state.sync_wanted;
            state.syncing = behind > 0 && asked && state.status.is_at_work();
            if !state.syncing {
                state.on_rest();
            }
            state.syncing
        };
        if !again {
            break;
        }
    }
    // What was written meanwhile and is not due yet waits for its timer.
    log.maybe_sync();
}
