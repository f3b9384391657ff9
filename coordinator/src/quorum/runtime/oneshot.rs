//! A value that one task sends another, once.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::{Oneshot, OneshotSender};

/// openraft's name for them.
#[derive(Debug)]
pub struct Oneshots;

/// Whoever was to send is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the sender is gone")]
pub struct Dropped;

struct Slot<T> {
    value: Option<T>,
    sender: bool,
    receiver: bool,
    waker: Option<Waker>,
}

/// The end that sends.
pub struct Sender<T>(Rc<RefCell<Slot<T>>>);

/// The end that waits.
pub struct Receiver<T>(Rc<RefCell<Slot<T>>>);

/// Both ends.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Slot { value: None, sender: true, receiver: true, waker: None };
    let slot = Rc::new(RefCell::new(slot));
    (Sender(slot.clone()), Receiver(slot))
}

impl Oneshot for Oneshots {
    type Sender<T> = Sender<T>;
    type Receiver<T> = Receiver<T>;
    type ReceiverError = Dropped;

    fn channel<T>() -> (Sender<T>, Receiver<T>) {
        channel()
    }
}

impl<T> OneshotSender<T> for Sender<T> {
    fn send(self, value: T) -> Result<(), T> {
        let mut slot = self.0.borrow_mut();
        if !slot.receiver {
            return Err(value);
        }
        slot.value = Some(value);
        Ok(())
        // Dropping the sender wakes.
    }
}

impl<T> Sender<T> {
    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.0.borrow().receiver
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut slot = self.0.borrow_mut();
        slot.sender = false;
        let waker = slot.waker.take();
        drop(slot);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut slot = self.0.borrow_mut();
        slot.receiver = false;
        let value = slot.value.take();
        drop(slot);
        drop(value);
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Dropped>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !slot.sender {
            return Poll::Ready(Err(Dropped));
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
