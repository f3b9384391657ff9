//! What the controller allows and refuses, case by case. Expectations are Kafka's.

#[path = "controller/alone.rs"]
mod alone;

use alone::*;
use coordinator::cluster::ClusterId;
use coordinator::config::Config;
use coordinator::controller::{
    Assignment, Change, ConfigChange, Edit, MorePartitions, NewTopic, Refusal, Reply, Request,
    TopicRef, Why,
};
use coordinator::image::Image;
use coordinator::image::delta::Delta;
use coordinator::records::snapshot;
use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId,
};

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    NewTopic {
        assignments: assignments
            .iter()
            .map(|(partition, ids)| Assignment {
                partition: PartitionIndex(*partition),
                replicas: brokers(ids),
            })
            .collect(),
        ..topic(name, -1, -1)
    }
}

#[test]
fn a_topic_is_made_with_what_was_asked_or_the_defaults() {
    let mut c = Alone::with_brokers(3);
    c.config.num_partitions = 4;
    let made = c.create(vec![topic("a", 6, 2), topic("b", -1, -1)]);
    let a = made[0].1.as_ref().unwrap();
    assert_eq!((a.partitions.len(), a.replication_factor()), (6, 2));
    let b = made[1].1.as_ref().unwrap();
    assert_eq!((b.partitions.len(), b.replication_factor()), (4, 1));
    assert_ne!(a.id, b.id);
    for (_, partition) in a.partitions() {
        assert_eq!(partition.leader, Some(partition.replicas[0]));
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.leader_epoch, LeaderEpoch(0));
    }
    assert_eq!(c.cluster.topic("a"), Some(a));
    assert_eq!(c.cluster.topic_by_id(b.id), Some(b));
    assert_eq!((c.cluster.topic_count(), c.cluster.partition_count()), (2, 10));
}

#[test]
fn what_cannot_be_made_is_refused_for_its_own_reason() {
    let mut c = Alone::with_brokers(2);
    assert_eq!(c.create_one(topic("t", 1, 1)), None);
    for (refused, why) in [
        (topic("t", 1, 1), Why::TopicExists),
        (topic("", 1, 1), Why::TopicNameInvalid),
        (topic("a b", 1, 1), Why::TopicNameInvalid),
        (topic("__cluster_metadata", 1, 1), Why::RequestInvalid),
        (topic("x", 0, 1), Why::PartitionsInvalid),
        (topic("x", -2, 1), Why::PartitionsInvalid),
        (topic("x", 1, 0), Why::ReplicationFactorInvalid),
        (topic("x", 1, -2), Why::ReplicationFactorInvalid),
        (topic("x", 1, 3), Why::ReplicationFactorInvalid),
        (topic("x", 10_001, 1), Why::LimitReached),
        (topic("x", i32::MAX, 1), Why::LimitReached),
        (NewTopic { partitions: 1, ..assigned("x", &[(0, &[1])]) }, Why::RequestInvalid),
        (NewTopic { replication_factor: 1, ..assigned("x", &[(0, &[1])]) }, Why::RequestInvalid),
        (assigned("x", &[(0, &[])]), Why::AssignmentInvalid),
        (assigned("x", &[(0, &[3])]), Why::AssignmentInvalid),
        (assigned("x", &[(0, &[1, 1])]), Why::AssignmentInvalid),
        (assigned("x", &[(0, &[1]), (0, &[2])]), Why::AssignmentInvalid),
        (assigned("x", &[(0, &[1]), (2, &[2])]), Why::AssignmentInvalid),
        (assigned("x", &[(1, &[1])]), Why::AssignmentInvalid),
        (assigned("x", &[(-1, &[1])]), Why::AssignmentInvalid),
        (assigned("x", &[(0, &[1]), (1, &[1, 2])]), Why::AssignmentInvalid),
        (
            NewTopic { overrides: vec![("retention.ms".into(), None)], ..topic("x", 1, 1) },
            Why::ConfigInvalid,
        ),
        (
            NewTopic { overrides: vec![("a".into(), Some("b".into()))], ..topic("x", 1, 1) },
            Why::ConfigInvalid,
        ),
    ] {
        let before = c.log.len();
        assert_eq!(c.create_one(refused.clone()), Some(why), "{refused:?}");
        assert_eq!(c.log.len(), before, "a refusal leaves nothing behind");
    }
    let made = c.create(vec![assigned("x", &[(1, &[2, 1]), (0, &[1, 2])])]);
    let x = made[0].1.as_ref().unwrap();
    assert_eq!(*x.partitions[0].replicas, brokers(&[1, 2]));
    assert_eq!(*x.partitions[1].replicas, brokers(&[2, 1]));
}

