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
//!
//! Only cursors that may have something to say are read: a new one, and one that had batches. Where
//! nothing was found a cursor is calm, and whoever drives the stream watches its partition and says
//! when there is news ([`Stream::stir`]). So an answer costs what is in it, and not what the stream
//! has.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Those that are not calm, in the order in which they are served: who was given something goes
    /// to the end.
    turns: BTreeMap<u64, TopicPartition>,
    next_turn: u64,
    /// Those that were stopped, and perhaps put anew since.
    troubled: BTreeSet<TopicPartition>,
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
    /// `None`: it is calm.
    turn: Option<u64>,
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
            troubled: BTreeSet::new(),
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
            self.troubled.clear();
        }
        if self.session != Some(ask.session) || self.next_seq != ask.seq {
            return Err(NotNext { session: ask.session, seq: ask.seq });
        }
        self.next_seq += 1;
        for id in &ask.forgotten {
            if let Some(turn) = self.cursors.remove(id).and_then(|cursor| cursor.turn) {
                self.turns.remove(&turn);
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
        let known = self.cursors.get(&part.id);
        if known.is_some() && part.position.is_none() {
            return;
        }
        let turn = known.and_then(|cursor| cursor.turn).unwrap_or_else(|| self.take_turn(part.id));
        let leader_epoch = part.leader_epoch;
        // Without a position it is stopped: the partition's verdict will say so.
        let (next, told, trouble, turn) = (None, None, None, Some(turn));
        let cursor = Cursor { leader_epoch, next, placed: seq, told, trouble, turn };
        self.cursors.insert(part.id, cursor);
    }

    /// The last place in the order.
    fn take_turn(&mut self, id: TopicPartition) -> u64 {
        self.next_turn += 1;
        self.turns.insert(self.next_turn, id);
        self.next_turn
    }

    /// A partition may have news: batches behind the cursor, or another head.
    pub fn stir(&mut self, id: TopicPartition) {
        let calm = |cursor: &&Cursor| cursor.turn.is_none() && cursor.next.is_some();
        if self.cursors.get(&id).filter(calm).is_some() {
            let turn = self.take_turn(id);
            self.cursors.entry(id).and_modify(|cursor| cursor.turn = Some(turn));
        }
    }

    /// Any partition may have news.
    pub fn stir_all(&mut self) {
        let ids: Vec<TopicPartition> = self.cursors.keys().copied().collect();
        ids.into_iter().for_each(|id| self.stir(id));
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
            (Ok(Verdict::Diverging(end)), _) => self.stop(part.id, Trouble::Diverging(end)),
            (Err(fault), _) => self.stop(part.id, Trouble::Failed(fault)),
        }
    }

    /// Whether there is something to answer to request `seq` before anything is read.
    pub fn has_trouble(&self, seq: u64) -> bool {
        self.cursors.values().any(|cursor| cursor.placed <= seq && cursor.trouble.is_some())
    }

    /// What is to be told of stopped cursors in the answer to `seq`, once.
    pub fn take_troubles(&mut self, seq: u64) -> Vec<(TopicPartition, Trouble)> {
        let (mut told, cursors) = (Vec::new(), &mut self.cursors);
        self.troubled.retain(|id| {
            let Some(cursor) = cursors.get_mut(id) else { return false };
            if cursor.placed <= seq {
                told.extend(cursor.trouble.take().map(|trouble| (*id, trouble)));
            }
            cursor.trouble.is_some()
        });
        told
    }

    /// What to read for the answer to `seq`: every cursor that is not calm. One that a newer request
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
    /// there are batches, or the head is news. Not if the cursor was put elsewhere meanwhile. Where
    /// there are no batches it is calm from now on, and to be watched.
    pub fn on_read(&mut self, read: &Read, next: Offset, head: Head) -> bool {
        let Some(cursor) = self.cursors.get_mut(&read.id) else { return false };
        if !cursor.is_of(read) {
            return false;
        }
        let found = next > read.from;
        let news = found || cursor.told != Some(head);
        cursor.next = Some(next);
        cursor.told = Some(head);
        if let Some(turn) = cursor.turn.take() {
            self.turns.remove(&turn);
        }
        if found {
            self.stir(read.id);
        }
        news
    }

    /// A partition could not be read.
    pub fn on_unreadable(&mut self, read: &Read, fault: FetchFault) {
        if self.cursors.get(&read.id).is_some_and(|cursor| cursor.is_of(read)) {
            self.stop(read.id, Trouble::Failed(fault));
        }
    }

    /// Nothing is read until the follower says where it is.
    fn stop(&mut self, id: TopicPartition, trouble: Trouble) {
        let Some(cursor) = self.cursors.get_mut(&id) else { return };
        (cursor.next, cursor.told, cursor.trouble) = (None, None, Some(trouble));
        if let Some(turn) = cursor.turn.take() {
            self.turns.remove(&turn);
        }
        self.troubled.insert(id);
    }
}

impl Cursor {
    /// Whether it still stands where a read began.
    fn is_of(&self, read: &Read) -> bool {
        self.next == Some(read.from) && self.placed == read.placed
    }
}

#[cfg(test)]
mod tests;
