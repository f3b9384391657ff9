//! A member as KIP-848's clients behave: it does what it is told, in its own time.

use std::collections::BTreeSet;
use std::time::Duration;

use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::heartbeat::{Beaten, Heartbeat};
use coordinator::group::consumer::{AWAY_EPOCH, Fault, JOIN_EPOCH, LEAVE_EPOCH};
use engine::time::Instant;

use crate::world::Random;

/// How long it waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a client is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It is a member, or wants to be.
    Up,
    /// It is telling that it leaves.
    Leaving(i32),
    /// It is not running; it comes back at this time.
    Down(Instant),
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub id: String,
    pub instance: Option<String>,
    pub life: Life,
    pub epoch: i32,
    /// What it uses.
    pub owned: Partitions,
    /// What it is to use.
    pub assignment: Option<Partitions>,
    /// Until when it is giving up what it is not to use any more; `None` in time: it never ends.
    revoking: Option<Option<Instant>>,
    /// When its last request is given up, if one is under way; its number.
    pub waiting: Option<(u64, Instant)>,
    next_beat: Instant,
    says_all: bool,
    told_owned: Option<Partitions>,
    pub topics: BTreeSet<String>,
    pub pattern: Option<String>,
    resubscribed: bool,
    incarnation: u32,
    number: usize,
}

impl Client {
    pub fn new(number: usize, random: &mut Random) -> Client {
        let mut client = Client {
            id: String::new(),
            instance: random.once_in(3).then(|| format!("instance-{number}")),
            life: Life::Up,
            epoch: JOIN_EPOCH,
            owned: Partitions::new(),
            assignment: None,
            revoking: None,
            waiting: None,
            next_beat: Instant::ZERO,
            says_all: true,
            told_owned: None,
            topics: BTreeSet::new(),
            pattern: None,
            resubscribed: false,
            incarnation: 0,
            number,
        };
        client.subscribe(random);
        client.start();
        client
    }

    /// Begins to run, as somebody new; the instance stays.
    pub fn start(&mut self) {
        self.incarnation += 1;
        self.id = format!("member-{}-{}", self.number, self.incarnation);
        self.life = Life::Up;
        self.waiting = None;
        self.abandon();
    }

    /// Chooses other topics.
    pub fn subscribe(&mut self, random: &mut Random) {
        let names = (0..4).map(|i| format!("topic-{i}"));
        self.topics = names.filter(|_| random.once_in(2)).collect();
        let patterns = ["topic-[01]", ".*", "topic-3|other", ""];
        self.pattern = Some(patterns[random.below(patterns.len())].to_owned());
        if random.once_in(2) || self.topics.is_empty() && self.pattern.as_deref() == Some("") {
            self.topics.insert("topic-0".into());
            self.pattern = Some(String::new());
        }
        self.resubscribed = true;
    }

    /// Lets go of everything and joins again.
    fn abandon(&mut self) {
        self.epoch = JOIN_EPOCH;
        self.owned.clear();
        self.assignment = None;
        self.revoking = None;
        self.says_all = true;
        self.told_owned = None;
    }

    /// Dies, and comes back later.
    pub fn crash(&mut self, until: Instant) {
        self.abandon();
        self.waiting = None;
        self.life = Life::Down(until);
    }

    /// Gives everything up and leaves, if it is a static member perhaps to come back soon.
    pub fn leave(&mut self, random: &mut Random) {
        if self.epoch <= JOIN_EPOCH {
            return;
        }
        let away = self.instance.is_some() && random.once_in(2);
        self.owned.clear();
        self.assignment = None;
        self.revoking = None;
        self.waiting = None;
        self.life = Life::Leaving(if away { AWAY_EPOCH } else { LEAVE_EPOCH });
    }