#[test]
fn names_that_metrics_cannot_tell_apart_collide() {
    let mut c = Alone::with_brokers(1);
    assert_eq!(c.create_one(topic("a.b_c", 1, 1)), None);
    assert_eq!(c.create_one(topic("a_b.c", 1, 1)), Some(Why::TopicNameInvalid));
    assert_eq!(c.create_one(topic("a-b-c", 1, 1)), None);
    let made = c.create(vec![topic("x.y", 1, 1), topic("x_y", 1, 1)]);
    assert!(made[0].1.is_ok());
    assert_eq!(made[1].1.as_ref().unwrap_err().why, Why::TopicNameInvalid, "in one request, too");
    assert_eq!(c.delete(vec![by_name("a.b_c")]), [None]);
    assert_eq!(c.create_one(topic("a_b.c", 1, 1)), None, "free again");
}

#[test]
fn a_name_mentioned_twice_is_refused_once_and_the_others_go_on() {
    let mut c = Alone::with_brokers(1);
    let made = c.create(vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1)]);
    let why: Vec<_> = made.iter().map(|(name, r)| (name.as_str(), r.is_ok())).collect();
    assert_eq!(why, [("a", false), ("b", true)]);
    assert_eq!(made[0].1.as_ref().unwrap_err().why, Why::RequestInvalid);
}

#[test]
fn validation_alone_changes_nothing() {
    let mut c = Alone::with_brokers(1);
    c.create_one(topic("t", 1, 1));
    let before = c.log.len();
    let topics = vec![topic("a", 1, 1), topic("t", 1, 1)];
    let Reply::CreatedTopics(would) = c.ask(Request::CreateTopics { topics, validate_only: true })
    else {
        panic!()
    };
    assert!(would[0].1.is_ok() && would[1].1.is_err());
    c.ask(Request::CreatePartitions { topics: vec![more("t", 3)], validate_only: true });
    assert_eq!(c.log.len(), before);
}

#[test]
fn limits_count_what_the_same_request_makes() {
    let mut c = Alone::with_brokers(1);
    c.config = Config {
        topics_max: 3,
        partitions_max: 10,
        request_partitions_max: 6,
        ..Config::default()
    };
    let made = c.create(vec![topic("a", 4, 1), topic("b", 3, 1), topic("c", 2, 1)]);
    let ok: Vec<bool> = made.iter().map(|(_, made)| made.is_ok()).collect();
    assert_eq!(ok, [true, false, true], "6 partitions in one request, not 7");
    assert_eq!(c.create_one(topic("d", 5, 1)), Some(Why::LimitReached), "10 in all, not 11");
    assert_eq!(c.create_one(topic("d", 1, 1)), None);
    assert_eq!(c.create_one(topic("e", 1, 1)), Some(Why::LimitReached), "3 topics, not 4");
    assert_eq!(c.widen(more("d", 4)), None);
    assert_eq!(c.widen(more("d", 5)), Some(Why::LimitReached));
}

