//! Brokers join, fall silent, stop and move, step by step: what each asks and what it is told.

#[path = "controller/alone.rs"]
mod alone;

use std::time::Duration;

use alone::*;
use coordinator::cluster::features::{FeatureRange, METADATA_VERSION};
use coordinator::cluster::{Cluster, DirectoryId};
use coordinator::controller::{
    Assignment, Change, ElectionKind, FeatureUpdate, IsrChange, Loss, NewTopic, Reassignment,
    Reply, Request, UpgradeKind, Why,
};
use coordinator::image::Image;
use coordinator::image::delta::Delta;
use coordinator::records::{Record, snapshot};
use engine::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicPartition};

const SECOND: Duration = Duration::from_secs(1);

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

/// A topic of one partition on these brokers.
fn on(c: &mut Alone, name: &str, replicas: &[i32], minimum: u32) -> TopicPartition {
    let replicas = replicas.iter().copied().map(BrokerId).collect();
    let new = NewTopic {
        assignments: vec![Assignment { partition: PartitionIndex(0), replicas }],
        overrides: vec![("min.insync.replicas".into(), Some(minimum.to_string()))],
        ..topic(name, -1, -1)
    };
    let topic = c.create(vec![new])[0].1.as_ref().unwrap().id;
    TopicPartition { topic, partition: PartitionIndex(0) }
}

/// A leader's change of an ISR, with everything up to date.
fn isr_change(c: &Alone, id: TopicPartition, isr: &[i32]) -> IsrChange {
    let now = c.cluster.topic_by_id(id.topic).unwrap().partition(id.partition).unwrap();
    let epoch = |id: i32| c.cluster.broker(BrokerId(id)).map(|b| b.epoch).unwrap_or_default();
    IsrChange {
        partition: id,
        leader_epoch: now.leader_epoch,
        partition_epoch: now.epoch,
        isr: isr.iter().map(|id| (BrokerId(*id), epoch(*id))).collect(),
    }
}

fn alter(c: &mut Alone, leader: i32, change: IsrChange) -> Result<Vec<i32>, Why> {
    let broker = BrokerId(leader);
    let epoch = c.cluster.broker(broker).unwrap().epoch;
    let request = Request::AlterPartitions { broker, epoch, partitions: vec![change] };
    let Reply::AlteredPartitions(altered) = c.ask(request) else { panic!() };
    let altered = altered.map_err(|refusal| refusal.why)?.pop().unwrap().1;
    altered.map(|partition| ids(&partition.isr)).map_err(|refusal| refusal.why)
}

fn reassign(c: &mut Alone, topic: &str, replicas: Option<&[i32]>) -> Result<(), Why> {
    reassign_as(c, topic, replicas, false)
}

fn reassign_as(
    c: &mut Alone,
    topic: &str,
    replicas: Option<&[i32]>,
    keep_factor: bool,
) -> Result<(), Why> {
    let replicas = replicas.map(|all| all.iter().copied().map(BrokerId).collect());
    let (topic, partition) = (topic.to_string(), PartitionIndex(0));
    let partitions = vec![Reassignment { topic, partition, replicas }];
    let Reply::AlteredReassignments(mut altered) =
        c.ask(Request::AlterReassignments { partitions, keep_factor })
    else {
        panic!()
    };
    altered.pop().unwrap().2.map_err(|refusal| refusal.why)
}

