//! A client's connection to the simulated broker: requests out, answers in, in their order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{IoSlice, Result as IoResult};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use engine::env::Env;
use engine::env::sim::{Random, SimEnv};
use futures_lite::future;
use net::env::{NetEnv, Stream};
use net::wire::{FRAME_LEN_BYTES, Message, Request, decode_response, encode_request};

use crate::oracle::{Broken, Invariant, Oracle};

/// How long a client waits for anything before it gives up its connection.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long it waits before the next try.
const PAUSE_MILLIS: (u64, u64) = (10, 60);

/// Who is there: what every client has.
#[derive(Clone)]
pub struct Client {
    pub env: SimEnv,
    pub broker: SocketAddr,
    pub name: Rc<str>,
    pub oracle: Rc<Oracle>,
    pub random: Rc<Random>,
}

/// Why a connection is of no more use.
pub enum Stop {
    /// It was cut, or nothing came for too long, or the broker says that it has to be tried again.
    Gone(String),
    /// The broker did what it must not do.
    Broken(Broken),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Stop {
        Stop::Broken(broken)
    }
}

pub type Come<T = ()> = Result<T, Stop>;

pub fn gone<T>(why: impl Into<String>) -> Come<T> {
    Err(Stop::Gone(why.into()))
}

impl Client {
    pub fn event(&self, what: std::fmt::Arguments<'_>) {
        self.oracle.event(self.env.now(), &self.name, what);
    }

    pub async fn sleep(&self, duration: Duration) {
        self.env.sleep_until(self.env.now().after(duration)).await;
    }

    /// Waits for a connection, for as long as it takes.
    pub async fn connect(&self) -> Line {
        loop {
            if let Ok(line) = self.try_connect().await {
                return line;
            }
            self.pause().await;
        }
    }

    /// A connection, if there is one at once.
    pub async fn try_connect(&self) -> Come<Line> {
        match self.in_time(PATIENCE, self.env.connect(self.broker)).await? {
            Ok(stream) => Ok(Line {
                client: self.clone(),
                stream,
                next: Cell::new(self.random.below(1_000) as i32),
                due: RefCell::default(),
            }),
            Err(error) => gone(format!("no connection: {error}")),
        }
    }

    pub async fn pause(&self) {
        let (low, high) = PAUSE_MILLIS;
        self.sleep(Duration::from_millis(self.random.between(low, high))).await;
    }

    async fn in_time<T>(&self, patience: Duration, what: impl Future<Output = T>) -> Come<T> {
        let late = async {
            self.sleep(patience).await;
            gone("nothing happened for too long")
        };
        future::or(async { Ok(what.await) }, late).await
    }

    /// Reports how a line ended; `false` if that was a broken promise.
    pub fn ended(&self, stop: &Stop) -> bool {
        match stop {
            Stop::Gone(why) => {
                self.event(format_args!("connection given up: {why}"));
                true
            }
            Stop::Broken(broken) => {
                self.event(format_args!("BROKEN {broken}"));
                self.oracle.report(broken.clone());
                false
            }
        }
    }
}

/// A connection.
pub struct Line {
    client: Client,
    stream: <SimEnv as NetEnv>::Stream,
    next: Cell<i32>,
    /// Numbers of the requests that have not been answered.
    due: RefCell<VecDeque<i32>>,
}

/// An answer, not yet decoded.
pub struct Answer {
    frame: Vec<u8>,
    version: i16,
}

impl Answer {
    pub fn read<'f, M: Message<'f>>(&'f self) -> Come<M> {
        match decode_response(&self.frame, self.version) {
            Ok((_, message)) => Ok(message),
            Err(error) => {
                let how = format!("an answer cannot be decoded: {error}");
                Err(Broken(Invariant::AnswersInRequestOrder, how).into())
            }
        }
    }
}

impl Line {
    /// Sends a request; whether it `is_answered` is up to what it is.
    pub async fn send<'a>(
        &self,
        request: &impl Request<'a>,
        version: i16,
        is_answered: bool,
    ) -> Come {
        let number = self.next.replace(self.next.get() + 1);
        let frame = encode_request(request, version, number, Some(&self.client.name)).into_bytes();
        if is_answered {
            self.due.borrow_mut().push_back(number);
        }
        let parts = [IoSlice::new(&frame)];
        match self.client.in_time(PATIENCE, self.stream.write_all(&parts)).await? {
            Ok(()) => Ok(()),
            Err(error) => gone(format!("not sent: {error}")),
        }
    }

    /// Waits for the answer to the oldest request.
    pub async fn receive(&self, version: i16) -> Come<Answer> {
        self.receive_within(PATIENCE, version).await
    }

    /// The same for answers that take their time.
    pub async fn receive_within(&self, patience: Duration, version: i16) -> Come<Answer> {
        let frame = self.client.in_time(patience, self.frame()).await?;
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return gone(format!("not answered: {error}")),
        };
        let number = frame.first_chunk().map(|number| i32::from_be_bytes(*number));
        let due = self.due.borrow_mut().pop_front();
        if number != due {
            let how = format!("answer {number:?} where {due:?} was due");
            return Err(Broken(Invariant::AnswersInRequestOrder, how).into());
        }
        Ok(Answer { frame, version })
    }

    /// Asks and waits.
    pub async fn call<'a>(&self, request: &impl Request<'a>, version: i16) -> Come<Answer> {
        self.call_within(PATIENCE, request, version).await
    }

    /// The same for answers that take their time.
    pub async fn call_within<'a>(
        &self,
        patience: Duration,
        request: &impl Request<'a>,
        version: i16,
    ) -> Come<Answer> {
        self.send(request, version, true).await?;
        self.receive_within(patience, version).await
    }

    async fn frame(&self) -> IoResult<Vec<u8>> {
        let len = self.bytes(FRAME_LEN_BYTES).await?;
        let len = u32::from_be_bytes(*len.first_chunk().expect("four bytes"));
        self.bytes(len as usize).await
    }

    async fn bytes(&self, len: usize) -> IoResult<Vec<u8>> {
        let (mut bytes, mut done) = (vec![0; len], 0);
        while done < len {
            match self.stream.read(&mut bytes[done..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(bytes)
    }
}
