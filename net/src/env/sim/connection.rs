//! One simulated TCP connection.
//!
//! ```text
//!  write_all ─► window ─► in flight ─► arrived ─► read          (once per direction)
//!                  ▲                                │
//!                  └───────── acknowledged ◄────────┘
//! ```
//! The window bounds everything that was written and not yet read: a slow reader holds its writer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use engine::time::Instant;

use super::Network;
use crate::env::Stream;

/// Bytes that one packet carries at most (large, as with segmentation offload).
const PACKET_BYTES_MAX: usize = 64 << 10;

/// The first wait before a packet is sent again; each further one is twice as long …
const RETRY_WAIT_MIN: Duration = Duration::from_millis(200);
/// … up to this …
const RETRY_WAIT_MAX: Duration = Duration::from_secs(120);
/// … and the connection is given up after this (Linux: `tcp_retries2` = 15).
const RETRY_FOR: Duration = Duration::from_secs(924);

enum Packet {
    Bytes(Vec<u8>),
    /// No more bytes follow.
    End,
    /// This side knows of no such connection (any more).
    Reset,
}

/// What one side has sent and what it has received.
#[derive(Default)]
struct Side {
    in_flight: VecDeque<Packet>,
    /// Packets whose time to arrive has come.
    due: usize,
    last_arrival: Instant,
    /// Since when nothing gets through from here to there.
    stalled: Option<Instant>,
    /// Bytes that were written here and not read there, as far as this side knows.
    unacknowledged: usize,
    /// Bytes that were read there, of which this side cannot be told.
    unheard: usize,
    window: usize,
    write_ended: bool,
    writer: Option<Waker>,

    arrived: VecDeque<u8>,
    /// The peer has ended; nothing follows what has arrived.
    ended: bool,
    read_ended: bool,
    reader: Option<Waker>,

    /// The connection is of no use any more, and why, until that was told.
    broken: bool,
    error: Option<io::ErrorKind>,
    /// The stream was dropped.
    closed: bool,
    /// Its machine has forgotten it: whatever arrives is answered by a reset.
    forgotten: bool,
}

impl Side {
    fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn broke(&mut self, error: io::ErrorKind) {
        if !self.broken {
            self.broken = true;
            self.error = Some(error);
        }
        self.in_flight.clear();
        self.wake_all();
    }
}

/// Both sides of a connection: 0 has connected, 1 has accepted.
pub(super) struct Connection {
    network: Rc<Network>,
    /// Numbers of the nodes.
    nodes: [u64; 2],
    addresses: [SocketAddr; 2],
    sides: RefCell<[Side; 2]>,
}

impl Connection {
    /// A new connection between two nodes with their addresses.
    pub(super) fn open(
        network: &Rc<Network>,
        ends: [(u64, SocketAddr); 2],
    ) -> (SimStream, SimStream) {
        let side = || {
            let window = 1 << network.random.between(12, 20);
            Side { window, ..Side::default() }
        };
        let connection = Rc::new(Connection {
            network: network.clone(),
            nodes: ends.map(|(node, _)| node),
            addresses: ends.map(|(_, address)| address),
            sides: RefCell::new([side(), side()]),
        });
        network.keep(&connection);
        let near = SimStream { connection: connection.clone(), side: 0 };
        (near, SimStream { connection, side: 1 })
    }

    pub(super) fn nodes_sorted(&self) -> [u64; 2] {
        let mut nodes = self.nodes;
        nodes.sort_unstable();
        nodes
    }

    /// Breaks it for both sides at once; false if it was already of no use.
    pub(super) fn break_both(&self) -> bool {
        let mut sides = self.sides.borrow_mut();
        let was_open = sides.iter().any(|side| !side.broken && !side.closed);
        for side in sides.iter_mut() {
            side.broke(io::ErrorKind::ConnectionReset);
        }
        was_open
    }

    /// Whether packets from this side get through now.
    fn passes(&self, from: usize) -> bool {
        self.network.passes(self.nodes[from], self.nodes[1 - from])
    }

