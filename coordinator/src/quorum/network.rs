//! openraft's view of the other coordinators: each question becomes a message in the outbox, and
//! waits for its answer as long as it may.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use engine::env::Env;
use engine::ids::BrokerId;
use futures_lite::future;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::layout::{EntryV1, LogIdV1, SnapshotMetaV1, VoteV1};
use super::outbox::Outbox;
use super::peers::Peers;
use super::types::{LogId, Payload, Types, Vote, Voter};
use super::wire::{AskBodyV1, ReplyBodyV1, ReplyV1, VoteAskV1};

type Trouble = RPCError<Types>;
type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Rc<[u8]>>;

/// Bytes of a snapshot in one message.
const PIECE_BYTES: usize = 1 << 20;

/// Makes a [`Line`] for each peer.
pub(super) struct Lines<E: Env> {
    pub env: E,
    pub me: BrokerId,
    pub peers: Peers<E>,
    pub outbox: Outbox,
    /// How long an answer to entries may take.
    pub patience: Duration,
}

/// The way to one peer.
pub(super) struct Line<E: Env> {
    env: E,
    me: BrokerId,
    to: BrokerId,
    endpoint: String,
    peers: Peers<E>,
    outbox: Outbox,
    patience: Duration,
}

impl<E: Env> RaftNetworkFactory<Types> for Lines<E> {
    type Network = Line<E>;

    async fn new_client(&mut self, to: BrokerId, voter: &Voter) -> Line<E> {
        Line {
            env: self.env.clone(),
            me: self.me,
            to,
            endpoint: voter.endpoint.clone(),
            peers: self.peers.clone(),
            outbox: self.outbox.clone(),
            patience: self.patience,
        }
    }
}

fn unreachable(why: impl ToString) -> Trouble {
    RPCError::Unreachable(Unreachable::from_string(why))
}

impl<E: Env> Line<E> {
    /// Asks, and waits for an answer from whom was asked.
    async fn ask(
        &self,
        action: RPCTypes,
        body: AskBodyV1,
        within: Duration,
    ) -> Result<ReplyBodyV1, Trouble> {
        let message = self.peers.ask(self.to, body).encode();
        let answer = self.outbox.put(self.to, &self.endpoint, message);
        let late = async {
            self.env.sleep_until(self.env.now().after(within)).await;
            None
        };
        let Some(answer) = future::or(async { Some(answer.await) }, late).await else {
            let (id, target) = (self.me, self.to);
            return Err(RPCError::Timeout(Timeout { action, id, target, timeout: within }));
        };
        let bytes = answer.map_err(|_| unreachable("the message was not delivered"))?;
        let reply = ReplyV1::decode(&bytes).map_err(unreachable)?;
        let checked = self.peers.check(self.to, &reply).await.map_err(unreachable)?;
        checked.map_err(unreachable)?;
        Ok(reply.body)
    }

