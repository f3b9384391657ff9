//! Messages on their way out, as data: whoever owns the sockets takes them, delivers them and
//! brings the answers back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::ids::BrokerId;
use engine::wait::Watch;
use openraft::async_runtime::OneshotSender;

use super::runtime::oneshot;

/// Most messages that wait to be taken; older ones, which nobody waits for any more, go first.
const MESSAGES_MAX: usize = 1_000;

/// A message for another coordinator.
pub struct Outbound {
    /// Whom it is for.
    pub to: BrokerId,
    /// Where that one listens, as the membership says.
    pub endpoint: String,
    /// To hand to its [`super::Quorum::receive`], unchanged.
    pub message: Vec<u8>,
    /// Where the answer goes.
    pub reply: Answering,
}

/// Where an answer goes. Dropped without one: the message could not be delivered.
pub struct Answering(oneshot::Sender<Vec<u8>>);

impl Answering {
    /// Hands in what the other one's `receive` returned.
    pub fn send(self, reply: Vec<u8>) {
        // Whoever asked may have stopped waiting.
        let _ = self.0.send(reply);
    }

    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.0.is_wanted()
    }
}

/// Messages that wait to be taken. Cloning shares them.
#[derive(Clone)]
pub struct Outbox(Rc<Inner>);

struct Inner {
    waiting: RefCell<VecDeque<Outbound>>,
    /// Rises with each message; closed when there will be no more.
    put: Watch,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox(Rc::new(Inner { waiting: RefCell::default(), put: Watch::new(0) }))
    }

    /// The next message; `None` when there will be none any more.
    pub async fn next(&self) -> Option<Outbound> {
        loop {
            let seen = self.0.put.value();
            while let Some(next) = self.take() {
                if next.reply.is_wanted() {
                    return Some(next);
                }
            }
            self.0.put.reach(seen + 1).await.ok()?;
        }
    }

    fn take(&self) -> Option<Outbound> {
        self.0.waiting.borrow_mut().pop_front()
    }

    /// Puts a message in; the answer comes to whoever holds what is returned.
    pub(super) fn put(
        &self,
        to: BrokerId,
        endpoint: &str,
        message: Vec<u8>,
    ) -> oneshot::Receiver<Vec<u8>> {
        let (sender, receiver) = oneshot::channel();
        let reply = Answering(sender);
        let mut waiting = self.0.waiting.borrow_mut();
        if waiting.len() >= MESSAGES_MAX {
            waiting.retain(|message| message.reply.is_wanted());
        }
        if waiting.len() < MESSAGES_MAX && !self.0.put.is_closed() {
            waiting.push_back(Outbound { to, endpoint: endpoint.to_owned(), message, reply });
        }
        drop(waiting);
        self.0.put.raise(self.0.put.value() + 1);
        receiver
    }

    pub(super) fn close(&self) {
        self.0.waiting.borrow_mut().clear();
        self.0.put.close();
    }
}