    fn send(self: &Rc<Self>, from: usize, packet: Packet) {
        let network = &self.network;
        let (node, peer) = (self.nodes[from], self.nodes[1 - from]);
        let len = if let Packet::Bytes(bytes) = &packet { bytes.len() as u64 } else { 0 };
        let nanos = len * 1_000_000_000 / network.link(node, peer).bytes_per_second;
        let earliest = network.executor.now().after(network.latency(node, peer));
        let arrival = {
            let mut sides = self.sides.borrow_mut();
            let side = &mut sides[from];
            let arrival = earliest.max(side.last_arrival).after(Duration::from_nanos(nanos));
            side.last_arrival = arrival;
            side.in_flight.push_back(packet);
            arrival
        };
        let connection = self.clone();
        network.executor.call_at(network.wire, arrival, move || {
            connection.sides.borrow_mut()[from].due += 1;
            connection.progress(from);
        });
    }

    /// Delivers what is due, or begins to try again and again.
    fn progress(self: &Rc<Self>, from: usize) {
        if self.sides.borrow()[from].stalled.is_some() {
            return;
        }
        if !self.network.is_powered(self.nodes[from]) {
            // What had left the machine is not sent again.
            self.sides.borrow_mut()[from].in_flight.clear();
            return;
        }
        if !self.passes(from) {
            self.sides.borrow_mut()[from].stalled = Some(self.network.executor.now());
            return self.retry_after(from, RETRY_WAIT_MIN);
        }
        loop {
            let packet = {
                let mut sides = self.sides.borrow_mut();
                let side = &mut sides[from];
                if side.due == 0 {
                    return;
                }
                side.due -= 1;
                side.in_flight.pop_front()
            };
            if let Some(packet) = packet {
                self.deliver(1 - from, packet);
            }
        }
    }

    fn retry_after(self: &Rc<Self>, from: usize, wait: Duration) {
        let connection = self.clone();
        self.network.after(wait, move || connection.retry(from, wait));
    }

    fn retry(self: &Rc<Self>, from: usize, wait: Duration) {
        {
            let mut sides = self.sides.borrow_mut();
            let side = &mut sides[from];
            let now = self.network.executor.now();
            let since = side.stalled.unwrap_or(now);
            if side.broken || now.since(since) >= RETRY_FOR {
                side.broke(io::ErrorKind::TimedOut);
                side.stalled = None;
                return;
            }
        }
        if !self.passes(from) && self.network.is_powered(self.nodes[from]) {
            return self.retry_after(from, (wait * 2).min(RETRY_WAIT_MAX));
        }
        self.sides.borrow_mut()[from].stalled = None;
        self.progress(from);
    }

    /// A packet arrives at side `at`.
    fn deliver(self: &Rc<Self>, at: usize, packet: Packet) {
        let unknown = {
            let mut sides = self.sides.borrow_mut();
            let side = &mut sides[at];
            match packet {
                Packet::Reset => {
                    side.broke(io::ErrorKind::ConnectionReset);
                    false
                }
                _ if side.broken => false,
                _ if side.forgotten => true,
                Packet::Bytes(_) if side.closed => true,
                Packet::Bytes(bytes) => {
                    side.arrived.extend(bytes);
                    side.reader.take().into_iter().for_each(Waker::wake);
                    false
                }
                Packet::End => {
                    side.ended = true;
                    side.reader.take().into_iter().for_each(Waker::wake);
                    false
                }
            }
        };
        if unknown {
            self.send(at, Packet::Reset);
        }
    }

    /// Side `at` has read some of what side `1 - at` wrote.
    fn acknowledge(self: &Rc<Self>, at: usize, count: usize) {
        let first = {
            let writer = &mut self.sides.borrow_mut()[1 - at];
            writer.unheard += count;
            writer.unheard == count
        };
        if first {
            self.tell(at, RETRY_WAIT_MIN);
        }
    }

    /// Tells the writer how much was read, as soon as it can be told.
    fn tell(self: &Rc<Self>, at: usize, wait: Duration) {
        if !self.passes(at) {
            if self.sides.borrow().iter().any(|side| side.broken || side.closed) {
                return;
            }
            let connection = self.clone();
            let next = (wait * 2).min(RETRY_WAIT_MAX);
            return self.network.after(wait, move || connection.tell(at, next));
        }
        let writer = &mut self.sides.borrow_mut()[1 - at];
        writer.unacknowledged -= std::mem::take(&mut writer.unheard);
        writer.writer.take().into_iter().for_each(Waker::wake);
    }

