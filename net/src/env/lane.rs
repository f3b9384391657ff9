//! A lane: one direction between two shards, bounded, in order. Two threads, a lock-free ring, and
//! wakers; it knows no runtime.
//!
//! Each side that must wait leaves its waker in a slot of one, looks again, and sleeps; the other
//! side, after each value put or taken, wakes whoever is in the slot. Slots and ring are the same
//! lock-free queue, whose sequentially consistent fences make "leave the waker, look again" and
//! "put the value, look into the slot" unable to miss each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::ArrayQueue;

use super::{LaneReceive, LaneSend, Refused};

/// Makes a lane that holds at most `len_max` values (at least 1). Both ends may go to any thread.
pub fn lane<T: Send + 'static>(len_max: usize) -> (LaneTx<T>, LaneRx<T>) {
    let shared = Arc::new(Shared {
        values: ArrayQueue::new(len_max),
        receiver: ArrayQueue::new(1),
        sender: ArrayQueue::new(1),
        tx_gone: AtomicBool::new(false),
        rx_gone: AtomicBool::new(false),
    });
    let tx = LaneTx {
        shared: shared.clone(),
        waiting: RefCell::new(VecDeque::new()),
        next_ticket: Cell::new(0),
    };
    (tx, LaneRx { shared })
}

/// Lives on the two shards of the lane.
struct Shared<T> {
    values: ArrayQueue<T>,
    /// The receiving task's waker, while it waits for a value.
    receiver: ArrayQueue<Waker>,
    /// The waker of the first of the sending tasks that wait for room.
    sender: ArrayQueue<Waker>,
    tx_gone: AtomicBool,
    rx_gone: AtomicBool,
}

fn wake(slot: &ArrayQueue<Waker>) {
    if let Some(waker) = slot.pop() {
        waker.wake();
    }
}

/// The sending end. May move to another thread until it is used.
pub struct LaneTx<T> {
    shared: Arc<Shared<T>>,
    /// Tasks that wait for room, in order of arrival; only the first is in the shared slot.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    next_ticket: Cell<u64>,
}

impl<T> LaneTx<T> {
    fn push(&self, value: T) -> Result<(), Refused<T>> {
        if self.shared.rx_gone.load(Ordering::SeqCst) {
            return Err(Refused::Closed(value));
        }
        self.shared.values.push(value).map_err(Refused::Full)?;
        wake(&self.shared.receiver);
        Ok(())
    }

    /// Tells the first of those who wait to try (again).
    fn wake_first(&self) {
        let first = self.waiting.borrow().front().map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

impl<T: Send + 'static> LaneSend<T> for LaneTx<T> {
    fn try_send(&self, value: T) -> Result<(), Refused<T>> {
        if self.waiting.borrow().is_empty() { self.push(value) } else { Err(Refused::Full(value)) }
    }

    fn send(&self, value: T) -> impl Future<Output = Result<(), T>> {
        let mut sending = Sending { tx: self, ticket: None };
        let mut value = Some(value);
        poll_fn(move |cx| sending.poll(cx, &mut value))
    }
}

/// One call of `send`; leaves the line when it is dropped.
struct Sending<'a, T> {
    tx: &'a LaneTx<T>,
    ticket: Option<u64>,
}

impl<T> Sending<'_, T> {
    fn poll(&mut self, cx: &Context<'_>, value: &mut Option<T>) -> Poll<Result<(), T>> {
        let holds = |value: &mut Option<T>| value.take().expect("not polled after it is ready");
        let first = match self.tx.waiting.borrow().front() {
            Some((ticket, _)) => self.ticket == Some(*ticket),
            None => true,
        };
        if !first && !self.tx.shared.rx_gone.load(Ordering::SeqCst) {
            self.wait(cx);
            return Poll::Pending;
        }
        // Twice: before the waker is left, and after.
        for last in [false, true] {
            match self.tx.push(holds(value)) {
                Ok(()) => {
                    self.leave();
                    return Poll::Ready(Ok(()));
                }
                Err(Refused::Closed(back)) => {
                    self.leave();
                    return Poll::Ready(Err(back));
                }
                Err(Refused::Full(back)) => *value = Some(back),
            }
            if !last {
                self.wait(cx);
                drop(self.tx.shared.sender.force_push(cx.waker().clone()));
            }
        }
        Poll::Pending
    }

    /// Takes a place at the end of the line, or renews the waker at the place it has.
    fn wait(&mut self, cx: &Context<'_>) {
        let mut waiting = self.tx.waiting.borrow_mut();
        match self.ticket.and_then(|own| waiting.iter_mut().find(|(ticket, _)| *ticket == own)) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                let ticket = self.tx.next_ticket.get();
                self.tx.next_ticket.set(ticket + 1);
                waiting.push_back((ticket, cx.waker().clone()));
                self.ticket = Some(ticket);
            }
        }
    }

    fn leave(&mut self) {
        if let Some(own) = self.ticket.take() {
            self.tx.waiting.borrow_mut().retain(|(ticket, _)| *ticket != own);
        }
        // Whoever is first now has never been told, or was told through a waker that is gone.
        self.tx.wake_first();
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.leave();
        }
    }
}

