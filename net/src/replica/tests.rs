//! Followers and leaders with real frames between them. What each test forbids was seen to happen
//! with the line taken out that prevents it.

use std::cell::Cell;
use std::time::Duration;

use coordinator::controller::{Reassignment, Reply, Request, TopicRef};
use engine::env::Env;
use engine::env::sim::End;
use engine::ids::{BrokerId, Offset, TopicPartition};
use futures_lite::future;

use super::VERSION;
use crate::env::sim::SimNet;
use crate::wire::ErrorCode;
use crate::wire::fetch::{
    FetchRequest, FetchResponse, ReplicaState, RequestPartition, RequestTopic,
};

use crate::wire::produce::{LeaderIdAndEpoch, NodeEndpoint, ProduceResponse};

mod world;

use world::{CLIENTS, PEERS, World, call};

/// Seeds of each test, unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 40;
fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var("SIM_SEEDS").ok();
    0..chosen.map_or(SEEDS, |text| text.parse().expect("a number"))
}

const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

/// Produces one batch to the leader of each partition: `value`, and some more.
async fn produce_to_all(world: &World, ids: &[TopicPartition], acks: i16, value: &[u8]) {
    for &id in ids {
        let leader = world.leader(id).expect("there is one");
        let leads = || world.partition(leader, id).is_some_and(|partition| partition.is_leader());
        world.until("the leader serves", leads).await;
        let mut link = world.connect(leader, CLIENTS).await;
        let base = world.produce(&mut link, id, acks, value).await.expect("it is taken");
        if acks == -1 {
            assert_durable(world, id, base.plus(1));
        }
    }
}

/// What was acknowledged is durable on everybody who is in sync, and committed.
fn assert_durable(world: &World, id: TopicPartition, end: Offset) {
    for broker in world.isr(id) {
        let Some(partition) = world.partition(broker, id) else { continue };
        let durable = partition.log().durable().value();
        assert!(durable >= end.value(), "{id} on {broker}: {durable} of {end} is durable");
    }
}

/// A whole run: data, lost connections, lost processes. Answers the trace.
fn story(seed: u64) -> u64 {
    let world = World::new(seed, |_| ());
    world.sim.run_until(async {
        let random = world.sim.workload(1);
        let ids = world.create(6).await;
        let mut promised = Vec::new();
        for round in 0..6 {
            let acks = if random.chance(1, 2) { -1 } else { 1 };
            let mut value = format!("round {round}").into_bytes();
            if acks == -1 {
                promised.push(value.clone());
            }
            value.resize(random.between(10, 9_000) as usize, 7);
            let produced = produce_to_all(&world, &ids, acks, &value);
            let trouble = async {
                world.sleep(random.below(20)).await;
                let (one, other) = (random.below(3) as usize, random.below(3) as usize);
                world.net.reset(&world.machines[one], &world.machines[other]);
            };
            future::zip(produced, trouble).await;
            if round == 3 {
                let victim = BROKERS[random.below(3) as usize];
                world.end(victim, End::Kill);
                world.begin(victim);
                world.until("a broker is back", || world.partition(victim, ids[0]).is_some()).await;
            }
        }
        world.settle(&ids).await;
        for &id in &ids {
            let log = world.bytes(BROKERS[0], id).await;
            for value in &promised {
                let found = log.windows(value.len()).any(|bytes| bytes == value);
                assert!(found, "{id} has lost {:?}", String::from_utf8_lossy(value));
            }
        }
    });
    world.sim.trace_hash()
}

