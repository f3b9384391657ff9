//! A member of a group of the consumer protocol (KIP-848): says with each heartbeat what it wants
//! and has, gives up what it is not to have before it takes anything, reads and commits.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use engine::ids::TopicId;
use engine::time::Instant;
use engine::wait::Watch;
use net::wire::ErrorCode;
use net::wire::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};

use crate::groups::{Mishap, between, mishap};
use crate::line::{Come, Stop, gone};
use crate::oracle::{Broken, Invariant, Place};
use crate::seat::{Answered, Seat};
use crate::world::TOPICS;

/// Epoch with which a member joins …
const JOIN: i32 = 0;
/// … and with which it leaves.
const LEAVE: i32 = -1;
/// How long it may take to give something up: longer than it takes in any run.
const REBALANCE_MS: i32 = 60_000;

struct Modern {
    seat: Seat,
    id: Rc<str>,
    lives: u32,
    epoch: i32,
    owned: BTreeSet<Place>,
    /// What it is to have.
    target: BTreeSet<Place>,
    /// What it has said last that it has; `None`: it has to say all again.
    told: Option<BTreeSet<Place>>,
    next_beat: Instant,
    next_commit: Instant,
}

/// Is a member until `finish` is raised; until `calm` is raised not always a good one.
pub async fn attend(seat: Seat, calm: Watch, finish: Watch) {
    let now = seat.now();
    let mut member = Modern {
        id: "".into(),
        seat,
        lives: 0,
        epoch: JOIN,
        owned: BTreeSet::new(),
        target: BTreeSet::new(),
        told: None,
        next_beat: now,
        next_commit: now,
    };
    member.start();
    while finish.value() == 0 {
        match member.turn().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => member.on_error(error),
            Err(stop) => {
                member.seat.lose();
                // What it said last may not have been heard.
                (member.told, member.next_beat) = (None, member.seat.now());
                if !member.seat.member.again(&stop).await {
                    return;
                }
            }
        }
        let client = &member.seat.member.client;
        client.sleep(Duration::from_millis(client.random.between(20, 120))).await;
        if calm.value() == 0
            && let Err(stop) = member.perhaps_a_mishap().await
        {
            member.seat.lose();
            member.told = None;
            if !member.seat.member.again(&stop).await {
                return;
            }
        }
    }
}

impl Modern {
    /// Another process in its place.
    fn start(&mut self) {
        self.lives += 1;
        self.id = format!("{}-life-{}", self.seat.name(), self.lives).into();
        self.epoch = JOIN;
        (self.owned, self.target, self.told) = Default::default();
        self.seat.positions.borrow_mut().clear();
    }

    /// It was told that it is no member: whatever it has is somebody else's.
    fn abandon(&mut self) {
        let all: BTreeSet<Place> = self.owned.union(&self.target).copied().collect();
        self.seat.ledger.on_fenced(&self.id, &all);
        self.epoch = JOIN;
        (self.owned, self.target, self.told) = Default::default();
        self.seat.positions.borrow_mut().clear();
        self.next_beat = self.seat.now();
    }

    /// Does what is due. Answers what the coordinator has against it.
    async fn turn(&mut self) -> Answered {
        let changed = self.reconcile().await?;
        if (changed || self.seat.now() >= self.next_beat)
            && let Err(error) = self.beat().await?
        {
            return Ok(Err(error));
        }
        if self.epoch == JOIN {
            return Ok(Ok(()));
        }
        let owned: Vec<Place> = self.owned.iter().copied().collect();
        if let Err(error) = self.seat.begin(Some((&self.id, self.epoch)), &owned).await? {
            return Ok(Err(error));
        }
        if !self.seat.read().await {
            return Ok(Ok(()));
        }
        if self.seat.now() >= self.next_commit {
            self.next_commit = self.seat.now().after(between(&self.seat.member.client, 50, 400));
            return self.seat.commit(&self.id, self.epoch, &owned).await;
        }
        Ok(Ok(()))
    }

