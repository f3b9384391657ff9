//! A coordinator among the nodes: answers other nodes on the coordinators' listener, and delivers
//! what the quorum has to say to the other coordinators.
//!
//! Each connection is a conversation: one request, one answer. A node that wants to ask while it
//! waits for something else opens another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use coordinator::controller::Request;
use coordinator::metadata::Metadata;
use coordinator::quorum::outbox::Outbound;
use coordinator::quorum::types::{self, Directory};
use coordinator::quorum::{ChangeError, Progress, ProposeError};
use coordinator::runtime::RequestError;
use engine::env::Queue;
use engine::ids::{BrokerId, Offset};
use engine::wait::{Gate, Watch};
use futures_lite::future;

use crate::api::{API_VERSIONS, lookup, quorum};
use crate::connection::inbox::Inbox;
use crate::env::{Listener, NetEnv, Stream};
use crate::frame::Frame;
use crate::link::{Link, LinkError};
use crate::wire::api_versions::{ApiVersion, ApiVersionsResponse};
use crate::wire::control::{ControlRequest, ControlResponse};
use crate::wire::describe_quorum::DescribeQuorumRequest;
use crate::wire::metadata_fetch::{MetadataFetchRequest, MetadataFetchResponse};
use crate::wire::quorum::{QuorumRequest, QuorumResponse};
use crate::wire::quorum_change::{QuorumChangeRequest, QuorumChangeResponse};
use crate::wire::{Encoded, ErrorCode, Message, Reader, RequestHeader, encode_response};

/// Longest request of another node, in bytes: a piece of a snapshot with its envelope.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// How long a message to another coordinator may take.
const DELIVERY_MAX: Duration = Duration::from_secs(5);
/// Idle connections to one coordinator that are kept.
const IDLE_LINKS_MAX: usize = 4;
/// Connections of other nodes at the same time.
const CONVERSATIONS_MAX: u64 = 4_096;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for news.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the conversations share.
struct Voter<E: NetEnv> {
    env: E,
    metadata: Metadata<E>,
    stopping: Watch,
    gate: Gate,
}

/// Accepts other nodes until `stopping` is raised to 1, then waits for the answers that are due.
pub async fn serve<E: NetEnv>(
    env: E,
    listener: E::Listener,
    metadata: Metadata<E>,
    stopping: Watch,
) {
    let voter = Rc::new(Voter { env, metadata, stopping, gate: Gate::default() });
    loop {
        let stopped = async {
            let _ = voter.stopping.reach(1).await;
            None
        };
        let stream = match future::or(stopped, async { Some(listener.accept().await) }).await {
            None => break,
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::warn!(%error, "a node was not accepted");
                voter.env.sleep_until(voter.env.now().after(ACCEPT_PAUSE)).await;
                continue;
            }
        };
        if voter.gate.inside() >= CONVERSATIONS_MAX {
            tracing::warn!(peer = %stream.peer(), "too many nodes; this one is closed");
            continue;
        }
        let Some(pass) = voter.gate.enter() else { break };
        let talking = voter.clone();
        voter.env.spawn(Queue::Request, async move {
            let peer = stream.peer();
            if let Err(why) = talking.converse(&stream).await {
                tracing::debug!(%peer, why, "the conversation with a node ended");
            }
            drop(pass);
        });
        voter.env.turn().await;
    }
    voter.gate.close().await;
}

impl<E: NetEnv> Voter<E> {
    async fn converse(&self, stream: &E::Stream) -> Result<(), String> {
        let mut inbox = Inbox::new(REQUEST_BYTES_MAX);
        loop {
            let frame = loop {
                if let Some(frame) = inbox.take().map_err(|error| error.to_string())? {
                    break frame;
                }
                let stopped = async {
                    let _ = self.stopping.reach(1).await;
                    Ok(0)
                };
                let read = future::or(stream.read(inbox.room()), stopped).await;
                match read.map_err(|error| error.to_string())? {
                    0 => return Ok(()),
                    count => inbox.filled(count),
                }
            };
            let answer = self.answer(&frame).await?.into_bytes();
            stream.write_all(&[IoSlice::new(&answer)]).await.map_err(|error| error.to_string())?;
            self.env.turn().await;
        }
    }

