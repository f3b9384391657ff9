//! A follower's side of a fetch stream, pure: all partitions of one shard that follow one leader
//! broker, as one pipelined sequence of requests.
//!
//! The leader keeps a cursor for each partition, so that a request only says what is new: a
//! position (where to put the cursor), a promise (more has become durable), a partition that left.
//! One request always waits at the leader for news; another one is sent as soon as there is
//! something to say, and lets the leader answer the one before. Answers come in the order of the
//! requests. When the connection is lost, everything is said again in a new session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::ids::{LeaderEpoch, Offset, TopicPartition};
use engine::time::Instant;

use crate::ask::{AnswerPart, FetchAsk, FetchPart};
use crate::config::ReplicationConfig;

/// The stream to one leader.
#[derive(Debug, Clone)]
pub struct Fetcher {
    config: ReplicationConfig,
    parts: BTreeMap<TopicPartition, Part>,
    /// Partitions with something to say. Those that back off are not among them.
    eager: BTreeSet<TopicPartition>,
    /// Partitions that back off, by the end of that.
    resting: BTreeSet<(Instant, TopicPartition)>,
    /// Left since the last request of this session.
    forgotten: BTreeSet<TopicPartition>,
    session: u64,
    next_seq: u64,
    in_flight: VecDeque<u64>,
    /// No request before that: the connection was lost.
    pause_until: Option<Instant>,
    /// Connections lost in a row without an answer.
    failures: u32,
}

#[derive(Debug, Clone)]
struct Part {
    /// Where it stands; the position is the one to say if it has to be said.
    standing: FetchPart,
    /// The request of this session that said the position; `None`: it has to be said.
    placed: Option<u64>,
    /// The promise that was said last.
    told: Offset,
    /// While it backs off.
    rests_until: Option<Instant>,
}

/// What an answer says to one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<B> {
    /// The term in which it was asked for; the partition ignores it in another one.
    pub leader_epoch: LeaderEpoch,
    /// What was answered.
    pub answer: AnswerPart<B>,
}

/// The answer is not the one that is due: the connection must be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer to request {got} of the fetch stream came, {due:?} was due")]
pub struct OutOfOrder {
    /// Whose answer came.
    pub got: u64,
    /// Whose was due.
    pub due: Option<u64>,
}

impl Fetcher {
    /// A stream without partitions. `session`: any number that differs from those of earlier
    /// streams of this broker to the same leader.
    pub fn new(session: u64, config: ReplicationConfig) -> Fetcher {
        assert!(config.in_flight_max >= 2, "one request waits while the next says something");
        Fetcher {
            config,
            parts: BTreeMap::new(),
            eager: BTreeSet::new(),
            resting: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            session,
            next_seq: 0,
            in_flight: VecDeque::new(),
            pause_until: None,
            failures: 0,
        }
    }

    /// How many partitions it fetches.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether it fetches none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Which session the next request is of.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Requests on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Adds a partition, or puts its cursor anew: a new term, a cut log, an answer that did not
    /// fit. Whatever was asked before for it is ignored when it comes.
    pub fn place(&mut self, standing: FetchPart) {
        assert!(standing.position.is_some(), "a cursor is put somewhere");
        let id = standing.id;
        self.wake(id);
        let told = standing.durable_end;
        let part = Part { standing, placed: None, told, rests_until: None };
        self.parts.insert(id, part);
        self.forgotten.remove(&id);
        self.eager.insert(id);
    }

    /// The same after a pause.
    pub fn place_at(&mut self, standing: FetchPart, at: Instant) {
        self.place(standing);
        let part = self.parts.get_mut(&standing.id).expect("just put");
        part.rests_until = Some(at);
        self.eager.remove(&standing.id);
        self.resting.insert((at, standing.id));
    }

