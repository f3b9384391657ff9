//! The leader's side of a fetch stream, pure: one follower's session on one connection.
//!
//! It keeps a cursor per partition (the next offset to send) and what the follower was last told.
//! A request goes through three steps: [`Stream::on_request`] takes it in, and its promises are
//! given to the partitions at once, whose verdicts come back with [`Stream::on_verdict`]; then it
//! waits until [`Stream::reads`] find something or [`Stream::is_superseded`]; then what was read is
//! entered with [`Stream::on_read`] and sent. The cursor advances when the answer is read, not when
//! it has arrived: if it does not arrive, the connection is lost and the session with it.
//!
//! When a limit cuts an answer, those that got nothing come first in the next one.

use std::collections::BTreeMap;

use engine::epochs::EpochEnd;
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};

use crate::ask::{FetchAsk, FetchFault, FetchPart, Outcome, ReplicaFetch};
use crate::leader::Verdict;

/// One follower's session.
#[derive(Debug, Clone)]
pub struct Stream {
    follower: BrokerId,
    broker_epoch: BrokerEpoch,
    session: Option<u64>,
    /// Number that the next request must have.
    next_seq: u64,
    cursors: BTreeMap<TopicPartition, Cursor>,
    /// Order in which they are served: who was given something goes to the end.
    turns: BTreeMap<u64, TopicPartition>,
    next_turn: u64,
}

#[derive(Debug, Clone)]
struct Cursor {
    leader_epoch: LeaderEpoch,
    /// Next offset to send; `None`: stopped until the follower says its position.
    next: Option<Offset>,
    /// The request that said the position last.
    placed: u64,
    told: Option<Head>,
    trouble: Option<Trouble>,
    turn: u64,
}

/// What a follower is told of a partition beside its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's first readable offset.
    pub log_start: Offset,
}

/// Why a cursor was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The logs part.
    Diverging(EpochEnd),
    /// The leader does not serve it.
    Failed(FetchFault),
}

impl<B> From<Trouble> for Outcome<B> {
    fn from(trouble: Trouble) -> Outcome<B> {
        match trouble {
            Trouble::Diverging(end) => Outcome::Diverging(end),
            Trouble::Failed(fault) => Outcome::Failed(fault),
        }
    }
}

/// A partition to read for the answer, in the order in which the byte limit is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The partition.
    pub id: TopicPartition,
    /// The term that the follower believes in.
    pub leader_epoch: LeaderEpoch,
    /// From where on.
    pub from: Offset,
    /// What the follower was told last: anything else is news.
    pub told: Option<Head>,
    /// The request that put the cursor there. Another one may come while this is read, and put it
    /// to the same offset: then the follower does not look at the answer that this is read for.
    pub placed: u64,
}

/// The request does not belong to this session: the follower must begin a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request {seq} of session {session} is not the next one of the fetch stream")]
pub struct NotNext {
    /// Its session.
    pub session: u64,
    /// Its number.
    pub seq: u64,
}

impl Stream {
    /// Of a follower in one registration.
    pub fn new(follower: BrokerId, broker_epoch: BrokerEpoch) -> Stream {
        Stream {
            follower,
            broker_epoch,
            session: None,
            next_seq: 0,
            cursors: BTreeMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
        }
    }

    /// Takes a request in. What it answers goes to the partitions, in order, before anything else
    /// of this stream does.
    pub fn on_request(&mut self, ask: &FetchAsk) -> Result<Vec<ReplicaFetch>, NotNext> {
        if ask.seq == 0 && self.session.is_none_or(|known| known != ask.session) {
            self.session = Some(ask.session);
            self.next_seq = 0;
            self.cursors.clear();
            self.turns.clear();
        }
        if self.session != Some(ask.session) || self.next_seq != ask.seq {
            return Err(NotNext { session: ask.session, seq: ask.seq });
        }
        self.next_seq += 1;
        for id in &ask.forgotten {
            if let Some(cursor) = self.cursors.remove(id) {
                self.turns.remove(&cursor.turn);
            }
        }
        let fetch = |part: &FetchPart| ReplicaFetch {
            replica: self.follower,
            broker_epoch: self.broker_epoch,
            part: *part,
        };
        let fetches = ask.parts.iter().map(fetch).collect();
        ask.parts.iter().for_each(|part| self.on_part(ask.seq, part));
        Ok(fetches)
    }