#[test]
fn topics_are_deleted_by_name_or_identity_and_purged() {
    let mut c = Alone::with_brokers(2);
    let made = c.create(vec![topic("a", 2, 2), topic("b", 1, 1), topic("c", 1, 1)]);
    let id = |i: usize| made[i].1.as_ref().unwrap().id;
    let unknown = TopicId::from_bytes([9; 16]);
    let why = c.delete(vec![
        by_name("a"),
        by_id(id(1)),
        by_name("b"),
        by_name("x"),
        by_id(unknown),
        TopicRef { name: None, id: None },
        TopicRef { name: Some("c".into()), id: Some(id(2)) },
    ]);
    let twice = Some(Why::RequestInvalid);
    let unknown = [Some(Why::UnknownTopic), Some(Why::UnknownTopicId)];
    assert_eq!(why, [None, twice, twice, unknown[0], unknown[1], twice, twice]);
    assert!(c.cluster.topic("a").is_none() && c.cluster.topic("b").is_some());
    assert_eq!(c.delete(vec![by_name("b"), by_name("b")]), [twice]);

    assert_eq!(c.cluster.deleted_topic(id(0)).unwrap().holders, brokers(&[1, 2]));
    let purge = |broker| Request::PurgedTopics { broker: BrokerId(broker), topics: vec![id(0)] };
    c.ask(purge(2));
    c.ask(purge(2));
    assert_eq!(c.cluster.deleted_topic(id(0)).unwrap().holders, brokers(&[1]));
    c.ask(purge(1));
    assert!(c.cluster.deleted_topic(id(0)).is_none());

    c.config.deleted_topics_max = 1;
    let two = vec![by_name("b"), by_name("c")];
    assert_eq!(c.delete(two), [None, Some(Why::LimitReached)]);
    c.config.delete_topics = false;
    assert_eq!(c.delete(vec![by_name("c")]), [Some(Why::DeletionDisabled)]);
}

#[test]
fn a_topic_made_again_is_another_topic() {
    let mut c = Alone::with_brokers(1);
    let first = c.create(vec![topic("a", 1, 1)])[0].1.as_ref().unwrap().id;
    c.delete(vec![by_name("a")]);
    let second = c.create(vec![topic("a", 1, 1)])[0].1.as_ref().unwrap().id;
    assert_ne!(first, second);
}

#[test]
fn partitions_are_added_never_taken() {
    let mut c = Alone::with_brokers(3);
    c.create_one(topic("a", 3, 2));
    assert_eq!(c.widen(more("x", 3)), Some(Why::UnknownTopic));
    for bad in [3, 2, 0, -1] {
        assert_eq!(c.widen(more("a", bad)), Some(Why::PartitionsInvalid), "{bad}");
    }
    let to = |count, assignments: &[&[i32]]| MorePartitions {
        assignments: Some(assignments.iter().map(|ids| brokers(ids)).collect()),
        ..more("a", count)
    };
    assert_eq!(c.widen(to(5, &[&[1, 2]])), Some(Why::AssignmentInvalid), "one for two");
    assert_eq!(c.widen(to(4, &[&[1]])), Some(Why::AssignmentInvalid), "one replica for two");
    assert_eq!(c.widen(to(4, &[&[1, 9]])), Some(Why::AssignmentInvalid), "unknown broker");
    assert_eq!(c.widen(to(4, &[&[3, 1]])), None);
    assert_eq!(c.widen(more("a", 6)), None);
    let a = c.cluster.topic("a").unwrap();
    assert_eq!(a.partitions.len(), 6);
    assert_eq!(*a.partitions[3].replicas, brokers(&[3, 1]));
    assert!(a.partitions.iter().all(|p| p.replicas.len() == 2));
    assert_eq!(c.cluster.partition_count(), 6);
}

