//! A value that one task at a time may change, also while it waits.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::task::{Poll, Waker};

use openraft::async_runtime::Mutex;

/// A value behind a door.
pub struct Lock<T> {
    value: RefCell<T>,
    taken: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// Whoever has passed the door. It closes the way for others until it is dropped.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    /// Taken when it is dropped, before others are woken.
    value: Option<RefMut<'a, T>>,
}

impl<T: 'static> Mutex<T> for Lock<T> {
    type Guard<'a> = Guard<'a, T>;

    fn new(value: T) -> Lock<T> {
        Lock { value: RefCell::new(value), taken: Cell::new(false), waiting: RefCell::default() }
    }

    async fn lock(&self) -> Guard<'_, T> {
        poll_fn(|context| {
            if self.taken.replace(true) {
                self.waiting.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Guard { lock: self, value: Some(self.value.borrow_mut()) })
        })
        .await
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        self.lock.taken.set(false);
        let waiting = std::mem::take(&mut *self.lock.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}