    fn poll_read(
        self: &Rc<Self>,
        at: usize,
        into: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let count = {
            let side = &mut self.sides.borrow_mut()[at];
            if side.arrived.is_empty() {
                if let Some(error) = side.error.take() {
                    return Poll::Ready(Err(error.into()));
                }
                if side.broken || side.ended || side.read_ended {
                    return Poll::Ready(Ok(0));
                }
                side.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let there = side.arrived.len().min(into.len());
            // All that is there, or any part of it, or a single byte.
            let random = &self.network.random;
            let count = match random.below(8) {
                0 => 1,
                1 | 2 => random.between(1, there as u64) as usize,
                _ => there,
            };
            let (front, back) = side.arrived.as_slices();
            let from_front = front.len().min(count);
            into[..from_front].copy_from_slice(&front[..from_front]);
            into[from_front..count].copy_from_slice(&back[..count - from_front]);
            side.arrived.drain(..count);
            count
        };
        self.acknowledge(at, count);
        Poll::Ready(Ok(count))
    }

    /// Sends what the window has room for, from position `done` of all parts together.
    fn poll_write(
        self: &Rc<Self>,
        at: usize,
        parts: &[IoSlice<'_>],
        done: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            let room = {
                let side = &mut self.sides.borrow_mut()[at];
                if let Some(error) = side.error.take() {
                    return Poll::Ready(Err(error.into()));
                }
                if side.broken || side.write_ended {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                if *done == total {
                    return Poll::Ready(Ok(()));
                }
                let room = (side.window - side.unacknowledged).min(PACKET_BYTES_MAX);
                if room == 0 {
                    side.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                room.min(total - *done)
            };
            let bytes = gather(parts, *done, room);
            *done += room;
            self.sides.borrow_mut()[at].unacknowledged += room;
            self.send(at, Packet::Bytes(bytes));
        }
    }

    /// Ends the writing direction: the peer reads 0 after all that was written.
    fn end_writing(self: &Rc<Self>, at: usize) {
        let first = {
            let side = &mut self.sides.borrow_mut()[at];
            side.writer.take().into_iter().for_each(Waker::wake);
            !std::mem::replace(&mut side.write_ended, true) && !side.broken
        };
        if first {
            self.send(at, Packet::End);
        }
    }

    /// The stream of a side is dropped.
    fn close(self: &Rc<Self>, at: usize) {
        let unread = {
            let network = &self.network;
            let side = &mut self.sides.borrow_mut()[at];
            side.closed = true;
            if !network.is_powered(self.nodes[at]) {
                // Nothing is said, to nobody.
                side.forgotten = true;
                side.in_flight.clear();
                return;
            }
            !side.arrived.is_empty()
        };
        if unread { self.abort(at) } else { self.end_writing(at) }
    }

    /// The peer is told that there is no such connection; what was under way to it may be lost.
    fn abort(self: &Rc<Self>, at: usize) {
        let lost = self.network.random.chance(1, 2);
        {
            let side = &mut self.sides.borrow_mut()[at];
            if side.broken {
                return;
            }
            side.forgotten = true;
            side.write_ended = true;
            if lost {
                side.in_flight.clear();
            }
        }
        self.send(at, Packet::Reset);
    }
}

/// `count` bytes from position `from` of all parts together.
fn gather(parts: &[IoSlice<'_>], from: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    let mut skip = from;
    for part in parts {
        let begin = skip.min(part.len());
        skip -= begin;
        let end = part.len().min(begin + count - bytes.len());
        bytes.extend_from_slice(&part[begin..end]);
        if bytes.len() == count {
            break;
        }
    }
    bytes
}

/// One side of a simulated connection.
pub struct SimStream {
    connection: Rc<Connection>,
    side: usize,
}

impl SimStream {
    /// Closes it with a reset instead of an end.
    pub(super) fn abort(self) {
        self.connection.abort(self.side);
    }
}

impl Stream for SimStream {
    async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "a read into nothing");
        poll_fn(|cx| self.connection.poll_read(self.side, into, cx)).await
    }

    async fn write_all(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut done = 0;
        poll_fn(|cx| self.connection.poll_write(self.side, parts, &mut done, cx)).await
    }

    fn peer(&self) -> SocketAddr {
        self.connection.addresses[1 - self.side]
    }

    fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read {
            self.connection.end_writing(self.side);
        }
        if how != Shutdown::Write {
            let side = &mut self.connection.sides.borrow_mut()[self.side];
            side.read_ended = true;
            side.reader.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.connection.close(self.side);
    }
}