#[test]
fn a_silent_broker_is_fenced_and_what_it_led_is_led_by_another() {
    let mut c = Alone::with_brokers(3);
    on(&mut c, "t", &[1, 2, 3], 2);
    c.pass(SECOND, &[2, 3]);
    assert_eq!(c.partition("t", 0).leader, Some(BrokerId(1)), "not yet");
    c.pass(SECOND, &[2, 3]);
    let t = c.partition("t", 0);
    assert_eq!(
        (t.leader, ids(&t.isr), t.leader_epoch),
        (Some(BrokerId(2)), vec![2, 3], LeaderEpoch(1))
    );
    assert!(c.cluster.broker(BrokerId(1)).unwrap().fenced && t.elr.is_empty());
    c.pass(SECOND * 2, &[3]);
    let t = c.partition("t", 0);
    assert_eq!((t.leader, ids(&t.isr), ids(&t.elr)), (Some(BrokerId(3)), vec![3], vec![2]));
    c.pass(SECOND * 2, &[]);
    let t = c.partition("t", 0);
    assert_eq!((t.leader, ids(&t.isr), ids(&t.elr)), (None, vec![3], vec![2]));
    assert_eq!(t.last_leader, Some(BrokerId(3)));
    assert!(!c.beat(2).fenced, "a fenced broker that beats again is back");
    let t = c.partition("t", 0);
    assert_eq!((t.leader, ids(&t.isr), ids(&t.elr)), (Some(BrokerId(2)), vec![2], vec![3]));
    assert_eq!(c.replayed(), c.cluster);
}

#[test]
fn a_leader_whose_term_is_spent_hands_over_or_begins_another() {
    let mut c = Alone::with_brokers(3);
    let id = on(&mut c, "t", &[1, 2, 3], 2);
    let resigns = isr_change(&c, id, &[]);
    assert_eq!(alter(&mut c, 2, resigns.clone()), Err(Why::RequestInvalid), "it is not the leader");
    assert_eq!(alter(&mut c, 1, resigns.clone()), Ok(vec![1, 2, 3]), "what is committed it has");
    let t = c.partition("t", 0);
    assert_eq!((t.leader, t.leader_epoch), (Some(BrokerId(2)), LeaderEpoch(1)));
    assert_eq!(alter(&mut c, 1, resigns), Err(Why::FencedLeaderEpoch), "once is enough");
    // Nobody else is in sync, and those who are eligible are away.
    c.pass(SECOND * 2, &[2]);
    let before = c.partition("t", 0).clone();
    assert_eq!((ids(&before.isr), ids(&before.elr)), (vec![2], vec![3]));
    let resigns = isr_change(&c, id, &[]);
    assert_eq!(alter(&mut c, 2, resigns), Ok(vec![2]));
    let t = c.partition("t", 0);
    assert_eq!((t.leader, t.leader_epoch), (Some(BrokerId(2)), LeaderEpoch(2)));
    assert_eq!(t.epoch.0, before.epoch.0 + 1);
    // One that is eligible has all that is committed, too.
    c.beat(3);
    let resigns = isr_change(&c, id, &[]);
    assert_eq!(alter(&mut c, 2, resigns), Ok(vec![3]));
    let t = c.partition("t", 0);
    assert_eq!((t.leader, ids(&t.elr)), (Some(BrokerId(3)), vec![2]));
    assert_eq!(c.replayed(), c.cluster);
}

#[test]
fn a_registration_begins_fenced_and_is_over_when_it_was_seen() {
    let mut c = Alone::with_brokers(1);
    let two = registration(2);
    let registered = c.register(two.clone()).unwrap();
    let at = c.cluster.broker(BrokerId(2)).unwrap().registered.value();
    assert!(c.heartbeat(2, at, false).fenced, "everything below it is not it");
    assert_eq!(c.register(two.clone()).unwrap(), registered, "the same run asks again");
    assert!(!c.heartbeat(2, at + 1, false).fenced);
    assert_eq!(c.register(two).unwrap(), registered, "and again");
    assert!(!c.cluster.broker(BrokerId(2)).unwrap().fenced, "which changes nothing");
}