impl<T> Drop for LaneTx<T> {
    fn drop(&mut self) {
        self.shared.tx_gone.store(true, Ordering::SeqCst);
        wake(&self.shared.receiver);
    }
}

/// The receiving end. May move to another thread until it is used.
pub struct LaneRx<T> {
    shared: Arc<Shared<T>>,
}

impl<T> LaneRx<T> {
    fn pop(&self) -> Option<T> {
        let value = self.shared.values.pop()?;
        wake(&self.shared.sender);
        Some(value)
    }
}

impl<T: Send + 'static> LaneReceive<T> for LaneRx<T> {
    fn try_recv(&self) -> Option<T> {
        self.pop()
    }

    fn recv(&self) -> impl Future<Output = Option<T>> {
        poll_fn(|cx| {
            if let Some(value) = self.pop() {
                return Poll::Ready(Some(value));
            }
            drop(self.shared.receiver.force_push(cx.waker().clone()));
            // Before the last look, so that what was sent before the end is not missed.
            let gone = self.shared.tx_gone.load(Ordering::SeqCst);
            match self.pop() {
                Some(value) => Poll::Ready(Some(value)),
                None if gone => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
    }
}

impl<T> Drop for LaneRx<T> {
    fn drop(&mut self) {
        self.shared.rx_gone.store(true, Ordering::SeqCst);
        // What nobody will receive is dropped now: it may hold buffers or descriptors.
        while self.shared.values.pop().is_some() {}
        wake(&self.shared.sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn a_full_lane_refuses_and_takes_again_in_order_of_arrival() {
        block_on(async {
            let (tx, rx) = lane(2);
            tx.try_send(1).unwrap();
            tx.try_send(2).unwrap();
            assert_eq!(tx.try_send(9), Err(Refused::Full(9)));
            let (mut three, mut four) = (Box::pin(tx.send(3)), Box::pin(tx.send(4)));
            assert!(poll_once(&mut three).await.is_none());
            assert!(poll_once(&mut four).await.is_none());
            assert_eq!(rx.try_recv(), Some(1));
            assert_eq!(tx.try_send(9), Err(Refused::Full(9)), "others were here before");
            assert!(poll_once(&mut four).await.is_none(), "not its turn");
            assert_eq!(poll_once(&mut three).await, Some(Ok(())));
            drop(four);
            assert_eq!((rx.recv().await, rx.recv().await), (Some(2), Some(3)));
            assert_eq!(tx.try_send(5), Ok(()), "who gave up is no longer in the line");
            let mut values = Vec::new();
            assert_eq!(rx.recv_many(&mut values, 10).await, 1);
            assert_eq!(values, [5]);
        });
    }

    #[test]
    fn a_waiting_sender_that_is_dropped_passes_its_turn_on() {
        block_on(async {
            let (tx, rx) = lane(1);
            tx.try_send(1).unwrap();
            let mut two = Box::pin(tx.send(2));
            assert!(poll_once(&mut two).await.is_none());
            let third = async { tx.send(3).await.unwrap() };
            let rest = async {
                assert_eq!(rx.recv().await, Some(1), "the wake-up for room goes to `two`");
                drop(two);
                assert_eq!(rx.recv().await, Some(3));
            };
            zip(third, rest).await;
        });
    }

    #[test]
    fn either_end_learns_that_the_other_is_gone() {
        block_on(async {
            let (tx, rx) = lane(4);
            tx.try_send(1).unwrap();
            drop(tx);
            assert_eq!((rx.recv().await, rx.recv().await), (Some(1), None));
            let (tx, rx) = lane(1);
            let held = Arc::new(());
            tx.try_send(held.clone()).unwrap();
            let waits = async { assert!(tx.send(held.clone()).await.is_err()) };
            zip(waits, async { drop(rx) }).await;
            assert!(matches!(tx.try_send(held.clone()), Err(Refused::Closed(_))));
            assert_eq!(Arc::strong_count(&held), 1, "nothing is kept for nobody");
        });
    }

    #[test]
    fn two_threads_never_miss_a_wake_up() {
        const VALUES: u64 = 200_000;
        for len_max in [1, 2, 64] {
            let (tx, rx) = lane(len_max);
            let sender = std::thread::spawn(move || {
                block_on(async {
                    for value in 0..VALUES / 64 * len_max as u64 {
                        tx.send(value).await.unwrap();
                    }
                });
            });
            block_on(async {
                for value in 0..VALUES / 64 * len_max as u64 {
                    assert_eq!(rx.recv().await, Some(value));
                }
                assert_eq!(rx.recv().await, None);
            });
            sender.join().unwrap();
        }
    }
}
