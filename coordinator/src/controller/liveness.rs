//! Who of the brokers is alive: sessions, fencing, controlled shutdown, and what time alone brings
//! about. Kafka's `BrokerHeartbeatManager` and the timers of its `QuorumController`.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::ids::{BrokerEpoch, BrokerId, Offset};
use engine::time::Instant;

use super::change::{Candidates, Election, Target};
use super::changes::Changes;
use super::{Controller, Heartbeat, Mutant, Pulse, Refusal, brokers};
use crate::cluster::{Broker, BrokerChange, Cluster};
use crate::config::Config;
use crate::machine::Seen;
use crate::records::Record;

/// When each broker was heard of last; begins empty with every controller that becomes active,
/// which then waits a whole session before it fences anybody.
#[derive(Debug, Default)]
pub struct Soft {
    /// Whether this controller has looked at its brokers yet.
    begun: bool,
    sessions: BTreeMap<BrokerId, Session>,
    /// When the first session ends if nothing more is heard.
    next_end: Option<Instant>,
    next_rebalance: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    epoch: BrokerEpoch,
    heard: Instant,
    /// It has applied every metadata record below this offset.
    reached: Offset,
}

impl Soft {
    /// The controller's first look: all that seem alive get a fresh session.
    pub(super) fn begin(&mut self, seen: Seen<'_, Controller>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        if seen.config.mutant != Some(Mutant::SessionsNotRenewed) {
            for broker in seen.hard.brokers().filter(|broker| !broker.fenced) {
                self.heard(seen, broker.id, broker.epoch, None);
            }
        }
        self.plan_rebalance(seen);
    }

    /// Something has changed, so that some partition may be led by another than its preferred
    /// leader. A cluster at rest sets no timer.
    pub(super) fn plan_rebalance(&mut self, seen: Seen<'_, Controller>) {
        if self.next_rebalance.is_none() {
            self.next_rebalance =
                seen.config.leader_rebalance.map(|every| seen.at.now.after(every));
        }
    }

    /// When the next thing is due. Nothing is before the first request: as long as no broker
    /// speaks there is nobody who could take over from another.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.next_end, self.next_rebalance].into_iter().flatten().min()
    }

    /// A broker was heard of in this session, and perhaps how far it is.
    pub(super) fn heard(
        &mut self,
        seen: Seen<'_, Controller>,
        broker: BrokerId,
        epoch: BrokerEpoch,
        reached: Option<Offset>,
    ) {
        let known = self.sessions.get(&broker).filter(|known| known.epoch == epoch);
        let reached = reached.or(known.map(|known| known.reached)).unwrap_or(Offset::ZERO);
        let heard = seen.at.now;
        self.sessions.insert(broker, Session { epoch, heard, reached });
        self.plan(seen.config);
    }

    /// A broker's session is over.
    pub(super) fn ended(&mut self, seen: Seen<'_, Controller>, broker: BrokerId) {
        self.sessions.remove(&broker);
        self.plan(seen.config);
    }

    /// Whether the broker's present session is not over.
    pub(super) fn has_session(&self, seen: Seen<'_, Controller>, broker: &Broker) -> bool {
        self.sessions.get(&broker.id).is_some_and(|session| {
            session.epoch == broker.epoch
                && seen
                    .config
                    .session_timeout
                    .is_none_or(|timeout| seen.at.now.since(session.heard) < timeout)
        })
    }

    fn plan(&mut self, config: &Config) {
        let first = self.sessions.values().map(|session| session.heard).min();
        self.next_end = first.zip(config.session_timeout).map(|(heard, after)| heard.after(after));
    }

    /// How far the active broker that is least far is.
    fn lowest_reached(&self, cluster: &Cluster) -> Option<Offset> {
        let reached = |broker: &BrokerId| self.sessions.get(broker).map(|session| session.reached);
        let active = cluster.brokers().filter(|broker| broker.is_active());
        active.map(|broker| reached(&broker.id).unwrap_or(Offset::ZERO)).min()
    }
}

