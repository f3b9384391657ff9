//! A small client for Kafka's protocol over blocking sockets: for `perf`, for tests, and for tools
//! that talk to *any* broker. It agrees on versions, numbers its requests, bounds what it reads,
//! and knows nothing of topics, leaders or retries: its callers do.
//!
//! [`Client::call`] asks and waits. [`Client::split`] gives the two directions to two threads, for
//! many requests in flight. A connection after an error is of no use but to be dropped.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{
    DecodeError, Encoded, ErrorCode, FRAME_LEN_BYTES, Message, Request, decode_response,
    encode_request,
};

/// Largest answer that is read, in bytes; a longer one is an error before memory is taken for it.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Room that a connection begins to read into. A frame with more than this left is read to its end
/// and not beyond, so that no large piece of the next one has to be moved.
const BUFFER_BYTES: usize = 64 << 10;

/// Where the correlation id stands in a request's frame: behind length, API key and version.
const CORRELATION_AT: usize = 8;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection: refused, broken, timed out.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The broker closed it.
    #[error("the broker closed the connection")]
    Closed,
    /// The answer is longer than [`RESPONSE_BYTES_MAX`], or negative.
    #[error("an answer of {0} bytes is not taken")]
    Length(i32),
    /// The answer is not what its version says.
    #[error("malformed answer: {0}")]
    Malformed(#[from] DecodeError),
    /// The answer to another request.
    #[error("the answer to request {got} came where that to {want} was due")]
    Correlation {
        /// The request that was to be answered.
        want: i32,
        /// What the answer says it answers.
        got: i32,
    },
    /// The broker and this codec have no version in common.
    #[error("API {key}: the broker has versions {theirs:?}, here are {ours:?}")]
    Version {
        /// The API.
        key: i16,
        /// First and last version of the broker; `None`: it lacks the API.
        theirs: Option<(i16, i16)>,
        /// First and last version here (after the caller's limit).
        ours: (i16, i16),
    },
    /// The broker refused to tell its versions.
    #[error("ApiVersions: {0}")]
    Refused(ErrorCode),
}

/// Which versions of each API the broker serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(BTreeMap<i16, (i16, i16)>);

impl Versions {
    fn of(response: &ApiVersionsResponse<'_>) -> Versions {
        let range = |api: crate::wire::api_versions::ApiVersion| {
            (api.api_key, (api.min_version, api.max_version))
        };
        Versions(response.api_keys.iter().map(range).collect())
    }

    /// First and last version of an API, as the broker tells; `None` if it lacks it.
    pub fn of_api(&self, key: i16) -> Option<(i16, i16)> {
        self.0.get(&key).copied()
    }

    /// The highest version of `R` that both sides have.
    pub fn highest<'q, R: Request<'q>>(&self) -> Result<i16, ClientError> {
        self.at_most::<R>(i16::MAX)
    }

    /// The highest version of `R` up to `max` that both sides have.
    pub fn at_most<'q, R: Request<'q>>(&self, max: i16) -> Result<i16, ClientError> {
        let ours = (R::VERSION_MIN, R::VERSION_MAX.min(max));
        let theirs = self.of_api(R::KEY);
        let common = theirs.map(|(min, max)| (min.max(ours.0), max.min(ours.1)));
        match common {
            Some((min, max)) if min <= max => Ok(max),
            _ => Err(ClientError::Version { key: R::KEY, theirs, ours }),
        }
    }
}

/// A connection to one broker.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
}

