//! A connection to another node, from our side: requests out, answers in, in order. For what nodes
//! say to each other; clients of the broker have `client.rs`.
//!
//! A link is of no use after an error or a time-out: what comes next on it would be the answer to
//! something else. Drop it and connect anew.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use crate::connection::inbox::{Inbox, InboxError};
use crate::env::{NetEnv, Stream};
use crate::frame::Frame;
use crate::wire::{DecodeError, Encoded, Message, Request, decode_response, encode_request};

/// Longest answer, in bytes: a snapshot of a large cluster fits.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// A connection to another node.
pub struct Link<E: NetEnv> {
    env: E,
    stream: E::Stream,
    inbox: Inbox,
    next: i32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection could not be made or was lost.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] InboxError),
    /// What came is not the answer.
    #[error("malformed answer: {0}")]
    Decode(#[from] DecodeError),
    /// An answer to something else.
    #[error("answer {got} came, {expected} was due")]
    OutOfOrder {
        /// Whose answer came.
        got: i32,
        /// Whose was due.
        expected: i32,
    },
    /// The other side closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl<E: NetEnv> Link<E> {
    /// Connects to `host:port`, a name or an address.
    pub async fn connect(env: &E, address: &str, within: Duration) -> Result<Link<E>, LinkError> {
        let connecting = async {
            let address = env.resolve(address).await?;
            Ok(env.connect(address).await?)
        };
        let stream = in_time(env, within, connecting).await?;
        Ok(Link { env: env.clone(), stream, inbox: Inbox::new(ANSWER_BYTES_MAX), next: 0 })
    }

    /// Sends a request and waits for its answer.
    pub async fn call<'q, R: Request<'q>>(
        &mut self,
        request: &R,
        version: i16,
        within: Duration,
    ) -> Result<Answer, LinkError> {
        let env = self.env.clone();
        let calling = async {
            let number = self.send(request, version).await?;
            self.receive(number).await
        };
        in_time(&env, within, calling).await
    }

    /// Whether it still stands, and nothing has come that nobody asked for.
    pub async fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let mut read = std::pin::pin!(self.stream.read(&mut byte));
        // A read that is dropped has taken nothing.
        future::poll_once(&mut read).await.is_none() && self.inbox.is_empty()
    }

    /// Sends a request; answers come in the order of the requests.
    pub async fn send<'q, R: Request<'q>>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<i32, LinkError> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let frame: Encoded = encode_request(request, version, number, Some("ringbolt"));
        self.stream.write_all(&[IoSlice::new(&frame.into_bytes())]).await?;
        Ok(number)
    }

    /// The answer to request `number`, which is the next that is due.
    pub async fn receive(&mut self, number: i32) -> Result<Answer, LinkError> {
        let answer = Answer(read_frame(&self.stream, &mut self.inbox).await?);
        answer.expect(number)?;
        Ok(answer)
    }
}

/// The sending side of a link.
pub struct Sending<E: NetEnv> {
    stream: Rc<E::Stream>,
    next: i32,
}

/// The receiving side of a link.
pub struct Receiving<E: NetEnv> {
    env: E,
    stream: Rc<E::Stream>,
    inbox: Inbox,
}

impl<E: NetEnv> Link<E> {
    /// Both sides of a link on which nothing was sent yet.
    pub fn split(self) -> (Sending<E>, Receiving<E>) {
        let stream = Rc::new(self.stream);
        let sending = Sending { stream: stream.clone(), next: self.next };
        (sending, Receiving { env: self.env, stream, inbox: self.inbox })
    }
}

impl<E: NetEnv> Sending<E> {
    /// The correlation id of the next request.
    pub fn take_number(&mut self) -> i32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// Sends a request that has such a number.
    pub async fn send(&mut self, frame: Encoded) -> Result<(), LinkError> {
        Ok(self.stream.write_all(&[IoSlice::new(&frame.into_bytes())]).await?)
    }
}

impl<E: NetEnv> Receiving<E> {
    /// The next answer, however long it takes; gives up after a silence of `within`. A large answer
    /// over a slow line is not silent. When it has given up, it may be called again.
    pub async fn next(&mut self, within: Duration) -> Result<Answer, LinkError> {
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(Answer(frame));
            }
            let (env, stream, room) = (&self.env, &self.stream, self.inbox.room());
            let read = in_time(env, within, async { Ok(stream.read(room).await?) }).await?;
            if read == 0 {
                return Err(LinkError::Closed);
            }
            self.inbox.filled(read);
        }
    }
}

/// Reads until a whole frame is there.
async fn read_frame<S: Stream>(stream: &S, inbox: &mut Inbox) -> Result<Frame, LinkError> {
    loop {
        if let Some(frame) = inbox.take()? {
            return Ok(frame);
        }
        let read = stream.read(inbox.room()).await?;
        if read == 0 {
            return Err(LinkError::Closed);
        }
        inbox.filled(read);
    }
}

/// A frame that answers a request.
pub struct Answer(Frame);

impl Answer {
    /// Whether it answers request `number`.
    pub fn expect(&self, number: i32) -> Result<(), LinkError> {
        let got = self.0.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        if got == number { Ok(()) } else { Err(LinkError::OutOfOrder { got, expected: number }) }
    }

    /// What it says.
    pub fn decode<'a, M: Message<'a>>(&'a self, version: i16) -> Result<M, LinkError> {
        Ok(decode_response(&self.0, version)?.1)
    }
}

async fn in_time<E: NetEnv, T>(
    env: &E,
    within: Duration,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let late = async {
        env.sleep_until(env.now().after(within)).await;
        Err(LinkError::TimedOut(within))
    };
    future::or(work, late).await
}
