//! Whether the device of a log directory works. A failed write or sync is final: retrying a sync
//! can report success although the data is gone, so nothing more is acknowledged.

use std::cell::RefCell;
use std::rc::Rc;

use crate::wait::Watch;

/// The device under all logs of one shard's directory. Cloning shares it.
#[derive(Clone, Default)]
pub struct Disk(Rc<DiskState>);

#[derive(Default)]
struct DiskState {
    failed: RefCell<Option<String>>,
    /// Raised to 1 by the first failure.
    failure: Watch,
}

impl Disk {
    /// What failed first, if something has.
    pub fn failed(&self) -> Option<String> {
        self.0.failed.borrow().clone()
    }

    /// Whether something has failed.
    pub fn has_failed(&self) -> bool {
        self.0.failure.value() > 0
    }

    /// Waits for the first failure; the process decides what to do about it.
    pub async fn failure(&self) -> String {
        // This watch is never closed.
        let _ = self.0.failure.reach(1).await;
        self.failed().unwrap_or_default()
    }

    /// Declares it failed; only the first reason is kept.
    pub fn fail(&self, why: &str) {
        let mut failed = self.0.failed.borrow_mut();
        if failed.is_none() {
            *failed = Some(why.to_owned());
        }
        drop(failed);
        self.0.failure.raise(1);
    }
}
