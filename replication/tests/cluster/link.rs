//! A connection between two brokers: order is kept, it can break, and each side notices.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::ids::{BrokerEpoch, BrokerId};
use engine::wait::Watch;
use replication::ask::{AnswerPart, FetchAsk};

/// One direction.
pub struct Pipe<T> {
    items: RefCell<VecDeque<T>>,
    /// Items that were ever put in.
    pub count: Watch,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Pipe { items: RefCell::default(), count: Watch::new(0) }
    }
}

impl<T> Pipe<T> {
    pub fn push(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.count.raise(self.count.value() + 1);
    }

    pub fn pop(&self) -> Option<T> {
        self.items.borrow_mut().pop_front()
    }
}

/// An answer: session, number, parts.
pub type Answer = (u64, u64, Vec<AnswerPart<Vec<u8>>>);

pub struct Link {
    pub follower: BrokerId,
    pub follower_epoch: BrokerEpoch,
    pub requests: Pipe<FetchAsk>,
    pub answers: Pipe<Answer>,
    /// Raised to 1 when it breaks.
    pub broken: Watch,
}

impl Link {
    pub fn new(follower: BrokerId, follower_epoch: BrokerEpoch) -> Rc<Link> {
        let (requests, answers, broken) = (Pipe::default(), Pipe::default(), Watch::new(0));
        Rc::new(Link { follower, follower_epoch, requests, answers, broken })
    }

    pub fn is_broken(&self) -> bool {
        self.broken.value() > 0
    }
}
