//! Ports of simulated nodes: doors, listeners, and the way to a connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use engine::env::sim::Node;

use super::connection::{Connection, SimStream};
use super::{Network, SimNet, number_of};
use crate::env::Listener;

/// Connections that wait at one shard's door; more are not answered (Linux: the backlog).
const BACKLOG_LEN_MAX: usize = 1_024;

/// An attempt to connect is repeated after a second, then after twice as long …
const ATTEMPT_WAIT_MIN: Duration = Duration::from_secs(1);

/// … and given up when the next wait would be longer than this (Linux: 127 seconds in all).
const ATTEMPT_WAIT_MAX: Duration = Duration::from_secs(64);

/// A taken port.
pub(super) struct Port {
    /// The shards' queues; `None` where the door was closed.
    doors: Vec<Option<Rc<Waiting>>>,
    next: usize,
}

impl Port {
    /// The queue whose turn it is.
    fn deal(&mut self) -> Rc<Waiting> {
        loop {
            let index = self.next % self.doors.len();
            self.next = index + 1;
            if let Some(waiting) = &self.doors[index] {
                return waiting.clone();
            }
        }
    }
}

/// Connections that nobody has accepted yet.
#[derive(Default)]
struct Waiting {
    streams: RefCell<VecDeque<SimStream>>,
    waker: Cell<Option<Waker>>,
}

/// One shard's part of a port. Dropping it closes that part; the last one frees the port.
pub struct Door {
    net: SimNet,
    local: SocketAddr,
    shard: usize,
    waiting: Rc<Waiting>,
}

impl Door {
    pub(super) fn make(
        network: &Rc<Network>,
        local: SocketAddr,
        shards: usize,
    ) -> io::Result<Vec<Door>> {
        assert!(shards > 0, "a port needs a shard");
        let mut ports = network.ports.borrow_mut();
        if ports.contains_key(&local) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let waiting: Vec<Rc<Waiting>> = (0..shards).map(|_| Rc::default()).collect();
        let doors = waiting.iter().map(|waiting| Some(waiting.clone())).collect();
        ports.insert(local, Port { doors, next: 0 });
        let door = |(shard, waiting)| Door { net: SimNet(network.clone()), local, shard, waiting };
        Ok(waiting.into_iter().enumerate().map(door).collect())
    }

    /// The address, with the port that was chosen where 0 was asked for.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        {
            let mut ports = self.net.0.ports.borrow_mut();
            if let Some(port) = ports.get_mut(&self.local) {
                port.doors[self.shard] = None;
                if port.doors.iter().all(|door| door.is_none()) {
                    ports.remove(&self.local);
                }
            }
        }
        // Nobody will accept these.
        for stream in self.waiting.streams.take() {
            stream.abort();
        }
    }
}

/// See [`Listener`].
pub struct SimListener {
    door: Door,
}

impl SimListener {
    pub(super) fn new(door: Door) -> SimListener {
        SimListener { door }
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    fn local(&self) -> SocketAddr {
        self.door.local
    }

    async fn accept(&self) -> io::Result<SimStream> {
        let waiting = &self.door.waiting;
        poll_fn(|cx| match waiting.streams.borrow_mut().pop_front() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => {
                waiting.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// An attempt to connect, and who waits for it.
struct Dial {
    network: Rc<Network>,
    from: u64,
    local: SocketAddr,
    to: SocketAddr,
    outcome: Cell<Option<io::Result<SimStream>>>,
    waker: Cell<Option<Waker>>,
}

/// Connects from a node; `ConnectionRefused` where nobody listens, `TimedOut` where nobody answers.
pub(super) async fn connect(
    network: Rc<Network>,
    from: &Node,
    to: SocketAddr,
) -> io::Result<SimStream> {
    let (from, ip) = (from.number(), SimNet::address(from));
    let local = SocketAddr::new(ip, network.free_port(ip));
    let (outcome, waker) = (Cell::new(None), Cell::new(None));
    let dial = Rc::new(Dial { network, from, local, to, outcome, waker });
    dial.clone().call(ATTEMPT_WAIT_MIN);
    poll_fn(|cx| match dial.outcome.take() {
        Some(outcome) => Poll::Ready(outcome),
        None => {
            dial.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        }
    })
    .await
}

impl Dial {
    /// Sends the first packet.
    fn call(self: Rc<Self>, wait: Duration) {
        let far = number_of(self.to.ip());
        let latency = self.network.latency(self.from, far.unwrap_or(u64::MAX));
        let network = self.network.clone();
        network.after(latency, move || match far {
            Some(far) if self.network.passes(self.from, far) => self.knock(far, wait),
            _ => self.again(wait),
        });
    }

    /// The first packet has arrived.
    fn knock(self: Rc<Self>, far: u64, wait: Duration) {
        let network = self.network.clone();
        if !network.passes(far, self.from) {
            return self.again(wait);
        }
        let back = network.latency(far, self.from);
        let waiting = network.ports.borrow_mut().get_mut(&self.to).map(Port::deal);
        let Some(waiting) = waiting else {
            let refused = io::ErrorKind::ConnectionRefused;
            return network.after(back, move || self.done(Err(refused.into())));
        };
        if waiting.streams.borrow().len() >= BACKLOG_LEN_MAX {
            return self.again(wait);
        }
        let ends = [(self.from, self.local), (far, self.to)];
        let (near_end, far_end) = Connection::open(&network, ends);
        waiting.streams.borrow_mut().push_back(far_end);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
        // If nobody waits for it any more, this closes it again.
        network.after(back, move || self.done(Ok(near_end)));
    }

    fn again(self: Rc<Self>, wait: Duration) {
        let network = self.network.clone();
        network.after(wait, move || {
            if wait < ATTEMPT_WAIT_MAX {
                self.call(wait * 2);
            } else {
                self.done(Err(io::ErrorKind::TimedOut.into()));
            }
        });
    }

    fn done(&self, outcome: io::Result<SimStream>) {
        self.outcome.set(Some(outcome));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