    async fn answer(&self, frame: &Frame) -> Result<Encoded, String> {
        let mut reader = Reader::new(frame);
        let header =
            RequestHeader::decode_from_peer(&mut reader).map_err(|error| error.to_string())?;
        let (version, number) = (header.version, header.correlation_id);
        let malformed = |error: crate::wire::DecodeError| format!("{}: {error}", header.api.name);
        match header.api.key {
            QuorumRequest::KEY => {
                let request = QuorumRequest::decode(&mut reader, version).map_err(malformed)?;
                let message = self.metadata.receive(request.message).await;
                Ok(QuorumResponse { message: message.into() }.encode(version, number))
            }
            ControlRequest::KEY => {
                let request = ControlRequest::decode(&mut reader, version).map_err(malformed)?;
                Ok(self.decide(request.request).await.encode(version, number))
            }
            MetadataFetchRequest::KEY => {
                let request =
                    MetadataFetchRequest::decode(&mut reader, version).map_err(malformed)?;
                Ok(self.news(&request).await.encode(version, number))
            }
            QuorumChangeRequest::KEY => {
                let request =
                    QuorumChangeRequest::decode(&mut reader, version).map_err(malformed)?;
                Ok(self.change(&request).await.encode(version, number))
            }
            DescribeQuorumRequest::KEY => {
                let request =
                    DescribeQuorumRequest::decode(&mut reader, version).map_err(malformed)?;
                let status = self.metadata.status();
                let answer = quorum::describe(&request, &status, self.env.wall());
                Ok(encode_response(&answer, version, number))
            }
            API_VERSIONS => Ok(api_versions(&header)),
            _ => Err(format!("{} is not for coordinators", header.api.name)),
        }
    }