#[test]
fn another_directory_is_believed_when_the_last_session_is_over() {
    let mut c = Alone::with_brokers(2);
    on(&mut c, "t", &[1], 1);
    let mut other = registration(1);
    other.directory = DirectoryId(77);
    assert_eq!(c.register(other.clone()).unwrap_err().why, Why::DuplicateBroker);
    let mut stolen = registration(3);
    stolen.directory = directory(2);
    assert_eq!(c.register(stolen).unwrap_err().why, Why::RegistrationInvalid);
    c.pass(SECOND * 2, &[2]);
    c.join(other);
    let t = c.partition("t", 0);
    let lost = (t.leader, ids(&t.isr), t.last_leader);
    assert_eq!(lost, (None, vec![], None), "offline, not silently empty");
    let partitions = Some(vec![("t".to_string(), PartitionIndex(0))]);
    let kind = ElectionKind::Unclean;
    let Reply::ElectedLeaders(elected) = c.ask(Request::ElectLeaders { kind, partitions }) else {
        panic!()
    };
    assert_eq!(elected[0].2, Ok(()));
    assert_eq!(c.partition("t", 0).leader, Some(BrokerId(1)));
}

#[test]
fn what_a_power_cut_costs_depends_on_whether_the_topic_syncs() {
    let mut c = Alone::with_brokers(3);
    on(&mut c, "synced", &[1, 2], 2);
    on(&mut c, "unsynced", &[1, 2], 2);
    assert_eq!(c.alter("unsynced", Change::Edit(vec![set("flush.messages", "10")])), None);
    let mut two = registration(2);
    two.lost = Loss::Unsynced;
    c.join(two);
    let lists = |c: &Alone, name: &str| {
        let partition = c.partition(name, 0);
        (ids(&partition.isr), ids(&partition.elr), partition.leader_epoch.0)
    };
    assert_eq!(lists(&c, "synced"), (vec![1], vec![2], 0));
    assert_eq!(lists(&c, "unsynced"), (vec![1], vec![], 1), "and in a new term");
    let mut one = registration(1);
    one.lost = Loss::Unsynced;
    c.register(one).unwrap();
    assert_eq!(lists(&c, "synced"), (vec![2], vec![1], 1), "led from the eligible ones");
    let unsynced = c.partition("unsynced", 0);
    assert_eq!((ids(&unsynced.isr), unsynced.last_leader), (vec![], Some(BrokerId(1))));
    assert!(!c.beat(1).fenced);
    assert_eq!(c.partition("unsynced", 0).leader, Some(BrokerId(1)), "what is left of it goes on");
}

#[test]
fn a_leader_is_refused_for_what_it_does_not_know() {
    let mut c = Alone::with_brokers(4);
    let id = on(&mut c, "t", &[1, 2, 3], 1);
    let change = isr_change(&c, id, &[1, 2]);
    assert_eq!(alter(&mut c, 1, change.clone()), Ok(vec![1, 2]));
    assert_eq!(alter(&mut c, 1, change), Err(Why::InvalidUpdateVersion));
    let full = isr_change(&c, id, &[1, 2, 3]);
    let cases = [
        (2, full.clone(), Why::RequestInvalid),
        (1, isr_change(&c, id, &[1, 4]), Why::RequestInvalid),
        (1, isr_change(&c, id, &[2, 3]), Why::RequestInvalid),
        (1, isr_change(&c, id, &[1, 1]), Why::RequestInvalid),
        (1, IsrChange { leader_epoch: LeaderEpoch(9), ..full.clone() }, Why::NotController),
        (1, IsrChange { leader_epoch: LeaderEpoch(-1), ..full.clone() }, Why::FencedLeaderEpoch),
    ];
    for (leader, change, why) in cases {
        assert_eq!(alter(&mut c, leader, change.clone()), Err(why), "{change:?}");
    }
    c.register(registration(3)).unwrap();
    assert_eq!(alter(&mut c, 1, full.clone()), Err(Why::IneligibleReplica), "fenced");
    assert!(!c.beat(3).fenced);
    assert_eq!(alter(&mut c, 1, full), Err(Why::IneligibleReplica), "its session is another");
    let full = isr_change(&c, id, &[3, 2, 1]);
    assert_eq!(alter(&mut c, 1, full), Ok(vec![1, 2, 3]));
}

