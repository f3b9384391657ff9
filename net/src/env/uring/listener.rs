//! A listening port of the whole process.
//!
//! Shard 0 accepts and deals the connections round robin over lanes. With a listener per shard
//! (`SO_REUSEPORT`) the kernel chooses by a hash of the addresses: of 8 connections over 2 shards
//! it gives 4 and 4 in one case of four only, and a client with few, busy connections would use
//! one shard. Dealing costs one hop per connection, not per request, and a port without
//! `SO_REUSEPORT` is refused to a second process by the kernel itself.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::time::Duration;

use engine::env::uring::UringEnv;
use engine::env::{Env, Queue};
use engine::wait::Watch;
use futures_lite::future::or;
use futures_lite::io::AsyncRead;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};

use super::stream::{UringStream, adopt};
use crate::env::lane::{LaneRx, LaneTx, lane};
use crate::env::{LANE_LEN_MAX, LaneReceive, LaneSend, Listener, Refused};

/// Connections that the kernel completes before they are accepted. It also caps it itself
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 1_024;

/// How long no connection is accepted after the process ran out of descriptors or memory.
const STARVED_PAUSE: Duration = Duration::from_millis(100);

/// One shard's part of a bound port. Made by [`bind`] on any thread, before the shards start.
pub struct Door {
    local: SocketAddr,
    dealt: LaneRx<Accepted>,
    /// Shard 0 has the port itself.
    dealer: Option<Dealer>,
}

type Accepted = (TcpStream, SocketAddr);

/// Binds a port for `shards` shards (at least 1) and begins to listen; connections wait in the
/// kernel until shard 0 opens its door. `AddrInUse` if anyone has the port.
pub fn bind(address: SocketAddr, shards: usize) -> io::Result<Vec<Door>> {
    assert!(shards > 0, "somebody must accept");
    let port = TcpListener::bind(address)?;
    // Again, for the backlog: the standard library's is small.
    listen(&port, Backlog::new(BACKLOG)?)?;
    port.set_nonblocking(true)?;
    let local = port.local_addr()?;
    let (to, dealt): (Vec<_>, Vec<_>) = (0..shards).map(|_| lane(LANE_LEN_MAX)).unzip();
    let door = |dealt| Door { local, dealt, dealer: None };
    let mut doors: Vec<Door> = dealt.into_iter().map(door).collect();
    doors[0].dealer = Some(Dealer { local, port, to, next: 0, starved: false });
    Ok(doors)
}

impl Door {
    /// The address, with the port that was chosen where 0 was asked for.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

/// One shard's open door. When shard 0 drops its own, the port is closed.
pub struct UringListener {
    env: UringEnv,
    local: SocketAddr,
    dealt: LaneRx<Accepted>,
    /// Closed when this is dropped; the dealer waits for that.
    open: Watch,
}

impl UringListener {
    pub(super) fn new(env: UringEnv, door: Door) -> UringListener {
        let open = Watch::default();
        if let Some(dealer) = door.dealer {
            let (env1, open) = (env.clone(), open.clone());
            env.spawn(Queue::Request, async move {
                let closed = async {
                    let _ = open.reach(1).await;
                };
                or(dealer.run(env1), closed).await;
            });
        }
        UringListener { env, local: door.local, dealt: door.dealt, open }
    }
}

impl Drop for UringListener {
    fn drop(&mut self) {
        self.open.close();
    }
}

impl Listener for UringListener {
    type Stream = UringStream;

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&self) -> io::Result<UringStream> {
        while let Some((socket, peer)) = self.dealt.recv().await {
            match UringStream::accepted(&self.env, socket, peer) {
                Ok(stream) => return Ok(stream),
                Err(error) => tracing::debug!(%peer, %error, "connection gone before it began"),
            }
        }
        Err(io::Error::other(format!("{} is closed", self.local)))
    }
}

/// Accepts for the process and deals; a task of shard 0, which waits for no other shard.
struct Dealer {
    local: SocketAddr,
    port: TcpListener,
    to: Vec<LaneTx<Accepted>>,
    /// Whose turn it is.
    next: usize,
    /// Whether the last attempt found no descriptor; it is said once.
    starved: bool,
}

impl Dealer {
    /// Until the port fails; then every shard's `accept` does.
    async fn run(mut self, env: UringEnv) {
        loop {
            env.turn().await;
            let outcome = match self.port.accept() {
                Ok(accepted) => {
                    if std::mem::take(&mut self.starved) {
                        tracing::info!(port = %self.local, "accepting connections again");
                    }
                    self.deal(accepted);
                    continue;
                }
                Err(error) => self.recover(&env, error).await,
            };
            if let Err(error) = outcome {
                tracing::error!(port = %self.local, %error, "the port is lost");
                return;
            }
        }
    }

    /// Gives it to the next shard that has room. If none has (each holds [`LANE_LEN_MAX`] that it
    /// has not looked at) the connection is closed again.
    fn deal(&mut self, mut accepted: Accepted) {
        for _ in 0..self.to.len() {
            let shard = self.next;
            self.next = (shard + 1) % self.to.len();
            accepted = match self.to[shard].try_send(accepted) {
                Ok(()) => return,
                Err(Refused::Full(back) | Refused::Closed(back)) => back,
            };
        }
        tracing::warn!(port = %self.local, peer = %accepted.1, "no shard takes connections");
    }

    /// Waits for what `accept` lacked. An error that will not pass is given back.
    async fn recover(&mut self, env: &UringEnv, error: io::Error) -> io::Result<()> {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN) => match acceptable(&self.port).await {
                // The wait needs a descriptor of its own.
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    self.starve(env, error).await;
                    Ok(())
                }
                _ => Ok(()),
            },
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                self.starve(env, error).await;
                Ok(())
            }
            Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) => Err(error),
            // All else is about the one connection that was about to come (accept(2)).
            _ => Ok(()),
        }
    }

    async fn starve(&mut self, env: &UringEnv, error: io::Error) {
        if !std::mem::replace(&mut self.starved, true) {
            tracing::warn!(port = %self.local, %error, "cannot accept connections");
        }
        env.sleep_until(env.now().after(STARVED_PAUSE)).await;
    }
}

/// Waits until a connection can be accepted, or something is wrong with the port.
///
/// glommio can wait for a listening port only by accepting from it, into a type that loses its
/// descriptor when it is dropped. But it waits for a stream's readability by a poll of the
/// descriptor before it tries to receive, and from a listening port nothing is received.
async fn acceptable(port: &TcpListener) -> io::Result<()> {
    let mut waiter = adopt(port.try_clone()?);
    let mut byte = [0];
    match poll_fn(|cx| Pin::new(&mut waiter).poll_read(cx, &mut byte)).await {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other(format!("descriptor {} is no port", port.as_raw_fd()))),
    }
}
