//! A bounded channel of many senders and one receiver.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::mpsc::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, SendError, TryRecvError,
};

/// openraft's name for them.
#[derive(Debug)]
pub struct Channels;

struct Line<T> {
    waiting: VecDeque<T>,
    room: usize,
    receiver: bool,
    reading: Option<Waker>,
    /// Senders that found it full.
    writing: Vec<Waker>,
}

/// Its drop is the end of the line.
struct Senders<T>(Rc<RefCell<Line<T>>>);

impl<T> Drop for Senders<T> {
    fn drop(&mut self) {
        let waker = self.0.borrow_mut().reading.take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// An end that sends.
pub struct Sender<T>(Rc<Senders<T>>);

/// A sender that does not keep the channel open.
pub struct WeakSender<T>(Weak<Senders<T>>);

/// The end that receives.
pub struct Receiver<T> {
    line: Rc<RefCell<Line<T>>>,
    senders: Weak<Senders<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        WeakSender(self.0.clone())
    }
}

impl Mpsc for Channels {
    type Sender<T> = Sender<T>;
    type Receiver<T> = Receiver<T>;
    type WeakSender<T> = WeakSender<T>;

    fn channel<T>(room: usize) -> (Sender<T>, Receiver<T>) {
        let line = Line {
            waiting: VecDeque::new(),
            room: room.max(1),
            receiver: true,
            reading: None,
            writing: Vec::new(),
        };
        let line = Rc::new(RefCell::new(line));
        let senders = Rc::new(Senders(line.clone()));
        let receiver = Receiver { line, senders: Rc::downgrade(&senders) };
        (Sender(senders), receiver)
    }
}

impl<T> MpscSender<Channels, T> for Sender<T> {
    async fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut item = Some(item);
        poll_fn(|context| {
            let mut line = self.0.0.borrow_mut();
            if !line.receiver {
                return Poll::Ready(Err(SendError(item.take().expect("sent once"))));
            }
            if line.waiting.len() >= line.room {
                line.writing.push(context.waker().clone());
                return Poll::Pending;
            }
            line.waiting.push_back(item.take().expect("sent once"));
            let waker = line.reading.take();
            drop(line);
            waker.into_iter().for_each(Waker::wake);
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Rc::downgrade(&self.0))
    }
}

impl<T> MpscWeakSender<Channels, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        self.0.upgrade().map(Sender)
    }
}

impl<T> Receiver<T> {
    fn take(&mut self) -> Result<T, TryRecvError> {
        let mut line = self.line.borrow_mut();
        match line.waiting.pop_front() {
            Some(item) => {
                let writing = std::mem::take(&mut line.writing);
                drop(line);
                writing.into_iter().for_each(Waker::wake);
                Ok(item)
            }
            None if self.senders.strong_count() == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        match self.take() {
            Ok(item) => Poll::Ready(Some(item)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                self.line.borrow_mut().reading = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> MpscReceiver<T> for Receiver<T> {
    async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| self.poll(context)).await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.take()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut line = self.line.borrow_mut();
        line.receiver = false;
        let waiting = std::mem::take(&mut line.waiting);
        let writing = std::mem::take(&mut line.writing);
        drop(line);
        // What is dropped may send elsewhere.
        drop(waiting);
        writing.into_iter().for_each(Waker::wake);
    }
}