#[test]
fn whoever_wants_to_stop_hands_over_what_others_can_lead() {
    let mut c = Alone::with_brokers(2);
    on(&mut c, "shared", &[1, 2], 1);
    on(&mut c, "own", &[1], 1);
    let end = |c: &Alone| c.log.len() as u64;
    let pulse = c.heartbeat(1, end(&c), true);
    assert!(pulse.stopping && !pulse.should_shut_down && !pulse.fenced);
    assert_eq!(c.partition("shared", 0).leader, Some(BrokerId(2)));
    assert_eq!(c.partition("own", 0).leader, Some(BrokerId(1)), "nobody else can");
    assert_eq!(c.create_one(topic("x", 1, 2)), Some(Why::ReplicationFactorInvalid));
    let pulse = c.heartbeat(1, end(&c), true);
    assert!(!pulse.should_shut_down, "the other has not heard of it");
    c.beat(2);
    let pulse = c.heartbeat(1, end(&c), true);
    assert!(pulse.should_shut_down && pulse.fenced);
    let own = c.partition("own", 0);
    assert_eq!((own.leader, ids(&own.isr)), (None, vec![1]));
    c.join(registration(1));
    assert_eq!(c.partition("own", 0).leader, Some(BrokerId(1)));
    let pulse = c.heartbeat(1, end(&c), true);
    assert!(pulse.should_shut_down, "it leads nothing that another could lead");
}

#[test]
fn preferred_leaders_come_back_by_themselves() {
    let mut c = Alone::with_brokers(2);
    let id = on(&mut c, "t", &[1, 2], 1);
    c.join(registration(1));
    let full = isr_change(&c, id, &[2, 1]);
    assert_eq!(alter(&mut c, 2, full), Ok(vec![1, 2]));
    assert_eq!(c.partition("t", 0).leader, Some(BrokerId(2)));
    c.pass(Duration::from_secs(299), &[1, 2]);
    assert_eq!(c.partition("t", 0).leader, Some(BrokerId(2)));
    c.pass(SECOND * 2, &[1, 2]);
    assert_eq!(c.partition("t", 0).leader, Some(BrokerId(1)));
}

#[test]
fn replicas_move_when_all_that_stay_are_in_sync() {
    let mut c = Alone::with_brokers(4);
    let id = on(&mut c, "t", &[1, 2], 1);
    assert_eq!(reassign(&mut c, "t", None), Err(Why::NoReassignmentInProgress));
    assert_eq!(reassign(&mut c, "t", Some(&[9])), Err(Why::AssignmentInvalid));
    assert_eq!(reassign(&mut c, "x", Some(&[1])), Err(Why::UnknownTopic));
    assert_eq!(reassign(&mut c, "t", Some(&[3, 4])), Ok(()));
    let t = c.partition("t", 0);
    assert_eq!(
        (ids(&t.replicas), ids(&t.adding), ids(&t.removing)),
        (vec![3, 4, 1, 2], vec![3, 4], vec![1, 2])
    );
    assert_eq!(reassign(&mut c, "t", None), Ok(()));
    assert_eq!(ids(&c.partition("t", 0).replicas), [1, 2]);
    assert_eq!(reassign(&mut c, "t", Some(&[3, 4])), Ok(()));
    let three = isr_change(&c, id, &[1, 2, 3]);
    assert_eq!(alter(&mut c, 1, three), Ok(vec![3, 1, 2]));
    let four = isr_change(&c, id, &[1, 2, 3, 4]);
    assert_eq!(alter(&mut c, 1, four), Err(Why::NewLeaderElected));
    let t = c.partition("t", 0);
    assert_eq!(
        (ids(&t.replicas), ids(&t.isr), t.leader),
        (vec![3, 4], vec![3, 4], Some(BrokerId(3)))
    );
    assert!(!t.is_reassigning());
}