#[test]
fn overrides_are_set_deleted_appended_subtracted_and_replaced() {
    let mut c = Alone::with_brokers(1);
    c.create_one(NewTopic {
        overrides: vec![("retention.ms".into(), Some("1000".into()))],
        ..topic("t", 1, 1)
    });
    let list = |name: &str, edit: fn(Option<String>) -> Edit, value: &str| {
        Change::Edit(vec![(name.into(), edit(Some(value.into())))])
    };
    let now = |c: &Alone| -> Vec<(String, String)> {
        c.cluster.topic("t").unwrap().overrides.clone().into_iter().collect()
    };
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());

    assert_eq!(c.alter("t", list("cleanup.policy", Edit::Append, "delete")), None);
    assert_eq!(now(&c), [pair("cleanup.policy", "delete"), pair("retention.ms", "1000")]);
    for refused in [
        list("cleanup.policy", Edit::Append, "keep"),
        list("cleanup.policy", Edit::Subtract, "delete"),
        list("retention.ms", Edit::Append, "1"),
        list("no.such.setting", Edit::Append, "1"),
        Change::Edit(vec![set("no.such.setting", "1")]),
        Change::Edit(vec![set("retention.ms", "soon")]),
        Change::Edit(vec![set("retention.ms", &"1".repeat(20_000))]),
    ] {
        assert_eq!(c.alter("t", refused.clone()), Some(Why::ConfigInvalid), "{refused:?}");
    }
    assert_eq!(now(&c).len(), 2, "a refusal changes nothing");

    let both = vec![set("segment.bytes", "2000000"), ("retention.ms".into(), Edit::Delete)];
    assert_eq!(c.alter("t", Change::Edit(both)), None);
    assert_eq!(now(&c), [pair("cleanup.policy", "delete"), pair("segment.bytes", "2000000")]);
    let only = Change::Replace(vec![("retention.ms".into(), Some("5".into()))]);
    assert_eq!(c.alter("t", only.clone()), None);
    assert_eq!(now(&c), [pair("retention.ms", "5")]);

    let before = c.log.len();
    assert_eq!(c.alter("t", only), None);
    assert_eq!(c.log.len(), before, "nothing changed, nothing to remember");

    let twice = Change::Edit(vec![set("retention.ms", "1"), set("retention.ms", "2")]);
    assert_eq!(c.alter("t", twice), Some(Why::RequestInvalid));
    let null = Change::Edit(vec![("retention.ms".into(), Edit::Set(None))]);
    assert_eq!(c.alter("t", null), Some(Why::RequestInvalid));
    let null = Change::Replace(vec![("retention.ms".into(), None)]);
    assert_eq!(c.alter("t", null), Some(Why::RequestInvalid));
    let one = || Change::Edit(vec![set("retention.ms", "1")]);
    assert_eq!(c.alter("x", one()), Some(Why::UnknownTopic));
    assert_eq!(c.alter("", one()), Some(Why::RequestInvalid));
    assert_eq!(c.alter("a b", one()), Some(Why::TopicNameInvalid));
}