    /// Works for a moment. Returns a request if it has one to send.
    pub fn work(
        &mut self,
        now: Instant,
        number: u64,
        faults: bool,
        random: &mut Random,
    ) -> Option<Heartbeat> {
        match self.life {
            Life::Down(until) if until <= now => self.start(),
            Life::Down(_) => return None,
            Life::Leaving(epoch) => {
                // It says so once and does not wait.
                let beat = Heartbeat { epoch, owned: None, ..self.beat() };
                let pause = Duration::from_millis(random.below(15_000) as u64);
                self.crash(now.after(pause));
                return Some(beat);
            }
            Life::Up => {}
        }
        let changed = self.reconcile(now, faults, random);
        if let Some((_, until)) = self.waiting {
            if until > now {
                return None;
            }
            self.waiting = None;
            self.says_all = true;
            self.next_beat = now;
        }
        if self.next_beat > now && !changed && !self.resubscribed {
            return None;
        }
        self.waiting = Some((number, now.after(TIMEOUT)));
        let beat = self.beat();
        self.resubscribed = false;
        Some(beat)
    }

    /// One step towards the assignment. Whether there is something to tell.
    fn reconcile(&mut self, now: Instant, faults: bool, random: &mut Random) -> bool {
        let Some(assignment) = &self.assignment else { return false };
        let surplus = self.owned.iter().any(|(topic, partitions)| {
            assignment.get(topic).is_none_or(|wanted| !partitions.is_subset(wanted))
        });
        match self.revoking {
            None if surplus => {
                let pause = Duration::from_millis(random.below(4_000) as u64);
                let never = faults && random.once_in(25);
                self.revoking = Some((!never).then(|| now.after(pause)));
                false
            }
            None => self.take(),
            Some(Some(until)) if until <= now => {
                self.revoking = None;
                for (topic, partitions) in &mut self.owned {
                    let wanted = assignment.get(topic);
                    partitions.retain(|p| wanted.is_some_and(|wanted| wanted.contains(p)));
                }
                self.owned.retain(|_, partitions| !partitions.is_empty());
                self.take();
                true
            }
            Some(_) => false,
        }
    }

    fn take(&mut self) -> bool {
        let assignment = self.assignment.clone().expect("the caller saw it");
        let changed = self.owned != assignment;
        self.owned = assignment;
        changed
    }

    fn beat(&mut self) -> Heartbeat {
        let all = self.says_all || self.epoch == JOIN_EPOCH || self.resubscribed;
        let owned =
            (all || self.told_owned.as_ref() != Some(&self.owned)).then(|| self.owned.clone());
        Heartbeat {
            member: self.id.clone(),
            epoch: self.epoch,
            instance: self.instance.clone(),
            rack: None,
            rebalance_ms: all.then_some(6_000),
            topics: all.then(|| self.topics.iter().cloned().collect()),
            pattern: self.pattern.clone().filter(|_| all),
            assignor: None,
            owned,
            client_id: format!("client-{}", self.number),
            client_host: "/10.0.0.1".into(),
        }
    }

    /// Hears an answer to what it sent. `Err`: the answer is one that must not be.
    pub fn hear(
        &mut self,
        now: Instant,
        sent: &Heartbeat,
        answer: Result<Beaten, Fault>,
    ) -> Result<(), String> {
        self.waiting = None;
        match answer {
            Ok(beaten) => {
                if beaten.epoch < self.epoch {
                    let (from, to) = (self.epoch, beaten.epoch);
                    return Err(format!(
                        "EpochsNeverRegress: {} goes from {from} to {to}",
                        self.id
                    ));
                }
                self.epoch = beaten.epoch;
                self.says_all = false;
                self.told_owned = sent.owned.clone().or(self.told_owned.take());
                self.next_beat = now.after(beaten.interval);
                if let Some(assignment) = beaten.assignment {
                    self.assignment = Some(assignment);
                }
            }
            Err(Fault::UnreleasedInstanceId) => {
                self.next_beat = now.after(Duration::from_millis(500));
                self.says_all = true;
            }
            Err(
                Fault::FencedMemberEpoch { .. }
                | Fault::UnknownMemberId
                | Fault::GroupIdNotFound
                | Fault::FencedInstanceId,
            ) => {
                self.abandon();
                self.next_beat = now;
            }
            Err(other) => return Err(format!("{} was told {other:?} to {sent:?}", self.id)),
        }
        Ok(())
    }
}