impl Client {
    /// Connects to the first address of `broker` that accepts, and agrees on versions. `timeout`
    /// bounds the connecting to each address, and every read and write from then on
    /// ([`Client::set_timeout`] changes it).
    pub fn connect(
        broker: impl ToSocketAddrs,
        client_id: &str,
        timeout: Duration,
    ) -> Result<Client, ClientError> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in broker.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Client::on(stream, client_id, timeout),
                Err(error) => refused = error,
            }
        }
        Err(refused.into())
    }

    fn on(stream: TcpStream, client_id: &str, timeout: Duration) -> Result<Client, ClientError> {
        stream.set_nodelay(true)?;
        let versions = Versions::default();
        let client_id = client_id.to_owned();
        let reading = stream.try_clone()?;
        let mut client = Client {
            sender: Sender { stream, client_id, versions, next: 0 },
            receiver: Receiver { stream: reading, buffer: Vec::new(), start: 0, end: 0 },
        };
        client.set_timeout(Some(timeout))?;
        client.sender.versions = client.ask_versions()?;
        Ok(client)
    }

    /// Asks in our highest version; a broker that does not know it answers in version 0, with the
    /// range that it does know (KIP-511).
    fn ask_versions(&mut self) -> Result<Versions, ClientError> {
        let mut version = ApiVersionsRequest::VERSION_MAX;
        loop {
            let request = ApiVersionsRequest {
                client_software_name: "ringbolt-client",
                client_software_version: env!("CARGO_PKG_VERSION"),
                ..ApiVersionsRequest::default()
            };
            let sent = self.sender.send_in(&request, version)?;
            let answer = self.receiver.receive()?;
            answer.answers(sent)?;
            let unknown = ErrorCode::UnsupportedVersion.number().to_be_bytes();
            // The error code is the first field in every version.
            if version > 0 && answer.frame.get(4..6) == Some(&unknown[..]) {
                let ranges = Versions::of(&answer.decode::<ApiVersionsResponse<'_>>(0)?);
                let known = ranges.at_most::<ApiVersionsRequest<'_>>(version - 1).unwrap_or(0);
                version = known;
                continue;
            }
            let response = answer.decode::<ApiVersionsResponse<'_>>(version)?;
            return match response.error_code {
                ErrorCode::None => Ok(Versions::of(&response)),
                error => Err(ClientError::Refused(error)),
            };
        }
    }

    /// What the broker serves.
    pub fn versions(&self) -> &Versions {
        &self.sender.versions
    }

    /// The broker's address.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.sender.stream.peer_addr()
    }

    /// How long a read or write may take; `None`: for ever. A connection that timed out is of no
    /// more use.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.sender.stream.set_read_timeout(timeout)?;
        self.sender.stream.set_write_timeout(timeout)
    }

    /// Asks in the highest common version and waits for the answer.
    pub fn call<'c, 'q, R: Request<'q>>(
        &'c mut self,
        request: &R,
    ) -> Result<R::Response<'c>, ClientError> {
        let version = self.versions().highest::<R>()?;
        self.call_in(request, version)
    }

    /// Asks in `version`, which must be one that the message is declared for; whether the broker
    /// has it is not looked at.
    pub fn call_in<'c, 'q, R: Request<'q>>(
        &'c mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response<'c>, ClientError> {
        let sent = self.sender.send_in(request, version)?;
        let answer = self.receiver.receive()?;
        answer.answers(sent)?;
        Ok(answer.decode(version)?)
    }

    /// The two directions, for two threads.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// The asking direction of a connection. Requests go out whole, in the order of the calls.
#[derive(Debug)]
pub struct Sender {
    stream: TcpStream,
    client_id: String,
    versions: Versions,
    next: i32,
}

impl Sender {
    /// What the broker serves.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Sends in `version` without waiting; answers the correlation id.
    pub fn send_in<'q>(
        &mut self,
        request: &impl Request<'q>,
        version: i16,
    ) -> Result<i32, ClientError> {
        let mut frame = self.frame(request, version).into_bytes();
        self.send_frame(&mut frame)
    }

    /// Makes the frame of a request, to be sent as often as wanted.
    pub fn frame<'q>(&self, request: &impl Request<'q>, version: i16) -> Encoded {
        encode_request(request, version, 0, Some(&self.client_id))
    }

    /// Sends a whole frame, of [`Sender::frame`], under a correlation id of its own, and answers
    /// that. Ids count up from 0 and wrap around.
    pub fn send_frame(&mut self, frame: &mut [u8]) -> Result<i32, ClientError> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        frame[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&id.to_be_bytes());
        self.stream.write_all(frame)?;
        Ok(id)
    }

    /// Says that nothing more will be asked; what was asked is still answered.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the connection; a [`Receiver`] that waits gets [`ClientError::Closed`].
    pub fn abort(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Both)
    }
}

/// The answering direction of a connection.
#[derive(Debug)]
pub struct Receiver {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read and not yet handed out: `buffer[start..end]`.
    start: usize,
    end: usize,
}

/// One answer, still undecoded.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'r> {
    /// The request that it answers.
    pub correlation_id: i32,
    /// Header and body, without the 4-byte length.
    pub frame: &'r [u8],
}

impl<'r> Answer<'r> {
    /// Decodes it as the answer to a request of `version`.
    pub fn decode<M: Message<'r>>(&self, version: i16) -> Result<M, DecodeError> {
        decode_response(self.frame, version).map(|(_, message)| message)
    }

    fn answers(&self, want: i32) -> Result<(), ClientError> {
        match self.correlation_id {
            got if got == want => Ok(()),
            got => Err(ClientError::Correlation { want, got }),
        }
    }
}

impl Receiver {
    /// Waits for the next answer; they come in the order of the requests.
    pub fn receive(&mut self) -> Result<Answer<'_>, ClientError> {
        self.fill(FRAME_LEN_BYTES)?;
        let length = self.at(self.start);
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        if !(4..=RESPONSE_BYTES_MAX).contains(&len) {
            return Err(ClientError::Length(length));
        }
        self.fill(FRAME_LEN_BYTES + len)?;
        let from = self.start + FRAME_LEN_BYTES;
        self.start = from + len;
        let correlation_id = self.at(from);
        Ok(Answer { correlation_id, frame: &self.buffer[from..from + len] })
    }

    fn at(&self, at: usize) -> i32 {
        i32::from_be_bytes(self.buffer[at..at + 4].try_into().expect("four bytes"))
    }

    /// Reads until at least `need` bytes wait in one piece.
    fn fill(&mut self, need: usize) -> Result<(), ClientError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + need > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if need > self.buffer.len() {
                self.buffer.resize(need.max(BUFFER_BYTES), 0);
            }
        }
        while self.end - self.start < need {
            let missing = self.start + need - self.end;
            let to = if missing > BUFFER_BYTES { self.end + missing } else { self.buffer.len() };
            match self.stream.read(&mut self.buffer[self.end..to]) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