#[test]
fn producer_ids_come_in_blocks_to_brokers_in_their_present_session() {
    let mut c = Alone::with_brokers(1);
    let ask = |c: &mut Alone, broker, epoch| {
        let request =
            Request::AllocateProducerIds { broker: BrokerId(broker), epoch: BrokerEpoch(epoch) };
        match c.ask(request) {
            Reply::AllocatedProducerIds(block) => block.map_err(|refusal| refusal.why),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(&mut c, 1, 1).unwrap().first, ProducerId(0));
    let second = ask(&mut c, 1, 1).unwrap();
    assert_eq!((second.first, second.count), (ProducerId(1000), 1000));
    assert_eq!(ask(&mut c, 1, 0), Err(Why::StaleBrokerEpoch));
    assert_eq!(ask(&mut c, 2, 1), Err(Why::UnknownBroker));
}

#[test]
fn a_broker_that_returns_leads_in_a_new_epoch() {
    let mut c = Alone::with_brokers(2);
    let ids: &[(i32, &[i32])] = &[(0, &[1, 2]), (1, &[2, 1])];
    c.create(vec![assigned("t", ids)]);
    let Reply::Registered(Ok(registered)) = c.ask(Request::RegisterBroker(registration(1))) else {
        panic!()
    };
    assert_eq!(registered.epoch, BrokerEpoch(3));
    assert_eq!(Some(&registered.cluster), c.cluster.id());
    let t = c.cluster.topic("t").unwrap();
    assert_eq!(t.partitions[0].leader_epoch, LeaderEpoch(1));
    assert_eq!(t.partitions[0].leader, Some(BrokerId(2)));
    assert_eq!(t.partitions[1].leader_epoch, LeaderEpoch(0));
}

#[test]
fn a_broker_of_another_cluster_is_refused() {
    let mut c = Alone::with_brokers(1);
    let mut stranger = registration(2);
    stranger.cluster = Some(ClusterId::new("another"));
    let reply = c.ask(Request::RegisterBroker(stranger.clone()));
    assert!(matches!(reply, Reply::Registered(Err(refusal)) if refusal.why == Why::ForeignCluster));
    let mut fresh = Alone::new(Config { brokers_max: 1, ..Config::default() }, 1);
    fresh.ask(Request::RegisterBroker(stranger));
    assert_eq!(fresh.cluster.id().unwrap().as_str(), "another", "the first brings its own");
    let reply = fresh.ask(Request::RegisterBroker(registration(3)));
    assert!(matches!(reply, Reply::Registered(Err(refusal)) if refusal.why == Why::LimitReached));
}

#[test]
fn groups_have_settings_of_their_own() {
    let mut c = Alone::with_brokers(1);
    let session = "consumer.session.timeout.ms";
    let set = |name: &str, value: &str| {
        Change::Edit(vec![(name.to_string(), Edit::Set(Some(value.into())))])
    };
    let why = |altered: Result<(), Refusal>| altered.map_err(|refusal| refusal.why);
    assert_eq!(c.alter_group("g", set(session, "50000")), Ok(()), "it need not be there");
    let own = |c: &Alone| c.cluster.group_overrides("g").cloned().unwrap_or_default();
    assert_eq!(own(&c), [(session.to_string(), "50000".to_string())].into());
    let end = c.log.len();
    assert_eq!(c.alter_group("g", set(session, "50000")), Ok(()));
    assert_eq!(c.log.len(), end, "it was true already");

    // What is refused changes nothing.
    let refused = c.alter_group("g", set(session, "60001")).unwrap_err();
    assert_eq!(refused.why, Why::ConfigInvalid);
    assert_eq!(
        refused.message,
        "consumer.session.timeout.ms must be less than or equal to \
         group.consumer.max.session.timeout.ms"
    );
    assert_eq!(c.alter_group("g", set(session, "60000")), Ok(()), "at its limit");
    for (group, change, expected) in [
        ("g", set("share.session.timeout.ms", "45000"), Why::ConfigInvalid),
        ("g", set("retention.ms", "1"), Why::ConfigInvalid),
        ("g", set(session, "x"), Why::ConfigInvalid),
        ("", set(session, "50000"), Why::RequestInvalid),
        (&"g".repeat(40_000), set(session, "50000"), Why::RequestInvalid),
        ("g", Change::Edit(vec![(session.into(), Edit::Set(None))]), Why::RequestInvalid),
        (
            "g",
            Change::Edit(vec![(session.into(), Edit::Append(Some("1".into())))]),
            Why::ConfigInvalid,
        ),
        ("g", Change::Replace(vec![(session.into(), None)]), Why::RequestInvalid),
    ] {
        assert_eq!(why(c.alter_group(group, change.clone())), Err(expected), "{group}: {change:?}");
    }
    assert_eq!(own(&c)[session], "60000");

    // Replaced as a whole, then given back.
    let interval = "consumer.heartbeat.interval.ms";
    let replace = Change::Replace(vec![(interval.into(), Some("6000".into()))]);
    assert_eq!(c.alter_group("g", replace), Ok(()));
    assert_eq!(own(&c), [(interval.to_string(), "6000".to_string())].into());
    assert_eq!(c.cluster, c.replayed());
    let before = Image::new(c.cluster.clone(), Offset::new(c.log.len() as u64), None);
    let bytes = snapshot::encode(&c.cluster, Offset::new(9));
    assert_eq!(snapshot::decode(&bytes).unwrap().0, c.cluster, "also by a snapshot");
    assert_eq!(c.alter_group("g", Change::Edit(vec![(interval.into(), Edit::Delete)])), Ok(()));
    assert_eq!(c.cluster.configured_groups().count(), 0);
    assert_eq!(c.cluster, c.replayed());
    let after = Image::new(c.cluster.clone(), Offset::new(c.log.len() as u64), None);
    assert_eq!(Delta::between(&before, &after).groups, ["g".into()]);
    assert!(!Delta::between(&before, &after).is_empty());
}

#[test]
fn as_many_groups_as_may_have_settings_of_their_own() {
    let mut c = Alone::with_brokers(1);
    c.config.configured_groups_max = 2;
    let change =
        || Change::Replace(vec![("consumer.session.timeout.ms".into(), Some("50000".into()))]);
    let groups = ["a", "b", "c"];
    let groups = groups.map(|name| ConfigChange { name: name.into(), change: change() }).into();
    let reply = c.ask(Request::AlterGroupConfigs { groups, validate_only: false });
    let Reply::AlteredConfigs(all) = reply else { panic!("{reply:?}") };
    let why: Vec<_> =
        all.into_iter().map(|(_, one)| one.err().map(|refusal| refusal.why)).collect();
    assert_eq!(why, [None, None, Some(Why::LimitReached)]);
    assert_eq!(c.alter_group("b", change()), Ok(()), "it has some already");
    assert_eq!(c.alter_group("a", Change::Replace(Vec::new())), Ok(()));
    assert_eq!(c.alter_group("c", change()), Ok(()));
}
