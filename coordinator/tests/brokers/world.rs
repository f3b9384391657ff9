//! Four brokers and a controller, and all that can happen to them.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::cluster::{
    Cluster, DirectoryId, Endpoint, Incarnation, Partition, PartitionEpoch,
};
use coordinator::config::Config;
use coordinator::controller::{
    Assignment, Change, ConfigChange, Controller, Edit, ElectionKind, Heartbeat, IsrChange, Loss,
    Mutant, NewTopic, Reassignment, Registration, Reply, Request, Soft, Why,
};
use coordinator::machine::{Machine, Moment, Outcome, Seen, Token};
use coordinator::records::{Record, snapshot};
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use engine::time::{Instant, Timestamp};

use crate::oracle::{Oracle, partitions, rules, standing, tracing};

const BROKERS: i32 = 4;
/// Name, replicas, minimal ISR, records that may be unsynced, unclean elections.
const TOPICS: [(&str, &[i32], u32, u32, bool); 5] = [
    ("synced", &[1, 2, 3], 2, 1, false),
    ("unsynced", &[2, 3, 4], 2, 100, false),
    ("pair", &[3, 4], 1, 1, false),
    ("strict", &[4, 1, 2], 3, 1, false),
    ("unclean", &[1, 3], 1, 1, true),
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// What a leader remembers of one term.
#[derive(Default)]
struct Term {
    epoch: LeaderEpoch,
    /// How far each follower said it is, and in which session.
    known: BTreeMap<BrokerId, (u64, BrokerEpoch)>,
    /// An ISR that was asked for, of which nothing was heard yet, and from which version.
    asked: Option<(PartitionEpoch, Vec<BrokerId>)>,
}

struct Node {
    id: BrokerId,
    up: bool,
    /// When the controller last heard of it.
    heard: Instant,
    incarnation: Incarnation,
    directory: DirectoryId,
    /// Its session, once the controller has told it.
    epoch: Option<BrokerEpoch>,
    /// What its ends have cost it since the controller last took its registration.
    lost: Loss,
    stopping: bool,
    /// The picture it has, and below which offset it is.
    view: Cluster,
    reached: Offset,
    has: BTreeMap<TopicPartition, u64>,
    terms: BTreeMap<TopicPartition, Term>,
}

pub struct World {
    config: Config,
    hard: Cluster,
    soft: Soft,
    pub log: Vec<Record>,
    now: Instant,
    /// When the controller that is active was first asked something.
    active_since: Option<Instant>,
    /// Pictures that brokers may have, oldest first; the end of each.
    images: Vec<(Cluster, Offset)>,
    nodes: Vec<Node>,
    /// Requests under way.
    late: Vec<Request>,
    random: Random,
    pub oracle: Oracle,
    runs: u128,
    healing: bool,
    /// What leaders ask for now is delayed.
    delaying: bool,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let node = |id: i32| Node {
            id: BrokerId(id),
            up: false,
            heard: Instant::ZERO,
            incarnation: Incarnation::UNKNOWN,
            directory: DirectoryId(1_000 + u128::from(id.unsigned_abs())),
            epoch: None,
            lost: Loss::Everything,
            stopping: false,
            view: Cluster::default(),
            reached: Offset::ZERO,
            has: BTreeMap::new(),
            terms: BTreeMap::new(),
        };
        let rebalance = Some(Duration::from_secs(5));
        let mut world = World {
            config: Config { mutant, leader_rebalance: rebalance, ..Config::default() },
            hard: Cluster::default(),
            soft: Soft::default(),
            log: Vec::new(),
            now: Instant::from_nanos(1),
            active_since: None,
            images: vec![(Cluster::default(), Offset::ZERO)],
            nodes: (1..=BROKERS).map(node).collect(),
            late: Vec::new(),
            random: Random(seed),
            oracle: Oracle::default(),
            runs: 0,
            healing: true,
            delaying: false,
        };
        world.config.mutant = None;
        for node in 0..world.nodes.len() {
            world.start(node);
            world.register(node);
            world.look(node, true);
            world.beat(node);
        }
        world.make_topics();
        (0..world.nodes.len()).for_each(|node| world.look(node, true));
        world.config.mutant = mutant;
        world.healing = false;
        world
    }

    fn make_topics(&mut self) {
        let topic = |(name, replicas, minimum, flush, unclean): (&str, &[i32], u32, u32, bool)| {
            let set = |name: &str, value: String| (name.to_string(), Some(value));
            NewTopic {
                name: name.into(),
                partitions: -1,
                replication_factor: -1,
                assignments: vec![Assignment {
                    partition: PartitionIndex(0),
                    replicas: replicas.iter().copied().map(BrokerId).collect(),
                }],
                overrides: vec![
                    set("min.insync.replicas", minimum.to_string()),
                    set("flush.messages", flush.to_string()),
                    set("unclean.leader.election.enable", unclean.to_string()),
                ],
            }
        };
        let topics = TOPICS.into_iter().map(topic).collect();
        let made = self.ask(Request::CreateTopics { topics, validate_only: false });
        assert!(
            matches!(made, Reply::CreatedTopics(made) if made.iter().all(|(_, one)| one.is_ok()))
        );
    }

    // The controller.

    fn moment(&mut self) -> Moment {
        let random = [self.random.word(), self.random.word()];
        Moment { now: self.now, wall: Timestamp(0), random }
    }

    fn ask(&mut self, request: Request) -> Reply {
        self.active_since.get_or_insert(self.now);
        self.oracle.cancelled = matches!(&request, Request::AlterReassignments { partitions, .. }
            if partitions.iter().any(|one| one.replicas.is_none()));
        let heard = match &request {
            Request::Heartbeat(beat) => Some(beat.broker),
            Request::RegisterBroker(registration) => Some(registration.id),
            _ => None,
        };
        if let Some(node) = self.nodes.iter_mut().find(|node| Some(node.id) == heard) {
            node.heard = self.now;
        }
        let at = self.moment();
        let mut out = Outcome::<Controller>::default();
        let seen = Seen { hard: &self.hard, config: &self.config, at };
        Controller::decide(seen, &mut self.soft, Token(0), request, &mut out);
        let reply = out.replies.pop().unwrap().1;
        if tracing() && !out.records.is_empty() {
            println!("{:?} {reply:?}", self.now);
        }
        self.oracle.joining = matches!(reply, Reply::AlteredPartitions(_));
        self.remember(out.records, Some(&reply));
        reply
    }

    fn expire(&mut self) {
        self.oracle.joining = false;
        let at = self.moment();
        let mut out = Outcome::<Controller>::default();
        let seen = Seen { hard: &self.hard, config: &self.config, at };
        Controller::expire(seen, &mut self.soft, &mut out);
        self.remember(out.records, None);
    }

    fn remember(&mut self, records: Vec<Record>, reply: Option<&Reply>) {
        if records.is_empty() {
            return;
        }
        let before = self.hard.clone();
        for record in records {
            // Two of the same entry have the same offset now and then; here each has its own.
            self.hard.apply(Offset::new(self.log.len() as u64), &record);
            self.log.push(record);
        }
        if let Some(Reply::Registered(Ok(registered))) = reply {
            self.account(&before, registered.epoch);
        }
        let nodes = &self.nodes;
        self.oracle.check(&before, &self.hard, &self.config, |broker, id| {
            let node = nodes.iter().find(|node| node.id == broker).unwrap();
            let told = node.lost == Loss::Nothing;
            (node.has.get(&id).copied().unwrap_or(0), told)
        });
        (self.oracle.unclean_asked, self.oracle.lossy) = (false, None);
        // Several decisions may be one entry of the log, of which brokers see only the end.
        let end = Offset::new(self.log.len() as u64);
        let image = (self.hard.clone(), end);
        let shared = self.random.one_in(4) && !self.seen(self.images.last().unwrap().1);
        match self.images.last_mut() {
            Some(last) if shared => *last = image,
            _ => self.images.push(image),
        }
    }

    fn seen(&self, image: Offset) -> bool {
        self.nodes.iter().any(|node| node.reached >= image)
    }

    /// A registration has been taken: what it said was lost is known now.
    fn account(&mut self, before: &Cluster, epoch: BrokerEpoch) {
        let broker = self.hard.brokers().find(|broker| broker.epoch == epoch).unwrap().id;
        if before.broker(broker).is_some_and(|known| known.epoch == epoch) {
            return;
        }
        let node = self.nodes.iter_mut().find(|node| node.id == broker).unwrap();
        let lost = std::mem::replace(&mut node.lost, Loss::Nothing);
        self.oracle.lossy = (lost != Loss::Nothing).then_some(broker);
        for (id, truth) in &mut self.oracle.truths {
            let synced = rules(&self.hard, &self.config, *id).synced;
            let counts = lost == Loss::Everything || lost == Loss::Unsynced && !synced;
            truth.losses += usize::from(counts && stood(before, *id, broker));
        }
    }

    /// Time passes, and what is due happens in time.
    fn pass(&mut self, millis: usize) {
        for _ in 0..millis.div_ceil(50) {
            self.now = self.now.after(Duration::from_millis(50));
            while Controller::deadline(&self.soft).is_some_and(|due| due <= self.now) {
                self.expire();
            }
        }
        for node in &self.nodes {
            let Some(known) = self.hard.broker(node.id) else { continue };
            let Some(active) = self.active_since else { continue };
            let since = node.heard.max(active);
            let long = self.now.since(since) > Duration::from_millis(1_600);
            assert!(known.fenced || !long, "SilentIsFenced: {known:?}");
        }
    }

    // The brokers.

    fn start(&mut self, at: usize) {
        self.runs += 1;
        let node = &mut self.nodes[at];
        if !node.up {
            (node.up, node.stopping) = (true, false);
            node.incarnation = Incarnation(self.runs);
            (node.view, node.reached) = (Cluster::default(), Offset::ZERO);
        }
    }

    fn crash(&mut self, at: usize, lost: Loss) {
        if tracing() {
            println!("{} ends: {lost:?}, has {:?}", self.nodes[at].id, self.nodes[at].has);
        }
        let kept = |random: &mut Random, has: u64| random.below(has as usize + 1) as u64;
        let node = &mut self.nodes[at];
        if !node.up && lost != Loss::Everything {
            return;
        }
        (node.up, node.epoch) = (false, None);
        node.terms.clear();
        match lost {
            Loss::Nothing => {}
            Loss::Unsynced => {
                for (id, has) in &mut node.has {
                    if !rules(&self.hard, &self.config, *id).synced {
                        *has = kept(&mut self.random, *has);
                    }
                }
            }
            Loss::Everything => {
                node.has.clear();
                node.directory.0 += 1_000;
            }
        }
        node.lost = node.lost.max(lost);
    }

    fn register(&mut self, at: usize) {
        let node = &self.nodes[at];
        if !node.up || node.epoch.is_some() {
            return;
        }
        let endpoint = Endpoint { listener: "P".into(), host: "h".into(), port: 1 };
        let registration = Registration {
            id: node.id,
            endpoints: vec![endpoint],
            rack: None,
            cluster: None,
            incarnation: node.incarnation,
            directory: node.directory,
            features: BTreeMap::new(),
            lost: node.lost,
        };
        let reply = self.ask(Request::RegisterBroker(registration));
        let Reply::Registered(registered) = reply else { panic!("{reply:?}") };
        // The answer may be lost; then it asks again.
        let heard = self.healing || !self.random.one_in(5);
        match registered {
            Ok(registered) if heard => self.nodes[at].epoch = Some(registered.epoch),
            Ok(_) => {}
            Err(refusal) => assert_eq!(refusal.why, Why::DuplicateBroker, "{refusal}"),
        }
    }

    fn beat(&mut self, at: usize) {
        let node = &self.nodes[at];
        let (Some(epoch), true) = (node.epoch, node.up) else { return };
        let (broker, reached) = (node.id, node.reached);
        let beat = Heartbeat { broker, epoch, reached, want_shutdown: node.stopping };
        let late = !self.healing && self.random.one_in(12);
        if late {
            self.late.push(Request::Heartbeat(beat));
            return;
        }
        let Reply::Heartbeat(pulse) = self.ask(Request::Heartbeat(beat)) else { panic!() };
        match pulse {
            Ok(pulse) if pulse.should_shut_down => self.crash(at, Loss::Nothing),
            Ok(pulse) => {
                let registered = self.hard.broker(broker).unwrap().registered;
                let knows = pulse.fenced || reached > registered;
                assert!(knows, "UnfencedKnowsItself: {broker} at {reached}, not {registered}");
            }
            // Unregistered by an operator: it begins again.
            Err(refusal) => {
                assert_eq!(refusal.why, Why::StaleBrokerEpoch);
                self.crash(at, Loss::Nothing);
            }
        }
    }

    /// A broker sees a newer picture: the next one, or the newest.
    fn look(&mut self, at: usize, newest: bool) {
        let node = &mut self.nodes[at];
        if !node.up {
            return;
        }
        let next = self.images.partition_point(|(_, end)| *end <= node.reached);
        let last = self.images.len() - 1;
        let Some((view, end)) = self.images.get(if newest { last } else { next.min(last) }) else {
            return;
        };
        (node.view, node.reached) = (view.clone(), *end);
        for (id, partition) in partitions(view) {
            // Whoever is no replica removes its files.
            if !partition.replicas.contains(&node.id) {
                node.has.remove(&id);
            }
            let leads = node.leads(partition);
            let term = node.terms.get_mut(&id);
            match term {
                Some(_) if !leads => drop(node.terms.remove(&id)),
                Some(term) if term.epoch == partition.leader_epoch => {
                    let old = |(from, _): &(PartitionEpoch, _)| partition.epoch > *from;
                    if term.asked.as_ref().is_some_and(old) {
                        term.asked = None;
                    }
                }
                _ if leads => {
                    let epoch = partition.leader_epoch;
                    node.terms.insert(id, Term { epoch, ..Term::default() });
                }
                _ => {}
            }
        }
    }

    /// Whether `follower` follows `leader` in the leader's term: both have seen it, and know of
    /// themselves that they are members.
    fn follows(&self, follower: usize, leader: usize, id: TopicPartition) -> bool {
        let (leader, follower) = (&self.nodes[leader], &self.nodes[follower]);
        let Some(term) = leader.terms.get(&id) else { return false };
        let Some(seen) = follower.partition(id) else { return false };
        let both = leader.is_member() && follower.is_member();
        both && seen.leader == Some(leader.id)
            && seen.leader_epoch == term.epoch
            && seen.replicas.contains(&follower.id)
    }

    fn node_of(&self, broker: BrokerId) -> usize {
        self.nodes.iter().position(|node| node.id == broker).unwrap()
    }

    /// A follower fetches all that the leader has, and promises it.
    fn fetch(&mut self, follower: usize, id: TopicPartition) {
        let Some(leader) = self.nodes[follower].partition(id).and_then(|seen| seen.leader) else {
            return;
        };
        let leader = self.node_of(leader);
        if leader == follower || !self.follows(follower, leader, id) {
            return;
        }
        let has = self.nodes[leader].has.get(&id).copied().unwrap_or(0);
        let node = &mut self.nodes[follower];
        node.has.insert(id, has);
        let promise = (has, node.epoch.unwrap());
        let broker = node.id;
        let term = self.nodes[leader].terms.get_mut(&id).unwrap();
        term.known.insert(broker, promise);
    }

    /// A record is appended, fetched by everybody who has to, and acknowledged.
    fn produce(&mut self, leader: usize, id: TopicPartition) {
        let node = &self.nodes[leader];
        let (Some(term), true) = (node.terms.get(&id), node.is_member()) else { return };
        let Some(seen) = node.partition(id) else { return };
        let minimum = seen.min_isr(rules(&node.view, &self.config, id).min_insync_replicas);
        if seen.isr.len() < minimum {
            return;
        }
        let asked = term.asked.iter().flat_map(|(_, isr)| isr);
        let mut maximal: Vec<BrokerId> = seen.isr.iter().chain(asked).copied().collect();
        maximal.sort_unstable();
        maximal.dedup();
        maximal.retain(|one| *one != node.id);
        let followers: Vec<usize> = maximal.iter().map(|one| self.node_of(*one)).collect();
        if !followers.iter().all(|one| self.follows(*one, leader, id)) {
            return;
        }
        let given_up = term.epoch < self.oracle.truths[&id].unclean_term;
        let has = self.nodes[leader].has.get(&id).copied().unwrap_or(0) + 1;
        if tracing() {
            println!("{id}: {} appends {has} with {followers:?}", self.nodes[leader].id);
        }
        self.nodes[leader].has.insert(id, has);
        followers.iter().for_each(|one| self.fetch(*one, id));
        if given_up {
            self.oracle.given_up += 1;
            return;
        }
        let now = self.hard.topic_by_id(id.topic).unwrap().partition(id.partition).unwrap();
        let promised = now.min_isr(rules(&self.hard, &self.config, id).min_insync_replicas);
        let truth = self.oracle.truths.get_mut(&id).unwrap();
        let acked = truth.acked;
        assert!(has > acked, "AckedIsNeverLost: {id} is led with {} of {acked}", has - 1);
        (truth.acked, truth.losses) = (has, 0);
        truth.tolerance = minimum.min(promised).min(standing(now).count().max(1));
    }

    /// A leader asks for another ISR: with one more that is caught up, or with one less.
    fn alter(&mut self, leader: usize, id: TopicPartition, grow: bool) {
        let pick = self.random.word() as usize;
        let node = &self.nodes[leader];
        let (Some(term), Some(epoch)) = (node.terms.get(&id), node.epoch) else { return };
        let Some(seen) = node.partition(id).filter(|_| term.asked.is_none()) else { return };
        let has = node.has.get(&id).copied().unwrap_or(0);
        let caught_up = |one: &&BrokerId| term.known.get(one).is_some_and(|known| known.0 >= has);
        let outside = seen.replicas.iter().filter(|one| !seen.isr.contains(one));
        let mut isr: Vec<BrokerId> = seen.isr.to_vec();
        if grow {
            let ready: Vec<BrokerId> = outside.filter(caught_up).copied().collect();
            if ready.is_empty() {
                return;
            }
            isr.push(ready[pick % ready.len()]);
        } else {
            isr.retain(|one| *one == node.id || pick & (1 << one.0) != 0);
            if isr.len() == seen.isr.len() {
                return;
            }
        }
        let session = |one: BrokerId| {
            let known = term.known.get(&one).map(|known| known.1);
            known.or(node.view.broker(one).map(|broker| broker.epoch)).unwrap_or_default()
        };
        let members =
            isr.iter().map(|one| (*one, if *one == node.id { epoch } else { session(*one) }));
        let change = IsrChange {
            partition: id,
            leader_epoch: term.epoch,
            partition_epoch: seen.epoch,
            isr: members.collect(),
        };
        let (broker, asked) = (node.id, (seen.epoch, isr));
        self.nodes[leader].terms.get_mut(&id).unwrap().asked = Some(asked);
        let request = Request::AlterPartitions { broker, epoch, partitions: vec![change] };
        if self.delaying || !self.healing && self.random.one_in(3) {
            self.late.push(request);
        } else {
            self.deliver(request);
        }
    }

    /// A request reaches the controller. A refusal that says that nothing has changed frees the
    /// leader to ask again; everything else is told by the next picture.
    fn deliver(&mut self, request: Request) {
        let of = match &request {
            Request::AlterPartitions { broker, .. } => Some(self.node_of(*broker)),
            _ => None,
        };
        let reply = self.ask(request);
        if let (Some(at), Reply::AlteredPartitions(Ok(altered))) = (of, reply) {
            for (id, altered) in altered {
                let refused = altered.err().is_some_and(|no| no.why == Why::IneligibleReplica);
                if let (true, Some(term)) = (refused, self.nodes[at].terms.get_mut(&id)) {
                    term.asked = None;
                }
            }
        }
    }

    // What happens.

    fn some_partition(&mut self) -> TopicPartition {
        let all: Vec<TopicPartition> = partitions(&self.hard).map(|(id, _)| id).collect();
        all[self.random.below(all.len())]
    }

    pub fn step(&mut self) {
        let at = self.random.below(self.nodes.len());
        let id = self.some_partition();
        match self.random.below(100) {
            0..8 => {
                let millis = 50 + self.random.below(600);
                self.pass(millis);
            }
            8..20 => self.beat(at),
            20..24 => (0..self.nodes.len()).for_each(|node| self.beat(node)),
            24..30 => self.start(at),
            30..38 => self.register(at),
            38..50 => {
                let newest = self.random.one_in(2);
                self.look(at, newest);
            }
            50..60 => self.fetch(at, id),
            60..70 => self.produce(at, id),
            70..76 => self.alter(at, id, true),
            76..79 => self.alter(at, id, false),
            79..83 if !self.late.is_empty() => {
                let which = self.random.below(self.late.len());
                let request = self.late.swap_remove(which);
                self.deliver(request);
            }
            83..86 => self.crash(at, Loss::Nothing),
            86 => self.crash(at, Loss::Unsynced),
            87 => self.crash(at, Loss::Everything),
            88 => self.nodes[at].stopping = true,
            89 => {
                (self.soft, self.active_since) = (Soft::default(), None);
                self.beat(at);
            }
            90..93 => self.operate(at, id),
            93..96 => self.mishap(id),
            _ => self.round(),
        }
    }

    /// One of the ways in which things have gone wrong elsewhere, with some of its parts left out:
    /// chance alone brings them together too seldom.
    fn mishap(&mut self, id: TopicPartition) {
        let partition = self.hard.topic_by_id(id.topic).unwrap().partition(id.partition).unwrap();
        let Some(leader) = partition.leader.map(|leader| self.node_of(leader)) else { return };
        let others = partition.replicas.iter().filter(|one| Some(**one) != partition.leader);
        let others: Vec<usize> = others.map(|one| self.node_of(*one)).collect();
        if others.is_empty() {
            return;
        }
        let follower = others[self.random.below(others.len())];
        let kind = self.random.below(3);
        if kind < 2 {
            self.fall_out(leader, follower, id);
        }
        let waiting = self.late.len();
        match kind {
            // It asks for a follower that loses all it has before the request arrives.
            0 => {
                self.grow_late(leader, id);
                self.perhaps(|world| world.crash(follower, Loss::Everything));
                // With another directory it is not believed before its last session is over.
                for _ in 0..4 {
                    self.pass(450);
                    (0..self.nodes.len()).for_each(|at| self.beat(at));
                }
                self.come_back(follower);
            }
            // It asks, hears of another change, and goes on without the follower.
            1 => {
                self.grow_late(leader, id);
                self.perhaps(|world| world.reassign(id, |all| all.extend(1..=BROKERS)));
                self.perhaps(|world| world.look(leader, true));
                self.perhaps(|world| world.produce(leader, id));
            }
            // A replica is removed and added again; it sees both, its leader only the end.
            _ => {
                self.perhaps(|world| world.fetch(follower, id));
                let gone = self.nodes[follower].id.0;
                self.perhaps(|world| world.reassign(id, |all| all.retain(|one| *one != gone)));
                self.perhaps(|world| world.look(follower, true));
                self.perhaps(|world| world.reassign(id, |all| all.push(gone)));
                self.perhaps(|world| world.look(leader, true));
                self.grow_late(leader, id);
            }
        }
        if self.late.len() > waiting {
            let request = self.late.remove(waiting);
            self.deliver(request);
        }
    }

    fn perhaps(&mut self, what: impl FnOnce(&mut World)) {
        if !self.random.one_in(8) {
            what(self);
        }
    }

    /// A follower leaves the ISR, and catches up again.
    fn fall_out(&mut self, leader: usize, follower: usize, id: TopicPartition) {
        self.crash(follower, Loss::Nothing);
        self.come_back(follower);
        self.look(leader, true);
        self.beat(leader);
        self.fetch(follower, id);
    }

    fn come_back(&mut self, at: usize) {
        self.start(at);
        self.register(at);
        self.look(at, true);
        self.beat(at);
        self.look(at, true);
    }

    /// A leader asks for a larger ISR; the request is on its way.
    fn grow_late(&mut self, leader: usize, id: TopicPartition) {
        self.delaying = true;
        self.alter(leader, id, true);
        self.delaying = false;
    }

    fn reassign(&mut self, id: TopicPartition, change: impl FnOnce(&mut Vec<i32>)) {
        let topic = self.hard.topic_by_id(id.topic).unwrap();
        let now = topic.partition(id.partition).unwrap();
        let mut replicas: Vec<i32> = now.replicas.iter().map(|one| one.0).collect();
        change(&mut replicas);
        replicas.sort_unstable();
        replicas.dedup();
        let replicas = Some(replicas.into_iter().map(BrokerId).collect());
        let (topic, partition) = (topic.name.to_string(), id.partition);
        let partitions = vec![Reassignment { topic, partition, replicas }];
        self.ask(Request::AlterReassignments { partitions, keep_factor: false });
    }

    /// Everything goes well for a moment.
    fn round(&mut self) {
        let ids: Vec<TopicPartition> = partitions(&self.hard).map(|(id, _)| id).collect();
        for at in 0..self.nodes.len() {
            self.look(at, true);
            self.beat(at);
        }
        for &id in &ids {
            (0..self.nodes.len()).for_each(|at| self.fetch(at, id));
            (0..self.nodes.len()).for_each(|at| self.produce(at, id));
        }
    }

    /// An operator does something.
    fn operate(&mut self, at: usize, id: TopicPartition) {
        let topic = self.hard.topic_by_id(id.topic).unwrap().name.to_string();
        let partition = id.partition;
        let request = match self.random.below(13) {
            0..5 => {
                let mut all: Vec<BrokerId> = (1..=BROKERS).map(BrokerId).collect();
                let by = self.random.below(all.len());
                all.rotate_left(by);
                let unregistered = |one: &BrokerId| self.hard.broker(*one).is_none();
                if all.iter().any(unregistered) {
                    return;
                }
                all.truncate(1 + self.random.below(3));
                Request::AlterReassignments {
                    partitions: vec![Reassignment { topic, partition, replicas: Some(all) }],
                    keep_factor: false,
                }
            }
            5 | 6 => Request::AlterReassignments {
                partitions: vec![Reassignment { topic, partition, replicas: None }],
                keep_factor: false,
            },
            7 => Request::ElectLeaders { kind: ElectionKind::Preferred, partitions: None },
            8 => {
                self.oracle.unclean_asked = true;
                let partitions = Some(vec![(topic, partition)]);
                Request::ElectLeaders { kind: ElectionKind::Unclean, partitions }
            }
            9 | 10 => {
                let minimum = (1 + self.random.below(3)).to_string();
                let edit = ("min.insync.replicas".to_string(), Edit::Set(Some(minimum)));
                let topics = vec![ConfigChange { name: topic, change: Change::Edit(vec![edit]) }];
                Request::AlterConfigs { topics, validate_only: false }
            }
            11 => {
                // A leader's device was full; or that was one term ago.
                let now = self.hard.topic_by_id(id.topic).unwrap().partition(partition).unwrap();
                let Some(broker) = now.leader else { return };
                let epoch = self.hard.broker(broker).map(|known| known.epoch).unwrap_or_default();
                let term = LeaderEpoch(now.leader_epoch.0 - self.random.below(2) as i32);
                Request::NewTerms { broker, epoch, partitions: vec![(id, term)] }
            }
            _ => {
                // Whoever is unregistered counts as lost.
                let broker = self.nodes[at].id;
                for (id, truth) in &mut self.oracle.truths {
                    truth.losses += usize::from(stood(&self.hard, *id, broker));
                }
                Request::UnregisterBroker { broker: self.nodes[at].id }
            }
        };
        self.ask(request);
        self.oracle.unclean_asked = false;
    }

    /// From now on nothing goes wrong; after a while everything is in sync again.
    pub fn heal(&mut self) {
        self.healing = true;
        self.late.clear();
        for node in &mut self.nodes {
            node.stopping = false;
            // What was asked and lost on the way is asked again in the next term at the latest.
            node.terms.values_mut().for_each(|term| term.asked = None);
        }
        for _ in 0..40 {
            for at in 0..self.nodes.len() {
                self.start(at);
                self.register(at);
            }
            self.round();
            let ids: Vec<TopicPartition> = partitions(&self.hard).map(|(id, _)| id).collect();
            for id in ids {
                (0..self.nodes.len()).for_each(|at| self.fetch(at, id));
                (0..self.nodes.len()).for_each(|at| self.alter(at, id, true));
            }
            self.pass(300);
        }
        for (id, partition) in partitions(&self.hard) {
            if partition.isr.is_empty() && partition.last_leader.is_none() {
                continue;
            }
            let whole = partition.isr == partition.replicas && !partition.is_reassigning();
            let preferred = partition.has_preferred_leader();
            assert!(whole && preferred, "EverythingHealsAgain: {id}: {partition:?}");
        }
    }

    /// What was written says what is.
    pub fn replay(&self) {
        let mut again = Cluster::default();
        for (at, record) in (0..).zip(&self.log) {
            let read = Record::decode(&record.encode()).unwrap();
            assert_eq!(&read, record, "ReplayIsState");
            Controller::apply(&mut again, Offset::new(at), &read);
        }
        assert_eq!(again, self.hard, "ReplayIsState");
        let end = Offset::new(self.log.len() as u64);
        let (restored, offset) = snapshot::decode(&snapshot::encode(&again, end)).unwrap();
        assert_eq!((restored, offset), (again, end), "ReplayIsState");
    }
}

/// Whether a broker was said to have all that was acknowledged.
fn stood(cluster: &Cluster, id: TopicPartition, broker: BrokerId) -> bool {
    let partition = cluster.topic_by_id(id.topic).and_then(|topic| topic.partition(id.partition));
    partition.is_some_and(|partition| standing(partition).any(|one| one == broker))
}

impl Node {
    fn partition(&self, id: TopicPartition) -> Option<&Partition> {
        self.view.topic_by_id(id.topic)?.partition(id.partition)
    }

    /// Whether it has a session and has seen that.
    fn is_member(&self) -> bool {
        let seen = self.view.broker(self.id).map(|broker| broker.epoch);
        self.up && self.epoch.is_some() && seen == self.epoch
    }

    fn leads(&self, partition: &Partition) -> bool {
        self.is_member() && partition.leader == Some(self.id)
    }
}