    /// As Kafka's consumer does (`ConsumerHeartbeatRequestManager`, `CommitRequestManager`).
    fn on_error(&mut self, error: ErrorCode) {
        self.seat.event(format_args!("{} in epoch {} is told {error}", self.id, self.epoch));
        match error {
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.seat.lose();
                self.told = None;
            }
            // Nothing of a group that a replaced coordinator never knew.
            ErrorCode::UnknownMemberId
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::GroupIdNotFound => self.abandon(),
            // It hears of its epoch with its next heartbeat.
            ErrorCode::StaleMemberEpoch => self.next_beat = self.seat.now(),
            // Whatever is to be tried again.
            _ => self.told = None,
        }
    }

    /// One step towards what it is to have. Whether there is something to tell.
    async fn reconcile(&mut self) -> Come<bool> {
        let surplus: Vec<Place> = self.owned.difference(&self.target).copied().collect();
        if !surplus.is_empty() {
            self.commit_once(&surplus).await?;
            for place in surplus {
                self.owned.remove(&place);
                self.seat.positions.borrow_mut().remove(&place);
                self.seat.ledger.on_released(&self.id, place);
            }
        }
        self.owned.extend(&self.target);
        Ok(self.told.as_ref() != Some(&self.owned))
    }

    /// Says how far it is before it lets go, whatever comes of it.
    async fn commit_once(&self, places: &[Place]) -> Come {
        let stop = match self.seat.commit(&self.id, self.epoch, places).await {
            Ok(_) => return Ok(()),
            Err(stop) => stop,
        };
        self.seat.lose();
        if let Stop::Broken(_) = stop { Err(stop) } else { Ok(()) }
    }

    async fn beat(&mut self) -> Answered {
        let coordinator = self.seat.coordinator().await?;
        let says_all = self.told.is_none() || self.epoch == JOIN;
        let partitions: Vec<Vec<i32>> = (0..TOPICS.len())
            .map(|topic| {
                let of = self.owned.iter().filter(|place| place.topic == topic);
                of.map(|place| place.partition).collect()
            })
            .collect();
        let mut has = Vec::new();
        for (index, partitions) in partitions.iter().enumerate() {
            let Some(topic_id) = self.seat.member.topic_id(index) else {
                self.seat.member.refresh().await?;
                return gone("not all topics are known yet");
            };
            if !partitions.is_empty() {
                has.push(TopicPartitions { topic_id, partitions: partitions[..].into() });
            }
        }
        let names = TOPICS.each_ref().map(|topic| topic.name);
        let says_owned = says_all || self.told.as_ref() != Some(&self.owned);
        let message = ConsumerGroupHeartbeatRequest {
            group_id: self.seat.ledger.group,
            member_id: &self.id,
            member_epoch: self.epoch,
            rebalance_timeout_ms: if says_all { REBALANCE_MS } else { -1 },
            subscribed_topic_names: says_all.then(|| (&names).into()),
            topic_partitions: says_owned.then(|| (&has[..]).into()),
            ..Default::default()
        };
        let sent = self.seat.now();
        let answer = coordinator.line.call(&message, 1).await?;
        let response: ConsumerGroupHeartbeatResponse<'_> = answer.read()?;
        match response.error_code {
            ErrorCode::None => {}
            error if is_expected(error) => return Ok(Err(error)),
            error => return self.seat.unexpected("ConsumerGroupHeartbeat", error),
        }
        self.told = Some(self.owned.clone());
        let interval = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0);
        self.next_beat = sent.after(Duration::from_millis(interval));
        self.on_beaten(sent, coordinator.broker, response)?;
        Ok(Ok(()))
    }

    /// Is told its epoch, and perhaps what it is to have.
    fn on_beaten(
        &mut self,
        sent: Instant,
        by: i32,
        response: ConsumerGroupHeartbeatResponse<'_>,
    ) -> Come {
        let epoch = response.member_epoch;
        if epoch < self.epoch {
            let how = format!("{} goes from {} to {epoch}", self.id, self.epoch);
            return Err(Broken(Invariant::EpochsNeverRegress, how).into());
        }
        self.seat.ledger.on_beat(&self.id, sent, by, epoch != self.epoch);
        self.epoch = epoch;
        let Some(Assignment { topic_partitions }) = response.assignment else { return Ok(()) };
        let mut target = BTreeSet::new();
        for topic in topic_partitions.iter() {
            let known = |id: TopicId| self.seat.member.topic(id);
            let Some(index) = known(topic.topic_id) else {
                let how = format!("{} is given {:?}", self.id, topic.topic_id);
                return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
            };
            let each = topic.partitions.iter();
            target.extend(each.map(|partition| Place { topic: index, partition }));
        }
        self.seat.event(format_args!("{} is to have {target:?} in epoch {epoch}", self.id));
        let now = self.seat.now();
        for &place in target.difference(&self.owned) {
            self.seat.ledger.on_taken(now, &self.id, place, sent, by)?;
        }
        self.target = target;
        Ok(())
    }

    async fn perhaps_a_mishap(&mut self) -> Come {
        let client = &self.seat.member.client;
        match mishap(client) {
            None => {}
            Some(Mishap::Leaves(pause)) => {
                let left = self.leave().await;
                self.start();
                left?;
                self.seat.member.client.sleep(pause).await;
            }
            Some(Mishap::Dies(pause)) => {
                self.seat.event(format_args!("{} dies", self.id));
                self.seat.lose();
                self.seat.member.lose_all();
                // What it has stays its own until its session ends.
                self.start();
                self.seat.member.client.sleep(pause).await;
            }
            Some(Mishap::Dawdles(pause)) => {
                self.seat.event(format_args!("{} dawdles for {pause:?}", self.id));
                client.sleep(pause).await;
                if self.epoch == JOIN || !self.seat.read().await {
                    return Ok(());
                }
                // It does not know yet what has happened meanwhile.
                let owned: Vec<Place> = self.owned.iter().copied().collect();
                let answer = self.seat.commit(&self.id, self.epoch, &owned).await?;
                answer.unwrap_or_else(|error| self.on_error(error));
            }
        }
        Ok(())
    }

    async fn leave(&mut self) -> Come {
        if self.epoch == JOIN {
            return Ok(());
        }
        let owned: Vec<Place> = self.owned.iter().copied().collect();
        self.commit_once(&owned).await?;
        let coordinator = self.seat.coordinator().await?;
        let message = ConsumerGroupHeartbeatRequest {
            group_id: self.seat.ledger.group,
            member_id: &self.id,
            member_epoch: LEAVE,
            ..Default::default()
        };
        self.seat.event(format_args!("{} leaves", self.id));
        owned.iter().chain(&self.target).for_each(|at| self.seat.ledger.on_released(&self.id, *at));
        let answer = coordinator.line.call(&message, 1).await?;
        let response: ConsumerGroupHeartbeatResponse<'_> = answer.read()?;
        match response.error_code {
            ErrorCode::None => Ok(()),
            error if is_expected(error) => Ok(()),
            error => self.seat.unexpected("ConsumerGroupHeartbeat", error),
        }
    }
}

/// What a client has an answer to.
fn is_expected(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::UnknownMemberId
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::GroupIdNotFound
    )
}