#[test]
fn a_number_of_replicas_is_kept_where_that_is_asked() {
    let mut c = Alone::with_brokers(4);
    on(&mut c, "t", &[1, 2], 1);
    let changed = Err(Why::ReplicationFactorInvalid);
    assert_eq!(reassign_as(&mut c, "t", Some(&[3]), true), changed);
    assert_eq!(reassign_as(&mut c, "t", Some(&[1, 2, 3]), true), changed);
    assert_eq!(reassign_as(&mut c, "t", Some(&[3, 4]), true), Ok(()));
    // It has four replicas while they move, and two when they have.
    assert_eq!(reassign_as(&mut c, "t", Some(&[1, 2, 3, 4]), true), changed);
    assert_eq!(reassign_as(&mut c, "t", Some(&[4, 3]), true), Ok(()));
    assert_eq!(reassign_as(&mut c, "t", None, true), Ok(()));
    assert_eq!(reassign_as(&mut c, "t", Some(&[3]), false), Ok(()));
}

#[test]
fn a_minimum_that_is_lowered_ends_eligibility() {
    let mut c = Alone::with_brokers(2);
    on(&mut c, "t", &[1, 2], 2);
    c.register(registration(2)).unwrap();
    assert_eq!(ids(&c.partition("t", 0).elr), [2]);
    assert_eq!(c.alter("t", Change::Edit(vec![set("min.insync.replicas", "1")])), None);
    assert_eq!(ids(&c.partition("t", 0).elr), [] as [i32; 0]);
    assert_eq!(c.replayed(), c.cluster);
}

#[test]
fn features_change_together_or_not_at_all() {
    let mut c = Alone::with_brokers(1);
    assert_eq!(c.cluster.feature(METADATA_VERSION), 25);
    let one = |name: &str, level, kind| FeatureUpdate { name: name.into(), level, kind };
    let update = |c: &mut Alone, updates: Vec<FeatureUpdate>| {
        let Reply::UpdatedFeatures(updated) =
            c.ask(Request::UpdateFeatures { updates, validate_only: false })
        else {
            panic!()
        };
        updated.map_err(|(name, refusal)| (name, refusal.message))
    };
    use UpgradeKind::{SafeDowngrade, UnsafeDowngrade, Upgrade};
    for (refused, reason) in [
        (
            one("eligible.leader.replicas.version", 2, Upgrade),
            "Local controller only supports versions 0-1",
        ),
        (one("no.such", 1, Upgrade), "Local controller does not support this feature."),
        (
            one("eligible.leader.replicas.version", -1, Upgrade),
            "A feature version cannot be less than 0.",
        ),
        (one("eligible.leader.replicas.version", 0, Upgrade), "either safe or unsafe downgrade."),
        (one(METADATA_VERSION, 20, UnsafeDowngrade), "is not supported in this version."),
    ] {
        let before = c.log.len();
        let good = one("eligible.leader.replicas.version", 0, SafeDowngrade);
        let mut all = vec![good, refused.clone()];
        all.retain(|one| *one == refused || one.name != refused.name);
        let (name, message) = update(&mut c, all).unwrap_err();
        assert!(name == refused.name && message.ends_with(reason), "{message}");
        assert_eq!(c.log.len(), before);
    }
    assert_eq!(
        update(&mut c, vec![one("eligible.leader.replicas.version", 0, SafeDowngrade)]),
        Ok(())
    );
    assert_eq!(c.cluster.feature("eligible.leader.replicas.version"), 0);
    let mut old = registration(2);
    old.features.insert(METADATA_VERSION.into(), FeatureRange { min: 7, max: 20 });
    assert_eq!(c.register(old).unwrap_err().why, Why::FeatureUnsupported);
}

#[test]
fn a_broker_that_is_unregistered_stays_only_where_nobody_else_has_everything() {
    let mut c = Alone::with_brokers(2);
    on(&mut c, "shared", &[1, 2], 2);
    on(&mut c, "own", &[1], 1);
    let unregister =
        |c: &mut Alone, id| match c.ask(Request::UnregisterBroker { broker: BrokerId(id) }) {
            Reply::UnregisteredBroker(done) => done.map_err(|refusal| refusal.why),
            other => panic!("{other:?}"),
        };
    assert_eq!(unregister(&mut c, 9), Err(Why::UnknownBroker));
    assert_eq!(unregister(&mut c, 1), Ok(()));
    assert!(c.cluster.broker(BrokerId(1)).is_none());
    let shared = c.partition("shared", 0);
    assert_eq!((ids(&shared.isr), ids(&shared.elr)), (vec![2], vec![]));
    assert_eq!(ids(&c.partition("own", 0).isr), [1]);
    c.join(registration(1));
    assert_eq!(c.partition("own", 0).leader, Some(BrokerId(1)));
}

