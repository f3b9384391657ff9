//! One TCP connection of a shard.
//!
//! Reads are `recv` straight into the caller's buffer, writes are `sendmsg` from where the parts
//! lie, both without waiting; glommio is asked only when the socket is not ready. (Its own
//! vectored write sends the first part only.)

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::task::Poll;

use engine::env::Env;
use engine::env::uring::{UringEnv, os_error};
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, sendmsg, setsockopt, shutdown, sockopt};

use crate::env::Stream;

/// How many parts one system call sends; the kernel takes 1,024, but the list is on the stack.
const PARTS_PER_SEND: usize = 64;

/// One connection. Reader and writer share it; glommio keeps the two directions apart.
pub struct UringStream {
    env: UringEnv,
    socket: RefCell<TcpStream>,
    fd: RawFd,
    peer: SocketAddr,
}

impl UringStream {
    pub(super) async fn connect(env: &UringEnv, to: SocketAddr) -> io::Result<UringStream> {
        let socket = TcpStream::connect(to).await.map_err(os_error)?;
        socket.set_nodelay(true).map_err(os_error)?;
        Ok(UringStream::over(env, socket, to))
    }

    /// A connection that was accepted, perhaps by another shard.
    pub(super) fn accepted(
        env: &UringEnv,
        socket: std::net::TcpStream,
        peer: SocketAddr,
    ) -> io::Result<UringStream> {
        socket.set_nodelay(true)?;
        // As Kafka does: a peer that vanished is noticed some day.
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        Ok(UringStream::over(env, adopt(socket), peer))
    }

    fn over(env: &UringEnv, socket: TcpStream, peer: SocketAddr) -> UringStream {
        let fd = socket.as_raw_fd();
        UringStream { env: env.clone(), socket: RefCell::new(socket), fd, peer }
    }
}

/// Makes a socket glommio's, which has no safe way in.
#[allow(unsafe_code)]
pub(super) fn adopt(socket: impl IntoRawFd) -> TcpStream {
    // SAFETY: the descriptor is open and was owned by `socket`, which gave it up.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

impl Stream for UringStream {
    async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "0 would look like the end");
        // A peer that is always faster must not keep the shard.
        self.env.turn().await;
        poll_fn(|cx| Pin::new(&mut *self.socket.borrow_mut()).poll_read(cx, into)).await
    }

    async fn write_all(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = Cursor { part: 0, byte: 0 };
        at.advance(parts, 0);
        while at.part < parts.len() {
            self.env.turn().await;
            let sent = match send_some(self.fd, parts, &at) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Waits until there is room, and sends from the first part then.
                    let rest = &parts[at.part][at.byte..];
                    poll_fn(|cx| {
                        let mut socket = self.socket.borrow_mut();
                        match Pin::new(&mut *socket).poll_write(cx, rest) {
                            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {
                                cx.waker().wake_by_ref();
                                Poll::Pending
                            }
                            other => other,
                        }
                    })
                    .await?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                other => other?,
            };
            at.advance(parts, sent);
        }
        Ok(())
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn shutdown(&self, how: Shutdown) {
        let how = match how {
            Shutdown::Read => nix::sys::socket::Shutdown::Read,
            Shutdown::Write => nix::sys::socket::Shutdown::Write,
            Shutdown::Both => nix::sys::socket::Shutdown::Both,
        };
        // It fails only if the peer has ended the connection already.
        let _ = shutdown(self.fd, how);
    }
}

impl Drop for UringStream {
    fn drop(&mut self) {
        // A poll in the ring keeps the socket open beyond its descriptor; the peer should not have
        // to wait for that.
        Stream::shutdown(self, Shutdown::Both);
    }
}

/// The first byte of some parts that is yet to be sent.
struct Cursor {
    part: usize,
    byte: usize,
}

impl Cursor {
    /// Moves on by `sent` bytes, and past empty parts.
    fn advance(&mut self, parts: &[IoSlice<'_>], sent: usize) {
        self.byte += sent;
        while let Some(part) = parts.get(self.part)
            && self.byte >= part.len()
        {
            self.byte -= part.len();
            self.part += 1;
        }
    }
}

/// Sends as much as the socket takes now, from the cursor on.
fn send_some(fd: RawFd, parts: &[IoSlice<'_>], at: &Cursor) -> io::Result<usize> {
    let mut window = [IoSlice::new(&[]); PARTS_PER_SEND];
    let rest = &parts[at.part..];
    let count = rest.len().min(PARTS_PER_SEND);
    window[0] = IoSlice::new(&rest[0][at.byte..]);
    window[1..count].copy_from_slice(&rest[1..count]);
    let mut flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    if rest.len() > count {
        // More follows at once: no half-filled packet for the end of this window.
        flags |= MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
    }
    sendmsg::<()>(fd, &window[..count], &[], flags, None).map_err(|errno: Errno| errno.into())
}
