//! The seams of the network half: streams, listeners, and the lanes between the shards of a
//! process. [`uring`] implements them on io_uring; [`sim`] implements them on a seed. One
//! suite (`tests/streams.rs`) runs against both.
//!
//! Addresses are numbers here: a name is resolved on a thread of its own
//! ([`NetEnv::resolve`]), because resolving blocks.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};

use engine::env::Env;

pub mod lane;
pub mod sim;
pub mod uring;

/// How many values a lane holds at most unless said otherwise. Below 1,024 two busy shards spend
/// their time waking each other (0.6 M values/s at 128, 17 M at 1,024).
pub const LANE_LEN_MAX: usize = 1_024;

/// One connection. One task may read while another writes, both through `&self`; two tasks must
/// not read, or write, at the same time.
///
/// Dropping it closes it: what was written is still delivered, unless bytes of the peer lie here
/// unread (then, as TCP has it, the connection is reset).
pub trait Stream: 'static {
    /// Reads what is there, at least one byte, into the front of `into` (which is not empty);
    /// waits if there is nothing. 0 means that the peer has finished. A read that is dropped has
    /// taken nothing.
    fn read(&self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>>;
    /// Writes all of `parts` in order, from where they lie. A write that is dropped may have sent
    /// any prefix: the stream is of no use then but to be closed.
    fn write_all(&self, parts: &[IoSlice<'_>]) -> impl Future<Output = io::Result<()>>;
    /// The other side.
    fn peer(&self) -> SocketAddr;
    /// Ends one direction or both. Ending `Write` lets the peer read 0 after everything that was
    /// written; ending `Read` lets a read that waits here return 0.
    fn shutdown(&self, how: Shutdown);
}

/// One shard's share of a listening port.
pub trait Listener: 'static {
    /// What it accepts.
    type Stream: Stream;

    /// The address, with the port that was chosen where 0 was asked for.
    fn local(&self) -> SocketAddr;
    /// The next connection for this shard. The connections of a port are dealt evenly over the
    /// shards. Where the process is out of descriptors it waits (and says so once); an error is
    /// final.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// Why a lane did not take a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// It holds as many as it may.
    Full(T),
    /// The other end is gone.
    Closed(T),
}

/// The sending end of a lane: one direction between one pair of shards, bounded, in order.
pub trait LaneSend<T: Send + 'static>: 'static {
    /// Puts a value in, if there is room now and nobody waits for room.
    fn try_send(&self, value: T) -> Result<(), Refused<T>>;
    /// Puts a value in, waiting for room (first come, first served); gives it back if the other
    /// end is gone. Dropped while it waits, it has sent nothing.
    fn send(&self, value: T) -> impl Future<Output = Result<(), T>>;
}

/// The receiving end of a lane. One task receives.
pub trait LaneReceive<T: Send + 'static>: 'static {
    /// The next value, if there is one.
    fn try_recv(&self) -> Option<T>;
    /// The next value; `None` when the lane is empty and the sending end gone. Dropped while it
    /// waits, it has taken nothing.
    fn recv(&self) -> impl Future<Output = Option<T>>;
    /// Waits for a value, then takes what is there, `max` at most, onto the end of `into`. Returns
    /// how many; 0 like `None` from [`LaneReceive::recv`].
    fn recv_many(&self, into: &mut Vec<T>, max: usize) -> impl Future<Output = usize> {
        async move {
            let Some(first) = self.recv().await else { return 0 };
            into.push(first);
            let mut taken = 1;
            while taken < max
                && let Some(value) = self.try_recv()
            {
                into.push(value);
                taken += 1;
            }
            taken
        }
    }
}

/// The world of one shard, its network included.
pub trait NetEnv: Env {
    /// Its connections.
    type Stream: Stream;
    /// Its listening ports.
    type Listener: Listener<Stream = Self::Stream>;
    /// One shard's part of a port that was bound before the shards started.
    type Door: 'static;
    /// Sending end of a lane.
    type LaneTx<T: Send + 'static>: LaneSend<T>;
    /// Receiving end of a lane.
    type LaneRx<T: Send + 'static>: LaneReceive<T>;

    /// Opens this shard's door. Connections come once the first shard of the port has opened its
    /// own, and end when that one drops its listener.
    fn listen(&self, door: Self::Door) -> impl Future<Output = io::Result<Self::Listener>>;
    /// The address behind `host:port`; names are looked up, where there are any.
    fn resolve(&self, address: &str) -> impl Future<Output = io::Result<SocketAddr>>;
    /// Connects to a peer.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;
    /// Makes a lane of at most `len_max` values (at least 1), before the shards start.
    fn lane<T: Send + 'static>(len_max: usize) -> (Self::LaneTx<T>, Self::LaneRx<T>);
}

/// One shard's ends of a mesh, by the number of the other shard; `None` at its own.
pub struct LaneEnds<E: NetEnv, T: Send + 'static> {
    /// To each other shard.
    pub to: Vec<Option<E::LaneTx<T>>>,
    /// From each other shard.
    pub from: Vec<Option<E::LaneRx<T>>>,
}

/// A lane for every ordered pair of `shards`; element `i` belongs to shard `i`.
pub fn mesh<E: NetEnv, T: Send + 'static>(shards: usize, len_max: usize) -> Vec<LaneEnds<E, T>> {
    let none = || LaneEnds { to: Vec::with_capacity(shards), from: Vec::with_capacity(shards) };
    let mut ends: Vec<LaneEnds<E, T>> = (0..shards).map(|_| none()).collect();
    for sender in 0..shards {
        for receiver in 0..shards {
            let (tx, rx) = if sender == receiver {
                (None, None)
            } else {
                let (tx, rx) = E::lane(len_max);
                (Some(tx), Some(rx))
            };
            ends[sender].to.push(tx);
            ends[receiver].from.push(rx);
        }
    }
    ends
}
