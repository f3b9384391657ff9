//! One connection: read a frame, begin what it asks, answer in request order.
//!
//! Two tasks share it. The *reader* takes frames and starts them: a Produce is appended (or sent to
//! its owner) before the next frame is looked at, so order is kept while many wait for the device.
//! The *writer* finishes them one after the other and sends the answers. What is not Produce or
//! Fetch is carried out by the writer when its turn comes, and a Produce is not started while such
//! a request is ahead of it: a topic that is created on a connection exists for what follows.
//!
//! Memory is bounded: so many requests, so many bytes of them, per connection; and no frame is read
//! while too many appended bytes of this shard wait for the device. There is no other back-pressure:
//! the socket is not read.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use engine::env::Queue;
use engine::wait::{Pass, Watch};
use futures_lite::future;

use crate::api::admin;
use crate::api::fetch::{self, Bytes, Fetch};
use crate::api::produce::{self, Produce};
use crate::env::{NetEnv, Stream};
use crate::frame::Frame;
use crate::replica;
use crate::replica::leader::{ReplicaRequest, Session};
use crate::shard::Shard;
use crate::wire::fetch::FetchRequest;
use crate::wire::produce::ProduceRequest;
use crate::wire::{DecodeError, HeaderError, Message, Outgoing, Reader, RequestHeader};

pub(crate) mod inbox;

use inbox::{Inbox, InboxError};

/// Slices that are given to the system in one call.
const SLICES_PER_WRITE_MAX: usize = 256;

/// A request that was started.
enum Pending<E: NetEnv> {
    Produce(Produce<E>),
    Fetch(Fetch),
    Replica(ReplicaRequest<E>),
    /// Decoded when its turn comes.
    Other(Frame),
}

/// What both tasks see.
struct Connection<E: NetEnv> {
    shard: Shard<E>,
    stream: E::Stream,
    /// Name of the listener that it came by.
    listener: Rc<str>,
    queue: RefCell<VecDeque<(Pending<E>, usize)>>,
    /// Requests started over all time.
    started: Watch,
    /// Requests answered over all time.
    answered: Watch,
    /// Others than Produce and Fetch that were started, over all time: (started, number of the
    /// last one).
    last_other: Cell<u64>,
    /// The stream of the follower on the other side, if one is there.
    follower: RefCell<Option<Rc<Session<E>>>>,
    /// Bytes of requests that wait.
    waiting_bytes: Cell<usize>,
}