pub(super) fn heartbeat(
    seen: Seen<'_, Controller>,
    soft: &mut Soft,
    heartbeat: Heartbeat,
    records: &mut Vec<Record>,
) -> Result<Pulse, Refusal> {
    let Heartbeat { broker: id, epoch, reached, want_shutdown } = heartbeat;
    let broker = brokers::in_session(seen.hard, id, epoch)?;
    soft.heard(seen, id, epoch, Some(reached));
    let go = Pulse { fenced: true, stopping: false, should_shut_down: true };
    if broker.fenced {
        if want_shutdown {
            return Ok(go);
        }
        let applied =
            reached > broker.registered || seen.config.mutant == Some(Mutant::UnfencedEarly);
        if applied {
            unfence(seen, broker, records);
        }
        return Ok(Pulse { fenced: !applied, stopping: false, should_shut_down: false });
    }
    if !want_shutdown && broker.stopping.is_none() {
        return Ok(Pulse { fenced: false, stopping: false, should_shut_down: false });
    }
    let ready = match broker.stopping {
        None => !begin_stop(seen, broker, records),
        // Everybody else knows the new leaders.
        Some(since) => soft.lowest_reached(seen.hard).is_none_or(|lowest| lowest > since),
    };
    if ready {
        fence(seen, broker, records);
        return Ok(go);
    }
    Ok(Pulse { fenced: false, stopping: true, should_shut_down: false })
}

/// A broker is to stop: moves leaders away. Whether there were any to move; if not, nothing is
/// remembered.
fn begin_stop(seen: Seen<'_, Controller>, broker: &Broker, records: &mut Vec<Record>) -> bool {
    let mut changes = Changes::new(seen);
    changes.leave(broker.id, true);
    let moved = changes.iter().any(|(id, after)| {
        let before =
            seen.hard.topic_by_id(id.topic).and_then(|topic| topic.partition(id.partition));
        before.is_some_and(|before| before.leader == Some(broker.id))
            && after.leader != Some(broker.id)
    });
    if moved {
        changes.record(records);
        records.push(changed(broker, BrokerChange::Stopping));
    }
    moved
}

fn fence(seen: Seen<'_, Controller>, broker: &Broker, records: &mut Vec<Record>) {
    let mut changes = Changes::new(seen);
    changes.leave(broker.id, false);
    changes.record(records);
    records.push(changed(broker, BrokerChange::Fenced));
}

fn unfence(seen: Seen<'_, Controller>, broker: &Broker, records: &mut Vec<Record>) {
    records.push(changed(broker, BrokerChange::Unfenced));
    let mut changes = Changes::new(seen);
    changes.welcome(broker.id);
    changes.record(records);
}

fn changed(broker: &Broker, change: BrokerChange) -> Record {
    Record::BrokerChanged { broker: broker.id, epoch: broker.epoch, change }
}

/// What time brings about: sessions end, one at a time so that each fencing sees the one before;
/// preferred leaders are elected.
pub(super) fn expire(seen: Seen<'_, Controller>, soft: &mut Soft, records: &mut Vec<Record>) {
    soft.begin(seen);
    let now = seen.at.now;
    if let (Some(timeout), Some(end)) = (seen.config.session_timeout, soft.next_end)
        && now >= end
    {
        end_session(seen, soft, timeout, now.since(end), records);
        return;
    }
    if soft.next_rebalance.is_some_and(|due| now >= due) {
        let all = rebalance(seen, records);
        soft.next_rebalance = (!all).then_some(now);
    }
}

/// Ends the session that is over longest. `late`: how long ago that was to be looked at.
fn end_session(
    seen: Seen<'_, Controller>,
    soft: &mut Soft,
    timeout: Duration,
    late: Duration,
    records: &mut Vec<Record>,
) {
    if late > timeout / 2 {
        // It was this controller that slept; what brokers have sent meanwhile may still wait.
        soft.sessions.values_mut().for_each(|session| session.heard = seen.at.now);
        soft.plan(seen.config);
        return;
    }
    let first = soft.sessions.iter().min_by_key(|(_, session)| session.heard);
    let Some((&id, &Session { epoch, .. })) = first else { return };
    soft.ended(seen, id);
    let broker = seen.hard.broker(id).filter(|broker| broker.epoch == epoch && !broker.fenced);
    if let Some(broker) = broker {
        tracing::info!(broker = %id, %epoch, "fencing a broker that was silent for too long");
        fence(seen, broker, records);
    }
}

/// Elects preferred leaders where others lead. Whether that was all.
fn rebalance(seen: Seen<'_, Controller>, records: &mut Vec<Record>) -> bool {
    let (most, mutant) = (seen.config.elections_max.max(1), seen.config.mutant);
    let mut changes = Changes::new(seen);
    changes.sweep(&Candidates::of(seen.hard), most, |before, _| {
        let other = before.leader.is_some() && !before.has_preferred_leader();
        other.then(|| Target::of(before, Election::Preferred, mutant))
    });
    let all = changes.count() < most;
    changes.record(records);
    all
}