    async fn decide(&self, request: &[u8]) -> ControlResponse<'static> {
        let request = match Request::decode(request) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "a node asked for something that cannot be read");
                let error_code = ErrorCode::InvalidRequest;
                return ControlResponse { error_code, ..Default::default() };
            }
        };
        let failed = |error_code| ControlResponse { error_code, ..Default::default() };
        match self.metadata.request(request).await {
            Ok(answer) => ControlResponse {
                error_code: ErrorCode::None,
                leader_id: self.leader(),
                answer: answer.reply.encode().into(),
                at: answer.at.to_wire(),
            },
            Err(RequestError::NotController { leader }) => ControlResponse {
                leader_id: leader.map_or(-1, |leader| leader.0),
                ..failed(ErrorCode::NotController)
            },
            Err(error) => {
                tracing::debug!(%error, "nothing was decided for a node");
                failed(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }

    /// Lets others vote, if this coordinator leads.
    async fn change(&self, request: &QuorumChangeRequest<'_>) -> QuorumChangeResponse<'static> {
        let add: Vec<(BrokerId, types::Voter)> = request
            .add
            .iter()
            .map(|new| {
                let directory = Some(Directory(new.directory));
                let endpoint = new.endpoint.to_owned();
                (BrokerId(new.node_id), types::Voter { directory, endpoint })
            })
            .collect();
        let remove: Vec<BrokerId> = request.remove.iter().map(BrokerId).collect();
        let status = self.metadata.status();
        let stays = |voter: &&Progress| !remove.contains(&voter.id);
        let changed = match status.voters.iter().find(stays) {
            // Whoever leads hands over before it goes; the new leader is asked again.
            Some(other) if status.leader == Some(status.me) && remove.contains(&status.me) => {
                let leader = Some(other.id);
                let handed = self.metadata.transfer(other.id).await;
                handed.and(Err(ProposeError::NotLeader { leader }.into()))
            }
            _ => self.metadata.change_voters(&add, &remove).await,
        };
        if let Err(error) = &changed {
            tracing::info!(%error, ?remove, "the voters stay as they are");
        }
        let error_code = match &changed {
            Ok(()) => ErrorCode::None,
            Err(ChangeError::Propose(ProposeError::NotLeader { .. })) => ErrorCode::NotController,
            Err(ChangeError::Propose(_) | ChangeError::Slow(_) | ChangeError::Busy(_)) => {
                ErrorCode::CoordinatorNotAvailable
            }
            Err(ChangeError::Member(_)) => ErrorCode::DuplicateVoter,
            Err(ChangeError::NotMember(_)) => ErrorCode::VoterNotFound,
            Err(
                ChangeError::Voters { .. }
                | ChangeError::NoDirectory(_)
                | ChangeError::NotIntroduced(_),
            ) => ErrorCode::InvalidRequest,
        };
        QuorumChangeResponse {
            error_code,
            error_message: changed.err().map(|error| error.to_string().into()),
            leader_id: self.leader(),
        }
    }

    fn leader(&self) -> i32 {
        self.metadata.controller().map_or(-1, |leader| leader.0)
    }

    async fn news(&self, request: &MetadataFetchRequest) -> MetadataFetchResponse<'static> {
        let error = |error_code| MetadataFetchResponse { error_code, since: (&[]).into() };
        let Some(from) = Offset::from_wire(request.from) else {
            return error(ErrorCode::InvalidRequest);
        };
        let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(WAIT_MAX);
        let late = self.env.sleep_until(self.env.now().after(wait));
        let stopped = async {
            let _ = self.stopping.reach(1).await;
        };
        let there = async {
            let _ = self.metadata.newer_than(from).await;
        };
        future::or(there, future::or(late, stopped)).await;
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
        match self.metadata.committed_since(from, bytes_max).await {
            Ok(since) => {
                let since = since.encode().into();
                MetadataFetchResponse { error_code: ErrorCode::None, since }
            }
            Err(why) => {
                tracing::debug!(%why, "nothing can be told to a node");
                error(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }
}

/// What clients may ask a coordinator: who agrees on the metadata.
fn api_versions(header: &RequestHeader<'_>) -> Encoded {
    let known = header.api.accepts(header.version);
    let served = [API_VERSIONS, DescribeQuorumRequest::KEY].map(|key| {
        let api = lookup(key).expect("it is in the table");
        ApiVersion { api_key: key, min_version: api.version_min, max_version: api.version_max }
    });
    let mut answer =
        ApiVersionsResponse { api_keys: served.into_iter().collect(), ..Default::default() };
    if !known {
        answer.error_code = ErrorCode::UnsupportedVersion;
    }
    encode_response(&answer, if known { header.version } else { 0 }, header.correlation_id)
}

/// Connections to the other coordinators that nobody uses at the moment, by `host:port`.
type Idle<E> = RefCell<BTreeMap<String, Vec<Link<E>>>>;

/// Delivers what the quorum has to say, until it has ended. Messages do not wait for each other.
pub async fn deliver_all<E: NetEnv>(env: E, metadata: Metadata<E>) {
    let idle: Rc<Idle<E>> = Rc::default();
    let outbox = metadata.outbox();
    while let Some(outbound) = outbox.next().await {
        let (env, idle) = (env.clone(), idle.clone());
        env.clone().spawn(Queue::Replication, async move {
            let to = outbound.to;
            if let Err(error) = deliver(&env, &idle, outbound).await {
                tracing::debug!(%to, %error, "a coordinator was not reached");
            }
        });
    }
}

async fn deliver<E: NetEnv>(env: &E, idle: &Idle<E>, outbound: Outbound) -> Result<(), LinkError> {
    let Outbound { endpoint, message, reply, .. } = outbound;
    let known = idle.borrow_mut().get_mut(&endpoint).and_then(Vec::pop);
    let mut link = match known {
        Some(link) => link,
        None => Link::connect(env, &endpoint, DELIVERY_MAX).await?,
    };
    let request = QuorumRequest { message: &message };
    let answer = match link.call(&request, 0, DELIVERY_MAX).await {
        Ok(answer) => answer,
        Err(error) => {
            // The others of the same time are most likely as dead.
            idle.borrow_mut().remove(&endpoint);
            return Err(error);
        }
    };
    reply.send(answer.decode::<QuorumResponse<'_>>(0)?.message.into_owned());
    let mut idle = idle.borrow_mut();
    let links = idle.entry(endpoint).or_default();
    if links.len() < IDLE_LINKS_MAX {
        links.push(link);
    }
    Ok(())
}