/// Why a connection ends. One log line each; the others never notice.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed it")]
    Closed,
    #[error("nothing happened for too long")]
    Idle,
    #[error("the broker is stopping")]
    Stopping,
    #[error(transparent)]
    Frame(#[from] InboxError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("malformed {api} request: {error}")]
    Body { api: &'static str, error: DecodeError },
    #[error("a produce without acks failed with {0:?}")]
    Unacknowledged(crate::wire::ErrorCode),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves a connection that came by `listener` until it ends. `pass` keeps the shard from stopping
/// before that.
pub async fn serve<E: NetEnv>(shard: Shard<E>, stream: E::Stream, listener: Rc<str>, pass: Pass) {
    let connection = Rc::new(Connection {
        shard: shard.clone(),
        stream,
        listener,
        queue: RefCell::new(VecDeque::new()),
        started: Watch::new(0),
        answered: Watch::new(0),
        last_other: Cell::new(0),
        follower: RefCell::new(None),
        waiting_bytes: Cell::new(0),
    });
    let writer = connection.clone();
    shard.env().spawn(Queue::Request, async move {
        let _pass = pass;
        let end = writer.write_all().await;
        if let Err(end) = end {
            writer.log(&end);
            writer.answered.close();
        }
        // What is still queued lets go of its memory.
        writer.release(writer.waiting_bytes.get());
        writer.queue.borrow_mut().clear();
        writer.stream.shutdown(Shutdown::Both);
        let count = &writer.shard.0.connections;
        count.set(count.get() - 1);
    });
    let end = connection.read_all().await;
    if let Err(end) = end {
        connection.log(&end);
    }
    // The writer answers what was started, then ends.
    connection.started.close();
}

impl<E: NetEnv> Connection<E> {
    fn log(&self, end: &End) {
        let peer = self.stream.peer();
        match end {
            End::Closed | End::Idle | End::Stopping => {
                tracing::debug!(%peer, "connection closed: {end}");
            }
            End::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                tracing::debug!(%peer, "connection lost: {error}");
            }
            _ => tracing::warn!(%peer, "connection closed: {end}"),
        }
    }

    async fn read_all(&self) -> Result<(), End> {
        let mut inbox = Inbox::new(self.shard.options().broker.request_bytes_max);
        loop {
            self.admit().await?;
            let frame = self.next_frame(&mut inbox).await?;
            self.start(frame).await?;
            self.shard.env().turn().await;
        }
    }

    /// Waits until another request may be taken.
    async fn admit(&self) -> Result<(), End> {
        let options = self.shard.options();
        let (connection_max, shard_max) =
            (options.broker.connection_queued_bytes_max, options.broker.shard_queued_bytes_max);
        loop {
            let (started, answered) = (self.started.value(), self.answered.value());
            let full = started - answered >= options.requests_in_flight_max as u64
                || (started > answered && self.waiting_bytes.get() > connection_max);
            if !full {
                break;
            }
            self.answered.reach(answered + 1).await.map_err(|_| End::Closed)?;
        }
        // The shard's share: whoever has nothing in flight waits until others were answered.
        // Except for followers: their promises may be all that the others wait for.
        let shard = &self.shard.0;
        while shard.queued_bytes.get() > shard_max
            && self.waiting_bytes.get() == 0
            && !self.may_follow()
        {
            let next = shard.answered_bytes.value() + 1;
            let _ = shard.answered_bytes.reach(next).await;
        }
        shard.shared.budget.room().await;
        Ok(())
    }

    async fn next_frame(&self, inbox: &mut Inbox) -> Result<Frame, End> {
        loop {
            if let Some(frame) = inbox.take()? {
                return Ok(frame);
            }
            let read = self.read_some(inbox.room()).await?;
            if read == 0 {
                return Err(if inbox.is_empty() { End::Closed } else { InboxError::Half.into() });
            }
            inbox.filled(read);
        }
    }

    async fn read_some(&self, room: &mut [u8]) -> Result<usize, End> {
        let mut read = std::pin::pin!(self.stream.read(room));
        let read = match future::poll_once(&mut read).await {
            Some(read) => read,
            // Only who really waits needs the timer.
            None => self.or_end(self.shard.options().broker.connection_idle_max, read).await?,
        };
        Ok(read?)
    }

    /// Waits for a read, unless the shard stops or nothing happens for too long.
    async fn or_end<T>(
        &self,
        idle_max: Option<Duration>,
        read: impl Future<Output = T>,
    ) -> Result<T, End> {
        let env = self.shard.env();
        let mut read = std::pin::pin!(read);
        loop {
            let (started, since) = (self.started.value(), env.now());
            let stopping = async {
                let _ = self.shard.0.stopping.reach(1).await;
                Some(End::Stopping)
            };
            let idle = async {
                match idle_max {
                    Some(max) => env.sleep_until(since.after(max)).await,
                    None => future::pending().await,
                }
                None
            };
            let ended = future::or(stopping, idle);
            match future::or(async { Ok(read.as_mut().await) }, async { Err(ended.await) }).await {
                Ok(read) => return Ok(read),
                Err(Some(end)) => return Err(end),
                // Waiting for an answer is not idling.
                Err(None) if started > self.answered.value() => {}
                Err(None) => return Err(End::Idle),
            }
        }
    }

    /// Begins one request.
    async fn start(&self, frame: Frame) -> Result<(), End> {
        let shard = &self.shard;
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader)?;
        let (version, number) = (header.version, header.correlation_id);
        let malformed = |error| End::Body { api: header.api.name, error };
        let pending = match header.api.key {
            ProduceRequest::KEY => {
                let request = ProduceRequest::decode(&mut reader, version).map_err(malformed)?;
                let last_other = self.last_other.get();
                self.answered.reach(last_other).await.map_err(|_| End::Closed)?;
                let own = produce::own_partitions(shard, &request);
                produce::open_all(shard, own.into_iter()).await;
                Pending::Produce(produce::start(shard, &frame, &request, version, number))
            }
            FetchRequest::KEY => {
                let request = FetchRequest::decode(&mut reader, version).map_err(malformed)?;
                match self.follower_of(&request, version) {
                    Some(session) => Pending::Replica(
                        replica::leader::start(shard, &session, &request, number).await,
                    ),
                    None => Pending::Fetch(fetch::start(shard, &request, version, number)),
                }
            }
            _ => {
                self.last_other.set(self.started.value() + 1);
                Pending::Other(frame.clone())
            }
        };
        self.waiting_bytes.set(self.waiting_bytes.get() + frame.len());
        shard.0.queued_bytes.set(shard.0.queued_bytes.get() + frame.len());
        self.queue.borrow_mut().push_back((pending, frame.len()));
        self.started.raise(self.started.value() + 1);
        Ok(())
    }

    /// The stream of which a request is: only on the brokers' own listener is there one.
    fn follower_of(&self, request: &FetchRequest<'_>, version: i16) -> Option<Rc<Session<E>>> {
        if !self.is_of_peers() || version != replica::VERSION || request.stream_seq < 0 {
            return None;
        }
        let mut follower = self.follower.borrow_mut();
        if follower.is_none() {
            *follower = Session::of(request, self.shard.env().now());
        }
        follower.clone()
    }

    /// Whether it came by the brokers' own listener.
    fn is_of_peers(&self) -> bool {
        let quorum = self.shard.options().quorum.as_ref();
        quorum.is_some_and(|quorum| *self.listener == *quorum.peer_listener)
    }

    /// Whether a follower is on the other side, or may be: it has not said yet who it is.
    fn may_follow(&self) -> bool {
        let is_new = self.started.value() == 0;
        self.follower.borrow().is_some() || (is_new && self.is_of_peers())
    }

    /// Finishes requests in their order until the reader has ended and all are answered.
    async fn write_all(&self) -> Result<(), End> {
        loop {
            if self.started.reach(self.answered.value() + 1).await.is_err() {
                return Ok(());
            }
            let next = self.queue.borrow_mut().pop_front();
            let (pending, bytes) = next.expect("what was started is queued");
            let answer = self.finish(pending).await?;
            if let Some(answer) = answer {
                self.send(&answer).await?;
            }
            self.release(bytes);
            self.answered.raise(self.answered.value() + 1);
        }
    }

    /// So many bytes of requests wait no more.
    fn release(&self, bytes: usize) {
        let shard = &self.shard.0;
        self.waiting_bytes.set(self.waiting_bytes.get() - bytes);
        shard.queued_bytes.set(shard.queued_bytes.get() - bytes);
        shard.answered_bytes.raise(shard.answered_bytes.value() + bytes as u64);
    }

    async fn finish(&self, pending: Pending<E>) -> Result<Option<Outgoing<Bytes<E>>>, End> {
        let shard = &self.shard;
        match pending {
            Pending::Produce(produce) => {
                let answer =
                    produce.finish(shard, &self.listener).await.map_err(End::Unacknowledged)?;
                Ok(answer.map(Outgoing::from))
            }
            Pending::Fetch(fetch) => Ok(Some(fetch.finish(shard, &self.listener).await)),
            Pending::Replica(request) => Ok(Some(request.finish(shard).await)),
            Pending::Other(frame) => {
                let mut reader = Reader::new(&frame);
                let header = RequestHeader::decode(&mut reader)?;
                let answer =
                    admin::answer(shard, (&self.listener, self.stream.peer()), &header, reader)
                        .await;
                let malformed = |error| End::Body { api: header.api.name, error };
                Ok(Some(answer.map_err(malformed)?.into()))
            }
        }
    }

    async fn send(&self, answer: &Outgoing<Bytes<E>>) -> Result<(), End> {
        let mut slices = answer.slices().map(IoSlice::new).peekable();
        let mut parts = Vec::new();
        while slices.peek().is_some() {
            parts.clear();
            parts.extend(slices.by_ref().take(SLICES_PER_WRITE_MAX));
            self.stream.write_all(&parts).await?;
        }
        Ok(())
    }
}