#[test]
fn replicas_become_even_whatever_happens_to_their_connections() {
    // 145: the connection was lost while a log was being cut.
    story(145);
    for seed in seeds() {
        story(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

#[test]
fn all_acks_wait_for_the_followers_devices_and_for_no_timer() {
    for seed in seeds() {
        let world = World::new(seed, |_| ());
        world.sim.run_until(async {
            let ids = world.create(4).await;
            produce_to_all(&world, &ids, -1, b"first").await;
            world.settle(&ids).await;
            for &id in &ids {
                let leader = world.leader(id).expect("there is one");
                let mut link = world.connect(leader, CLIENTS).await;
                let follower = BROKERS.into_iter().find(|&b| b != leader).expect("others");
                let disk = world.machine(follower).disk();
                disk.set_hang(true);
                let answered = Cell::new(false);
                let producing = async {
                    let base = world.produce(&mut link, id, -1, b"all").await.expect("taken");
                    answered.set(true);
                    assert_durable(&world, id, base.plus(1));
                };
                let looking = async {
                    world.sleep(1_500).await;
                    assert!(!answered.get(), "seed {seed}: a follower's device hangs");
                    disk.set_hang(false);
                    world.env.now()
                };
                let ((), since) = future::zip(producing, looking).await;
                let late = world.env.now().since(since);
                assert!(late < Duration::from_millis(300), "seed {seed}: {late:?}");
                // Followers hear of the watermark as soon.
                world.settle(&[id]).await;
                let late = world.env.now().since(since);
                assert!(late < Duration::from_millis(600), "seed {seed}: {late:?}");
            }
        });
    }
}

#[test]
fn a_leader_that_was_cut_off_gives_up_what_the_others_never_had() {
    for seed in seeds() {
        let world = World::new(seed, |_| ());
        world.sim.run_until(async {
            let ids = world.create(3).await;
            produce_to_all(&world, &ids, -1, b"first").await;
            world.settle(&ids).await;
            let (id, old) = (ids[0], world.leader(ids[0]).expect("there is one"));
            let others: Vec<_> = world
                .machines
                .iter()
                .filter(|m| m.number() != world.machine(old).number())
                .collect();
            world.net.partition(&[world.machine(old)], &others);
            let mut link = world.connect(old, CLIENTS).await;
            for _ in 0..3 {
                world.produce(&mut link, id, 1, b"lost").await.expect("taken");
            }
            let lost_end = world.partition(old, id).expect("open").log().end();
            // Its process goes on, and it follows the next leader.
            world.register_again(old).await;
            let new = world.leader(id).expect("there is one");
            assert_ne!(new, old);
            world
                .until("there is a new leader", || {
                    world.partition(new, id).is_some_and(|p| p.is_leader())
                })
                .await;
            let mut link = world.connect(new, CLIENTS).await;
            let base = world.produce(&mut link, id, 1, b"kept").await.expect("taken");
            assert!(base.plus(1) < lost_end, "the logs part");
            world.net.heal();
            world.settle(&ids).await;
            let end = world.partition(old, id).expect("open").log().end();
            assert_eq!(end, base.plus(1), "seed {seed}");
        });
    }
}

#[test]
fn a_broker_that_registers_anew_goes_on_following() {
    for seed in seeds() {
        let world = World::new(seed, |_| ());
        world.sim.run_until(async {
            let ids = world.create(6).await;
            produce_to_all(&world, &ids, -1, b"first").await;
            world.settle(&ids).await;
            world.register_again(BROKERS[1]).await;
            let since = world.env.now();
            world.settle(&ids).await;
            let late = world.env.now().since(since);
            assert!(late < Duration::from_secs(5), "seed {seed}: in sync again after {late:?}");
        });
    }
}

#[test]
fn producers_that_wait_do_not_keep_the_followers_out() {
    for seed in seeds() {
        let world = World::new(seed, |options| options.broker.shard_queued_bytes_max = 1_000);
        world.sim.run_until(async {
            let ids = world.create(2).await;
            produce_to_all(&world, &ids, -1, b"first").await;
            world.settle(&ids).await;
            let leader = world.leader(ids[0]).expect("there is one");
            let followers = BROKERS.into_iter().filter(|&broker| broker != leader);
            let followers: Vec<_> = followers.map(|broker| world.machine(broker)).collect();
            // Nobody is there to promise anything while requests of producers pile up.
            world.net.partition(&[world.machine(leader)], &followers);
            for follower in &followers {
                world.net.reset(world.machine(leader), follower);
            }
            let mut links = Vec::new();
            for _ in 0..6 {
                links.push(world.connect(leader, CLIENTS).await);
            }
            let since = Cell::new(world.env.now());
            let producing = links.iter_mut().map(|link| {
                let world = &world;
                let id = ids[0];
                async move { world.produce(link, id, -1, &[1; 2_000]).await.expect("taken") }
            });
            let mut producing: Vec<_> = producing.map(Box::pin).collect();
            let all = async {
                // All are under way before the first is waited for.
                for one in &mut producing {
                    assert!(future::poll_once(one.as_mut()).await.is_none());
                }
                for one in producing {
                    one.await;
                }
            };
            let healing = async {
                world.sleep(3_000).await;
                world.net.heal();
                since.set(world.env.now());
            };
            future::zip(all, healing).await;
            let late = world.env.now().since(since.get());
            assert!(late < Duration::from_secs(10), "seed {seed}: {late:?}");
        });
    }
}

#[test]
fn an_idle_stream_costs_nothing() {
    for seed in seeds() {
        let world = World::new(seed, |_| ());
        let idle = || {
            let before = world.sim.executor().polls();
            world.sim.run_for(Duration::from_secs(4));
            world.sim.executor().polls() - before
        };
        let ids = world.sim.run_until(async {
            let ids = world.create(6).await;
            produce_to_all(&world, &ids, -1, b"first").await;
            world.settle(&ids).await;
            ids
        });
        world.sim.run_for(Duration::from_secs(1));
        let usual = idle();
        // Partitions leave the streams, some of them the last of their shard.
        let moves = ids[1..].iter().map(|id| Reassignment {
            topic: "t".into(),
            partition: id.partition,
            replicas: world.leader(*id).map(|leader| vec![leader]),
        });
        let moves = Request::AlterReassignments { partitions: moves.collect(), keep_factor: false };
        let reply = world.decide(moves);
        assert!(
            matches!(&reply, Reply::AlteredReassignments(each)
            if each.iter().all(|(_, _, done)| done.is_ok())),
            "{reply:?}"
        );
        // One fetch of each stream comes to its end meanwhile, and what was parked with it.
        world.sim.run_for(world::WAIT_MAX);
        let left = idle();
        assert!(left <= 2 * usual, "seed {seed}: {usual} polls, then {left}");
        let topic = TopicRef { name: Some("t".into()), id: None };
        let _ = world.decide(Request::DeleteTopics { topics: vec![topic] });
        world.sim.run_for(world::WAIT_MAX);
        let gone = idle();
        assert!(gone <= 2 * usual, "seed {seed}: {usual} polls, then {gone}");
    }
}

#[test]
fn only_brokers_on_their_own_listener_are_replicas() {
    let world = World::new(1, |_| ());
    world.sim.run_until(async {
        let ids = world.create(1).await;
        produce_to_all(&world, &ids, -1, b"first").await;
        world.settle(&ids).await;
        let leader = world.leader(ids[0]).expect("there is one");
        let follower = BROKERS.into_iter().find(|&b| b != leader).expect("others");
        let image = world.decider.image();
        let replica_epoch = image.broker(follower).expect("registered").epoch.0;
        let partitions = [RequestPartition {
            partition: 0,
            partition_max_bytes: 1 << 20,
            current_leader_epoch: 0,
            durable_end: 0,
            partition_epoch: 100,
            ..Default::default()
        }];
        let partitions = (&partitions).into();
        let topics = [RequestTopic { topic_id: ids[0].topic, partitions, ..Default::default() }];
        let ask = |stream_seq, replica_epoch| FetchRequest {
            replica_state: ReplicaState { replica_id: follower.0, replica_epoch },
            session_id: 1,
            session_epoch: 0,
            stream_seq,
            topics: (&topics).into(),
            ..Default::default()
        };
        for (port, seq, epoch, expected) in [
            (CLIENTS, 0, replica_epoch, ErrorCode::ClusterAuthorizationFailed),
            (CLIENTS, -1, replica_epoch, ErrorCode::ClusterAuthorizationFailed),
            (PEERS, -1, replica_epoch, ErrorCode::ClusterAuthorizationFailed),
            (PEERS, 1, replica_epoch, ErrorCode::InvalidFetchSessionEpoch),
            (PEERS, 0, replica_epoch, ErrorCode::None),
        ] {
            let mut link = world.connect(leader, port).await;
            let answer = call(&mut link, &ask(seq, epoch), VERSION).await;
            let response: FetchResponse<'_> = answer.decode(VERSION).expect("an answer");
            assert_eq!(response.error_code, expected, "{port} {seq}");
            let parts = response.topics.first().map_or(0, |topic| topic.partitions.len());
            assert_eq!(parts > 0, expected == ErrorCode::None);
        }
        // One who has registered anew since.
        let mut link = world.connect(leader, PEERS).await;
        let answer = call(&mut link, &ask(0, replica_epoch - 1), VERSION).await;
        let response: FetchResponse<'_> = answer.decode(VERSION).expect("an answer");
        let part = response.topics.first().and_then(|topic| topic.partitions.first());
        assert_eq!(part.map(|part| part.error_code), Some(ErrorCode::StaleBrokerEpoch));
    });
}

/// KIP-951, by Produce and by Fetch.
#[test]
fn who_asks_the_wrong_broker_is_told_the_leader() {
    let world = World::new(1, |_| ());
    world.sim.run_until(async {
        let ids = world.create(1).await;
        produce_to_all(&world, &ids, -1, b"first").await;
        world.settle(&ids).await;
        let (id, image) = (ids[0], world.decider.image());
        let leader = world.leader(id).expect("there is one");
        let follower = BROKERS.into_iter().find(|&b| b != leader).expect("others");
        let epoch = image.partition(id.topic, id.partition).expect("it is there").leader_epoch.0;
        let host = SimNet::address(world.machine(leader)).to_string();
        let there = (leader.0, host, i32::from(CLIENTS));
        let place = |node: NodeEndpoint<'_>| (node.node_id, node.host.to_string(), node.port);

        let mut link = world.connect(follower, CLIENTS).await;
        let answer = world.offer(&mut link, id, -1, b"second").await;
        let response: ProduceResponse<'_> = answer.decode(13).expect("an answer");
        let part = response.topics.first().and_then(|topic| topic.partitions.first());
        let told = part.map(|part| (part.error_code, part.current_leader));
        let now = || LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: epoch };
        assert_eq!(told, Some((ErrorCode::NotLeaderOrFollower, now())));
        assert!(response.node_endpoints.iter().map(place).eq([there.clone()]));

        let partition = |current_leader_epoch| RequestPartition {
            partition: 0,
            partition_max_bytes: 1 << 20,
            current_leader_epoch,
            ..Default::default()
        };
        // Where all is well nobody is named.
        let cases = [
            (follower, -1, ErrorCode::NotLeaderOrFollower, Some(now())),
            (leader, epoch, ErrorCode::None, None),
        ];
        for (broker, term, error, named) in cases {
            let partitions = [partition(term)];
            let partitions = (&partitions).into();
            let topics = [RequestTopic { topic_id: id.topic, partitions, ..Default::default() }];
            let topics = (&topics).into();
            let request = FetchRequest { session_epoch: -1, topics, ..Default::default() };
            let mut link = world.connect(broker, CLIENTS).await;
            let answer = call(&mut link, &request, 17).await;
            let response: FetchResponse<'_> = answer.decode(17).expect("an answer");
            let part = response.topics.first().and_then(|topic| topic.partitions.first());
            let places = response.node_endpoints.iter().map(place);
            assert!(places.eq(named.is_some().then(|| there.clone())), "{broker} {term}");
            let told = part.map(|part| (part.error_code, part.current_leader));
            assert_eq!(told, Some((error, named.unwrap_or_default())), "{broker} {term}");
        }
    });
}