#[test]
fn a_delta_tells_a_broker_its_duties() {
    let mut c = Alone::with_brokers(3);
    let id = on(&mut c, "t", &[1, 2], 1);
    on(&mut c, "u", &[3], 1);
    let image = |c: &Alone| Image::new(c.cluster.clone(), Offset::new(c.log.len() as u64), None);
    let before = image(&c);
    c.register(registration(1)).unwrap();
    let after = image(&c);
    let delta = Delta::between(&before, &after);
    assert!(!delta.features_changed && delta.brokers.len() == 1);
    let one = &delta.brokers[0];
    assert!(one.id() == BrokerId(1) && one.has_restarted() && !one.is_up());
    let duties: Vec<_> = delta.duties(BrokerId(2)).collect();
    assert_eq!(duties.len(), 1);
    assert_eq!((duties[0].id, duties[0].after.unwrap().leader), (id, Some(BrokerId(2))));
    assert_eq!(delta.duties(BrokerId(3)).count(), 0);
    assert_eq!(reassign(&mut c, "t", Some(&[2])), Ok(()));
    let (before, after) = (after, image(&c));
    let delta = Delta::between(&before, &after);
    let gone: Vec<_> = delta.duties(BrokerId(1)).collect();
    assert!(gone.len() == 1 && gone[0].before.is_some() && gone[0].after.is_none());
    let all = Delta::between(&Image::empty(), &after);
    assert_eq!(all.duties(BrokerId(2)).count(), 1, "a new image is all duties");
    assert!(Delta::between(&after, &after.clone()).is_empty());
}

/// Records and a snapshot as the first release wrote them (2026-11-25).
#[test]
fn what_the_first_release_wrote_is_read() {
    let lines = include_str!("members/first_release.txt").lines();
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let mut cluster = Cluster::default();
    let mut kept = None;
    let mut kinds = std::collections::BTreeSet::new();
    for (at, line) in (0..).zip(lines) {
        if let Some(hex) = line.strip_prefix("snapshot ") {
            kept = Some(snapshot::decode(&bytes(hex)).unwrap());
            continue;
        }
        let value = bytes(line);
        kinds.insert((value[0], u16::from_be_bytes([value[1], value[2]])));
        cluster.apply(Offset::new(at), &Record::decode(&value).unwrap());
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        (1..=8).map(|kind| (kind, 1)).collect::<Vec<_>>()
    );
    let (restored, _) = kept.unwrap();
    let topics = |cluster: &Cluster| cluster.topics().cloned().collect::<Vec<_>>();
    assert_eq!(topics(&restored), topics(&cluster));
    assert_eq!(restored.last_broker_epoch(), cluster.last_broker_epoch());
    let again = cluster.broker(BrokerId(1)).unwrap();
    assert!(!again.fenced && again.directory == DirectoryId::UNKNOWN);
    let mut c = Alone::new(Default::default(), 1);
    c.cluster = cluster;
    let led = |c: &Alone| c.cluster.topics().flat_map(|t| t.partitions.clone()).collect::<Vec<_>>();
    let before = led(&c);
    // The first release's broker returns under this one: it keeps what it has.
    c.log = vec![Vec::new(); 100];
    c.join(registration(1));
    for (before, after) in before.iter().zip(led(&c)) {
        assert!(after.isr.iter().all(|one| before.isr.contains(one)) && after.leader.is_some());
        assert!(before.leader != Some(BrokerId(1)) || after.leader_epoch > before.leader_epoch);
    }
}