    fn on_part(&mut self, seq: u64, part: &FetchPart) {
        let turn = self.cursors.get(&part.id).map(|cursor| cursor.turn);
        if turn.is_some() && part.position.is_none() {
            return;
        }
        let turn = turn.unwrap_or_else(|| {
            self.next_turn += 1;
            self.turns.insert(self.next_turn, part.id);
            self.next_turn
        });
        let leader_epoch = part.leader_epoch;
        // Without a position it is stopped: the partition's verdict will say so.
        let cursor =
            Cursor { leader_epoch, next: None, placed: seq, told: None, trouble: None, turn };
        self.cursors.insert(part.id, cursor);
    }

    /// Whether a newer request has come: then this one is answered at once, with what there is.
    pub fn is_superseded(&self, seq: u64) -> bool {
        self.next_seq > seq + 1
    }

    /// What the partition said to its part of request `seq`.
    pub fn on_verdict(&mut self, seq: u64, part: &FetchPart, verdict: Result<Verdict, FetchFault>) {
        let Some(cursor) = self.cursors.get_mut(&part.id) else { return };
        if seq < cursor.placed {
            return;
        }
        match (verdict, part.position) {
            (Ok(Verdict::Fits), Some(position)) => cursor.next = Some(position.offset),
            (Ok(Verdict::Fits), None) => {}
            (Ok(Verdict::Diverging(end)), _) => cursor.stop(Trouble::Diverging(end)),
            (Err(fault), _) => cursor.stop(Trouble::Failed(fault)),
        }
    }

    /// Whether there is something to answer to request `seq` before anything is read.
    pub fn has_trouble(&self, seq: u64) -> bool {
        self.cursors.values().any(|cursor| cursor.placed <= seq && cursor.trouble.is_some())
    }

    /// What is to be told of stopped cursors in the answer to `seq`, once.
    pub fn take_troubles(&mut self, seq: u64) -> Vec<(TopicPartition, Trouble)> {
        let each = self.cursors.iter_mut().filter(|(_, cursor)| cursor.placed <= seq);
        each.filter_map(|(id, cursor)| Some((*id, cursor.trouble.take()?))).collect()
    }

    /// What to read for the answer to `seq`, and what to wait for. A cursor that a newer request
    /// has put is not read for an older one: its follower waits for the newer answer.
    pub fn reads(&self, seq: u64) -> Vec<Read> {
        let reads = self.turns.values().filter_map(|id| {
            let cursor = &self.cursors[id];
            if cursor.placed > seq {
                return None;
            }
            let Cursor { leader_epoch, told, placed, .. } = *cursor;
            Some(Read { id: *id, leader_epoch, from: cursor.next?, told, placed })
        });
        reads.collect()
    }

    /// A partition was read from `from` up to `next`. Says whether it belongs into the answer:
    /// there are batches, or the head is news. Not if the cursor was put elsewhere meanwhile.
    pub fn on_read(&mut self, read: &Read, next: Offset, head: Head) -> bool {
        let Some(cursor) = self.cursors.get_mut(&read.id) else { return false };
        if !cursor.is_of(read) {
            return false;
        }
        let news = next > read.from || cursor.told != Some(head);
        if next > read.from {
            self.turns.remove(&cursor.turn);
            self.next_turn += 1;
            cursor.turn = self.next_turn;
            self.turns.insert(cursor.turn, read.id);
        }
        cursor.next = Some(next);
        cursor.told = Some(head);
        news
    }

    /// A partition could not be read.
    pub fn on_unreadable(&mut self, read: &Read, fault: FetchFault) {
        if let Some(cursor) = self.cursors.get_mut(&read.id)
            && cursor.is_of(read)
        {
            cursor.stop(Trouble::Failed(fault));
        }
    }
}

impl Cursor {
    /// Whether it still stands where a read began.
    fn is_of(&self, read: &Read) -> bool {
        self.next == Some(read.from) && self.placed == read.placed
    }

    fn stop(&mut self, trouble: Trouble) {
        self.next = None;
        self.told = None;
        self.trouble = Some(trouble);
    }
}

#[cfg(test)]
mod tests;
