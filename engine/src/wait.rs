//! Waiting without a runtime: [`Watch`] wakes tasks when a number reaches a value, [`Gate`] lets a
//! shutdown wait for everyone who is still inside. Only wakers are used, so both behave alike under
//! io_uring and under the simulator. Shard-local (`Rc`): never crosses a lane.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A number that only rises, and the tasks that wait for it to reach theirs.
///
/// It can be *closed*, after which nothing more will be reached: waiters get [`Closed`].
#[derive(Clone, Default)]
pub struct Watch(Rc<WatchState>);

#[derive(Default)]
struct WatchState {
    value: Cell<u64>,
    closed: Cell<bool>,
    next_waiter: Cell<u64>,
    /// Ordered by (value awaited, arrival), so that waking stops at the first that is too high.
    waiters: RefCell<BTreeMap<(u64, u64), Waker>>,
}

/// The watched number will never rise again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Watch {
    /// A watch that stands at `value`.
    pub fn new(value: u64) -> Watch {
        let watch = Watch::default();
        watch.0.value.set(value);
        watch
    }

    /// Where it stands.
    pub fn value(&self) -> u64 {
        self.0.value.get()
    }

    /// Raises it to `value` and wakes those who waited for that; lower values change nothing.
    pub fn raise(&self, value: u64) {
        if value <= self.0.value.get() {
            return;
        }
        self.0.value.set(value);
        loop {
            let first = {
                let mut waiters = self.0.waiters.borrow_mut();
                match waiters.first_entry() {
                    Some(entry) if entry.key().0 <= value => entry.remove(),
                    _ => return,
                }
            };
            first.wake();
        }
    }

    fn arrival(&self) -> u64 {
        let arrival = self.0.next_waiter.get();
        self.0.next_waiter.set(arrival + 1);
        arrival
    }

    /// Ends it: everyone waiting, and everyone who will, gets [`Closed`].
    pub fn close(&self) {
        self.0.closed.set(true);
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        for waker in waiters.into_values() {
            waker.wake();
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Waits until the number is at least `value`. What was reached before a close still counts.
    pub async fn reach(&self, value: u64) -> Result<(), Closed> {
        let mut waiting = Waiting { watch: self, key: None };
        poll_fn(move |cx| {
            let state = &waiting.watch.0;
            if state.value.get() >= value {
                return Poll::Ready(Ok(()));
            }
            if state.closed.get() {
                return Poll::Ready(Err(Closed));
            }
            let key = *waiting.key.get_or_insert_with(|| (value, waiting.watch.arrival()));
            state.waiters.borrow_mut().insert(key, cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Waits until one of several watches has reached its value, or is closed. Registers once with
/// each and allocates once, however many there are.
pub async fn any(watches: &[(Watch, u64)]) {
    let mut waiting: Vec<Waiting<'_>> = Vec::with_capacity(watches.len());
    poll_fn(|cx| {
        if watches.iter().any(|(watch, value)| watch.value() >= *value || watch.is_closed()) {
            return Poll::Ready(());
        }
        let first = waiting.is_empty();
        for (at, (watch, value)) in watches.iter().enumerate() {
            if first {
                waiting.push(Waiting { watch, key: Some((*value, watch.arrival())) });
            }
            let key = waiting[at].key.expect("given above");
            watch.0.waiters.borrow_mut().insert(key, cx.waker().clone());
        }
        Poll::Pending
    })
    .await
}

/// Takes a waiter off the list when its future is dropped.
struct Waiting<'a> {
    watch: &'a Watch,
    key: Option<(u64, u64)>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.watch.0.waiters.borrow_mut().remove(&key);
        }
    }
}

/// Who is inside, and whether new ones may enter. `close` shuts the door and waits for the last.
#[derive(Clone, Default)]
pub struct Gate(Rc<GateState>);

#[derive(Default)]
struct GateState {
    inside: Cell<u64>,
    closed: Cell<bool>,
    waiters: RefCell<Vec<Waker>>,
}

/// Proof of having entered a [`Gate`]; leaving is dropping it.
pub struct Pass(Gate);

impl Gate {
    /// Enters, unless the gate is closed.
    pub fn enter(&self) -> Option<Pass> {
        if self.0.closed.get() {
            return None;
        }
        self.0.inside.set(self.0.inside.get() + 1);
        Some(Pass(self.clone()))
    }

    /// How many are inside.
    pub fn inside(&self) -> u64 {
        self.0.inside.get()
    }

    /// Whether nobody may enter any more.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Shuts the door; returns when the last one has left.
    pub async fn close(&self) {
        self.0.closed.set(true);
        poll_fn(|cx| {
            if self.0.inside.get() == 0 {
                return Poll::Ready(());
            }
            self.0.waiters.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let state = &self.0.0;
        state.inside.set(state.inside.get() - 1);
        if state.inside.get() == 0 && state.closed.get() {
            let waiters = std::mem::take(&mut *state.waiters.borrow_mut());
            for waker in waiters {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn a_watch_wakes_those_who_waited_for_what_was_reached() {
        let watch = Watch::new(3);
        block_on(async {
            watch.reach(3).await.unwrap();
            let mut five = Box::pin(watch.reach(5));
            let mut nine = Box::pin(watch.reach(9));
            assert_eq!(poll_once(&mut five).await, None);
            assert_eq!(poll_once(&mut nine).await, None);
            watch.raise(6);
            assert_eq!(poll_once(&mut five).await, Some(Ok(())));
            assert_eq!(poll_once(&mut nine).await, None);
            watch.close();
            assert_eq!(poll_once(&mut nine).await, Some(Err(Closed)));
            assert_eq!(watch.reach(6).await, Ok(()), "what was reached still counts");
        });
        assert!(watch.0.waiters.borrow().is_empty(), "dropped waiters leave nothing behind");
    }

    #[test]
    fn any_of_several_watches_wakes_and_all_forget() {
        let watches: Vec<_> = (0..3).map(|_| (Watch::new(0), 5)).collect();
        block_on(async {
            let mut any = Box::pin(any(&watches));
            assert_eq!(poll_once(&mut any).await, None);
            watches[1].0.raise(4);
            assert_eq!(poll_once(&mut any).await, None);
            watches[2].0.raise(5);
            assert_eq!(poll_once(&mut any).await, Some(()));
        });
        assert!(watches.iter().all(|(watch, _)| watch.0.waiters.borrow().is_empty()));
    }

    #[test]
    fn a_gate_waits_for_the_last_one_inside() {
        let gate = Gate::default();
        let pass = gate.enter().unwrap();
        block_on(zip(gate.close(), async {
            assert!(gate.enter().is_none());
            drop(pass);
        }));
        assert_eq!(gate.inside(), 0);
    }
}