    async fn ask_for_vote(
        &self,
        ask: VoteRequest<Types>,
        pre: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, Trouble> {
        let ask = VoteAskV1 {
            vote: VoteV1::from(&ask.vote),
            last: ask.last_log_id.as_ref().map(LogIdV1::from),
            transfer: ask.leadership_transfer,
        };
        let body = if pre { AskBodyV1::PreVote(ask) } else { AskBodyV1::Vote(ask) };
        match self.ask(RPCTypes::Vote, body, option.soft_ttl()).await? {
            ReplyBodyV1::Voted { vote, granted, last } => {
                Ok(VoteResponse::new(Vote::from(vote), last.map(LogId::from), granted))
            }
            other => Err(unreachable(format!("an answer to something else: {other:?}"))),
        }
    }

    /// As many of the entries as this peer may have: what is decided only when its directory stands
    /// in the membership (see [`super::peers`]).
    fn permitted(&self, ask: &AppendEntriesRequest<Types>) -> usize {
        if self.peers.is_introduced(self.to) {
            return ask.entries.len();
        }
        let decided = |payload: &Payload| matches!(payload, Payload::Normal(_));
        ask.entries.iter().take_while(|entry| !decided(&entry.payload)).count()
    }
}

impl<E: Env> RaftNetworkV2<Types> for Line<E> {
    type SnapshotData = Rc<[u8]>;

    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Trouble> {
        let permitted = self.permitted(&ask);
        if permitted == 0 && !ask.entries.is_empty() {
            return Err(unreachable("it is not introduced yet"));
        }
        let partly = (permitted < ask.entries.len()).then(|| ask.entries[permitted - 1].log_id);
        let body = AskBodyV1::Append {
            vote: VoteV1::from(&ask.vote),
            previous: ask.prev_log_id.as_ref().map(LogIdV1::from),
            entries: ask.entries[..permitted].iter().map(EntryV1::from).collect(),
            committed: ask.leader_commit.as_ref().map(LogIdV1::from),
        };
        let within = match ask.entries.is_empty() {
            true => option.soft_ttl(),
            false => self.patience,
        };
        match self.ask(RPCTypes::AppendEntries, body, within).await? {
            ReplyBodyV1::Appended => Ok(match partly {
                Some(last) => AppendEntriesResponse::PartialSuccess(Some(last)),
                None => AppendEntriesResponse::Success,
            }),
            ReplyBodyV1::AppendedUpTo(last) => {
                Ok(AppendEntriesResponse::PartialSuccess(last.map(LogId::from)))
            }
            ReplyBodyV1::Conflict => Ok(AppendEntriesResponse::Conflict),
            ReplyBodyV1::HigherVote(vote) => {
                Ok(AppendEntriesResponse::HigherVote(Vote::from(vote)))
            }
            other => Err(unreachable(format!("an answer to something else: {other:?}"))),
        }
    }

    async fn vote(
        &mut self,
        ask: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Trouble> {
        self.ask_for_vote(ask, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        ask: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Trouble> {
        self.ask_for_vote(ask, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        if !self.peers.is_introduced(self.to) {
            return Err(unreachable("it is not introduced yet").into());
        }
        let send = async {
            let (body, mut at) = (&snapshot.snapshot, 0_usize);
            loop {
                let end = body.len().min(at + PIECE_BYTES);
                let piece = AskBodyV1::Snapshot {
                    vote: VoteV1::from(&vote),
                    meta: SnapshotMetaV1::from(&snapshot.meta),
                    total: body.len() as u64,
                    at: at as u64,
                    piece: body[at..end].to_vec(),
                };
                // Writing a large one to the device takes its time.
                let within = self.patience * 4;
                match self.ask(RPCTypes::InstallSnapshot, piece, within).await? {
                    ReplyBodyV1::Taken { next } => {
                        at = usize::try_from(next).unwrap_or(0).min(body.len());
                    }
                    ReplyBodyV1::Installed { vote } => {
                        return Ok(SnapshotResponse::new(Vote::from(vote)));
                    }
                    other => {
                        let why = format!("an answer to something else: {other:?}");
                        return Err(StreamingError::from(unreachable(why)));
                    }
                }
            }
        };
        future::or(send, async { Err(StreamingError::Closed(cancel.await)) }).await
    }

    async fn transfer_leader(
        &mut self,
        ask: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Trouble> {
        let body = AskBodyV1::Transfer {
            leader: VoteV1::from(ask.from_leader()),
            to: ask.to_node_id().0,
            last: ask.last_log_id().map(LogIdV1::from),
        };
        match self.ask(RPCTypes::TransferLeader, body, option.soft_ttl()).await? {
            ReplyBodyV1::Transferred => Ok(Ok(())),
            ReplyBodyV1::VoteChanged { expected, actual } => {
                let (expected, actual) = (Vote::from(expected), Vote::from(actual));
                Ok(Err(TransferLeaderError::VoteChanged { expected, actual }))
            }
            ReplyBodyV1::NotFlushed { expected, actual } => {
                let (expected, actual) = (expected.map(LogId::from), actual.map(LogId::from));
                Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
            }
            other => Err(unreachable(format!("an answer to something else: {other:?}"))),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let pause = self.patience / 4;
        Some(Backoff::new(std::iter::repeat(pause)))
    }
}
