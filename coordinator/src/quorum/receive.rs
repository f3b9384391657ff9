//! Messages from the other coordinators: checked, handed to openraft, answered.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use engine::env::Env;
use openraft::errors::RaftError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::Raft;
use super::layout::{EntryV1, LogIdV1, SnapshotMetaV1, VoteV1};
use super::log::Entries;
use super::memory::Memory;
use super::peers::Peers;
use super::snapshots::SNAPSHOT_BYTES_MAX;
use super::types::{Entry, LogId, SnapshotMeta, Types, Vote};
use super::wire::{AskBodyV1, AskV1, RefusalV1, ReplyBodyV1, VoteAskV1};

/// Where messages arrive.
pub(super) struct Desk<E: Env, S: Memory> {
    pub raft: Raft<E, S>,
    pub peers: Peers<E>,
    pub log: Entries<E>,
    /// The snapshot that is coming in, piece by piece.
    pub incoming: RefCell<Option<Incoming>>,
}

/// What has come of a snapshot.
pub(super) struct Incoming {
    vote: VoteV1,
    meta: SnapshotMetaV1,
    total: u64,
    bytes: Vec<u8>,
}

impl<E: Env, S: Memory> Desk<E, S> {
    /// The answer to a message. Never fails: what cannot be done is an answer, too.
    pub async fn receive(&self, message: &[u8]) -> Vec<u8> {
        let body = match AskV1::decode(message) {
            Err(error) => ReplyBodyV1::Refused(RefusalV1::Unreadable(error.to_string())),
            Ok(ask) => match self.peers.admit(&ask).await {
                Err(error) => ReplyBodyV1::Refused(RefusalV1::Ended(error.to_string())),
                Ok(Err(refusal)) => {
                    tracing::debug!(from = ask.from, ?refusal, "refused a coordinator's message");
                    ReplyBodyV1::Refused(refusal)
                }
                Ok(Ok(())) => self.answer(ask.body).await.unwrap_or_else(ReplyBodyV1::Refused),
            },
        };
        self.peers.reply(body).encode()
    }

    async fn answer(&self, ask: AskBodyV1) -> Result<ReplyBodyV1, RefusalV1> {
        match ask {
            AskBodyV1::PreVote(ask) => {
                voted(self.raft.pre_vote(vote_request(ask)).await.map_err(ended)?)
            }
            AskBodyV1::Vote(ask) => voted(self.raft.vote(vote_request(ask)).await.map_err(ended)?),
            AskBodyV1::Append { vote, previous, entries, committed } => {
                let bytes: usize = entries.iter().map(EntryV1::bytes).sum();
                let entries: Result<Vec<Entry>, String> =
                    entries.into_iter().map(EntryV1::restore).collect();
                let ask = AppendEntriesRequest {
                    vote: Vote::from(vote),
                    prev_log_id: previous.map(LogId::from),
                    entries: entries.map_err(RefusalV1::Unreadable)?,
                    leader_commit: committed.map(LogId::from),
                };
                self.append(ask, bytes as u64).await
            }
            AskBodyV1::Snapshot { vote, meta, total, at, piece } => {
                self.take_piece(Incoming { vote, meta, total, bytes: piece }, at).await
            }
            AskBodyV1::Transfer { leader, to, last } => {
                let last = last.map(LogId::from);
                let ask =
                    TransferLeaderRequest::new(Vote::from(leader), engine::ids::BrokerId(to), last);
                let answer = self.raft.handle_transfer_leader(ask).await;
                let answer = answer.map_err(|fatal| RefusalV1::Ended(fatal.to_string()))?;
                Ok(match answer {
                    Ok(()) => ReplyBodyV1::Transferred,
                    Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                        let (expected, actual) = (VoteV1::from(&expected), VoteV1::from(&actual));
                        ReplyBodyV1::VoteChanged { expected, actual }
                    }
                    Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                        let id = |id: Option<LogId>| id.as_ref().map(LogIdV1::from);
                        ReplyBodyV1::NotFlushed { expected: id(expected), actual: id(actual) }
                    }
                })
            }
        }
    }

    async fn append(
        &self,
        ask: AppendEntriesRequest<Types>,
        bytes: u64,
    ) -> Result<ReplyBodyV1, RefusalV1> {
        if !ask.entries.is_empty()
            && let Err(error) = self.log.reserve(bytes).await
        {
            // Openraft would take a full device for a broken one.
            return Err(match error.kind() {
                io::ErrorKind::StorageFull => RefusalV1::NoSpace,
                _ => RefusalV1::Ended(error.to_string()),
            });
        }
        let answer = self.raft.append_entries(ask).await.map_err(ended)?;
        Ok(match answer {
            AppendEntriesResponse::Success => ReplyBodyV1::Appended,
            AppendEntriesResponse::PartialSuccess(last) => {
                ReplyBodyV1::AppendedUpTo(last.as_ref().map(LogIdV1::from))
            }
            AppendEntriesResponse::Conflict => ReplyBodyV1::Conflict,
            AppendEntriesResponse::HigherVote(vote) => ReplyBodyV1::HigherVote(VoteV1::from(&vote)),
        })
    }

    /// Takes a piece of a snapshot; with the last one it is installed.
    async fn take_piece(&self, piece: Incoming, at: u64) -> Result<ReplyBodyV1, RefusalV1> {
        let whole = {
            let mut incoming = self.incoming.borrow_mut();
            if at == 0 && piece.total <= SNAPSHOT_BYTES_MAX {
                let Incoming { vote, meta, total, .. } = &piece;
                let (vote, meta, total) = (*vote, meta.clone(), *total);
                *incoming = Some(Incoming { vote, meta, total, bytes: Vec::new() });
            }
            let Some(so_far) = &mut *incoming else { return Ok(ReplyBodyV1::Taken { next: 0 }) };
            let same =
                (so_far.vote, &so_far.meta, so_far.total) == (piece.vote, &piece.meta, piece.total);
            if !same {
                return Ok(ReplyBodyV1::Taken { next: 0 });
            }
            if at == so_far.bytes.len() as u64 {
                so_far.bytes.extend_from_slice(&piece.bytes);
            }
            let next = so_far.bytes.len() as u64;
            if next < so_far.total {
                return Ok(ReplyBodyV1::Taken { next });
            }
            incoming.take().expect("it was looked at")
        };
        let meta = SnapshotMeta::try_from(whole.meta).map_err(RefusalV1::Unreadable)?;
        let body: Rc<[u8]> = whole.bytes.into();
        let snapshot = openraft::Snapshot { meta, snapshot: body };
        let installed = self.raft.install_full_snapshot(Vote::from(whole.vote), snapshot).await;
        let installed = installed.map_err(|fatal| RefusalV1::Ended(fatal.to_string()))?;
        Ok(ReplyBodyV1::Installed { vote: VoteV1::from(&installed.vote) })
    }
}

fn vote_request(ask: VoteAskV1) -> VoteRequest<Types> {
    VoteRequest {
        vote: Vote::from(ask.vote),
        last_log_id: ask.last.map(LogId::from),
        leadership_transfer: ask.transfer,
    }
}

fn voted(answer: VoteResponse<Types>) -> Result<ReplyBodyV1, RefusalV1> {
    Ok(ReplyBodyV1::Voted {
        vote: VoteV1::from(&answer.vote),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(LogIdV1::from),
    })
}

fn ended(error: RaftError<Types>) -> RefusalV1 {
    RefusalV1::Ended(error.to_string())
}
