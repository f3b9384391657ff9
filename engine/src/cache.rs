//! The memory of one shard's tails: a budget for frozen blocks that stay readable, and the gate
//! that holds back clients while too much is waiting for the device. Shard-local.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::wait::Watch;

/// Something that can let go of its oldest frozen block.
pub trait Evict {
    /// Drops the oldest block if it is `block` and nobody depends on it (it is written); says how
    /// many bytes that freed, or `None` if it must stay for now.
    fn evict(&self, block: u64) -> Option<usize>;
}

/// Budget of one shard for blocks of log tails. Cloning shares it.
#[derive(Clone)]
pub struct BlockBudget(Rc<Budget>);

struct Budget {
    held_bytes_max: usize,
    unwritten_bytes_max: usize,
    held: Cell<usize>,
    unwritten: Cell<usize>,
    /// Counts bytes that were written over all time, so that waiting for room is waiting for a
    /// number to be reached.
    drained: Cell<u64>,
    drained_watch: Watch,
    next_block: Cell<u64>,
    oldest: RefCell<VecDeque<(std::rc::Weak<dyn Evict>, u64)>>,
}

impl BlockBudget {
    /// A budget that keeps at most about `held_bytes_max` of written blocks as the read cache, and
    /// asks clients to wait while more than `unwritten_bytes_max` have not reached the device.
    pub fn new(held_bytes_max: usize, unwritten_bytes_max: usize) -> BlockBudget {
        BlockBudget(Rc::new(Budget {
            held_bytes_max,
            unwritten_bytes_max,
            held: Cell::new(0),
            unwritten: Cell::new(0),
            drained: Cell::new(0),
            drained_watch: Watch::new(0),
            next_block: Cell::new(0),
            oldest: RefCell::new(VecDeque::new()),
        }))
    }

    /// Bytes of blocks that are held, written or not.
    pub fn held_bytes(&self) -> usize {
        self.0.held.get()
    }

    /// Bytes that were appended and are not on the device yet.
    pub fn unwritten_bytes(&self) -> usize {
        self.0.unwritten.get()
    }

    /// Waits until less than the maximum is unwritten. Connections call it before they read the
    /// next request: exhaustion stops reading the socket, there is no other back-pressure.
    pub async fn room(&self) {
        while self.0.unwritten.get() > self.0.unwritten_bytes_max {
            let over = self.0.unwritten.get() - self.0.unwritten_bytes_max;
            let target = self.0.drained.get() + over as u64;
            // The watch of a budget is never closed.
            let _ = self.0.drained_watch.reach(target).await;
        }
    }

    /// A log was appended `bytes`.
    pub(crate) fn on_append(&self, bytes: usize) {
        self.0.unwritten.set(self.0.unwritten.get() + bytes);
    }

    /// `bytes` reached the device, or were given up.
    pub(crate) fn on_drained(&self, bytes: usize) {
        self.0.unwritten.set(self.0.unwritten.get() - bytes);
        self.0.drained.set(self.0.drained.get() + bytes as u64);
        self.0.drained_watch.raise(self.0.drained.get());
    }

    /// A block of `bytes` was frozen by `owner`; answers the number by which it may be evicted.
    pub(crate) fn on_frozen(&self, owner: std::rc::Weak<dyn Evict>, bytes: usize) -> u64 {
        let budget = &self.0;
        let block = budget.next_block.get();
        budget.next_block.set(block + 1);
        budget.held.set(budget.held.get() + bytes);
        budget.oldest.borrow_mut().push_back((owner, block));
        block
    }

    /// `bytes` of blocks were let go by their owner outside of eviction (close, roll back).
    pub(crate) fn on_released(&self, bytes: usize) {
        self.0.held.set(self.0.held.get() - bytes);
    }

    /// Lets go of the oldest written blocks while too much is held. Called by logs when no borrow
    /// of theirs is open.
    pub(crate) fn shrink(&self) {
        let budget = &self.0;
        loop {
            let over = budget.held.get() > budget.held_bytes_max;
            let next = match budget.oldest.borrow_mut().front() {
                Some((owner, block)) => (owner.upgrade(), *block),
                None => return,
            };
            let freed = match &next {
                // A log that is gone gave back what it held; only its entries are left.
                (None, _) => Some(0),
                (Some(_), _) if !over => return,
                (Some(log), block) => log.evict(*block),
            };
            let Some(freed) = freed else { return };
            budget.oldest.borrow_mut().pop_front();
            budget.held.set(budget.held.get() - freed);
        }
    }
}