    /// The log has grown, or more of it has become durable: a promise to tell. Ignored for
    /// partitions that are not of this stream, or in another term there.
    pub fn on_progress(&mut self, standing: FetchPart) {
        let Some(part) = self.parts.get_mut(&standing.id) else { return };
        if part.standing.leader_epoch != standing.leader_epoch {
            return;
        }
        part.standing = standing;
        let news = part.placed.is_none() || standing.durable_end > part.told;
        if news && part.rests_until.is_none() {
            self.eager.insert(standing.id);
        }
    }

    /// Takes a partition out.
    pub fn remove(&mut self, id: TopicPartition) {
        self.wake(id);
        self.eager.remove(&id);
        if self.parts.remove(&id).is_some() && self.next_seq > 0 {
            self.forgotten.insert(id);
        }
    }

    fn wake(&mut self, id: TopicPartition) {
        if let Some(at) = self.parts.get_mut(&id).and_then(|part| part.rests_until.take()) {
            self.resting.remove(&(at, id));
        }
    }

    /// The next request, if one is due. Send them in this order on one connection.
    pub fn next(&mut self, now: Instant) -> Option<FetchAsk> {
        if self.pause_until.is_some_and(|until| now < until) {
            return None;
        }
        self.pause_until = None;
        while let Some(&(at, id)) = self.resting.first()
            && at <= now
        {
            self.wake(id);
            self.eager.insert(id);
        }
        let news = !self.eager.is_empty() || !self.forgotten.is_empty();
        let heartbeat = self.in_flight.is_empty() && !self.parts.is_empty() && self.next_seq > 0;
        if self.in_flight.len() >= self.config.in_flight_max || !(news || heartbeat) {
            return None;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.in_flight.push_back(seq);
        let parts = std::mem::take(&mut self.eager).into_iter().map(|id| {
            let part = self.parts.get_mut(&id).expect("only partitions of the stream are eager");
            part.told = part.standing.durable_end;
            let position = part.standing.position.filter(|_| part.placed.is_none());
            part.placed.get_or_insert(seq);
            FetchPart { position, ..part.standing }
        });
        Some(FetchAsk {
            session: self.session,
            seq,
            parts: parts.collect(),
            forgotten: std::mem::take(&mut self.forgotten).into_iter().collect(),
            bytes_max: self.config.fetch_bytes_max,
            partition_bytes_max: self.config.partition_bytes_max,
            wait_max: self.config.fetch_wait_max,
        })
    }

    /// When [`Fetcher::next`] may have something though nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let rested = self.resting.first().map(|&(at, _)| at);
        match self.pause_until {
            Some(until) if !self.eager.is_empty() => Some(until),
            Some(until) => rested.map(|at| at.max(until)),
            None => rested,
        }
    }

    /// The answer to request `seq` of `session` came. Of a session that is over nothing is left.
    pub fn on_answer<B>(
        &mut self,
        session: u64,
        seq: u64,
        answers: Vec<AnswerPart<B>>,
    ) -> Result<Vec<Delivery<B>>, OutOfOrder> {
        if session != self.session {
            return Ok(Vec::new());
        }
        let due = self.in_flight.front().copied();
        if due != Some(seq) {
            return Err(OutOfOrder { got: seq, due });
        }
        self.in_flight.pop_front();
        self.failures = 0;
        let deliveries = answers.into_iter().filter_map(|answer| {
            let part = self.parts.get(&answer.id)?;
            let meant = part.rests_until.is_none() && part.placed.is_some_and(|at| at <= seq);
            let leader_epoch = part.standing.leader_epoch;
            meant.then_some(Delivery { leader_epoch, answer })
        });
        Ok(deliveries.collect())
    }

    /// The connection was lost, timed out, or the leader does not know the session: begins anew.
    pub fn on_lost(&mut self, now: Instant) {
        self.failures += 1;
        self.session += 1;
        self.next_seq = 0;
        self.in_flight.clear();
        self.forgotten.clear();
        self.pause_until = Some(now.after(self.config.back_off(self.failures)));
        for (id, part) in &mut self.parts {
            part.placed = None;
            if part.rests_until.is_none() {
                self.eager.insert(*id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
