//! Groups on a partition's log: one runtime for one term, from its loading to its end.

#[path = "groups/alone.rs"]
mod alone;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use alone::consumer;
use coordinator::config::BATCH_BYTES_MAX;
use coordinator::group::request::*;
use coordinator::group::{GroupConfig, Groups};
use coordinator::journal::{Journal, ProposeError};
use coordinator::runtime::{RequestError, Runtime};
use engine::batch::{BatchBuilder, Marker, NewRecord, Producer, check_trusted};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::sim::{End, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{
    BrokerId, LeaderEpoch, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition,
};
use engine::log::{Bounds, Disk, Log, Shared};
use engine::time::Timestamp;
use futures_lite::future::{poll_once, zip};
use replication::Acks;
use replication::config::ReplicationConfig;
use replication::partition::{Notices, Partition};
use replication::role::{Assignment, Change, PartitionEpoch};

const ME: BrokerId = BrokerId(1);
const OTHER: BrokerId = BrokerId(2);

fn config(min_insync_replicas: u32) -> Rc<LogConfig> {
    Rc::new(LogConfig {
        message_bytes_max: BATCH_BYTES_MAX,
        retention_ms: None,
        min_insync_replicas,
        ..LogConfig::default()
    })
}

async fn partition(env: &SimEnv) -> Partition<SimEnv> {
    let shared = Shared {
        budget: BlockBudget::new(4 << 20, 4 << 20),
        disk: Disk::default(),
        bounds: Bounds::default(),
    };
    let identity =
        TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex(0) };
    let opened = Log::open(env, Path::new("/offsets"), identity, config(1), &shared).await;
    let log = opened.unwrap().0;
    Partition::open(env, log, ME, ReplicationConfig::default(), &Notices::default())
}

/// An assignment of a term: the leader and the replicas, all of them in sync.
fn term(leader: BrokerId, epoch: i32, version: i32, replicas: &[BrokerId]) -> Assignment {
    Assignment {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(version),
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
    }
}

fn lead(env: &SimEnv, partition: &Partition<SimEnv>) -> Runtime<SimEnv, Groups> {
    Runtime::lead(env, Journal::new(partition.clone()), GroupConfig::default())
}

fn commit_to(group: &str, offset: i64) -> Request {
    Request::CommitOffsets(CommitOffsets {
        group: group.into(),
        generation: -1,
        topics: vec![("t".into(), vec![OffsetOf { offset, ..OffsetOf::default() }])],
        ..CommitOffsets::default()
    })
}

fn commit(offset: i64) -> Request {
    commit_to("g", offset)
}

async fn fetch(runtime: &Runtime<SimEnv, Groups>) -> Result<Option<i64>, RequestError> {
    let topics = Some(vec![("t".into(), vec![0])]);
    let fetch = FetchOffsets { group: "g".into(), topics, ..FetchOffsets::default() };
    match runtime.request(Request::FetchOffsets(vec![fetch])).await?.reply {
        Reply::Offsets(fetched) => {
            let offset = &fetched[0].topics.as_ref().unwrap()[0].1[0];
            Ok(offset.committed.as_ref().map(|committed| committed.offset))
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a case on some seeds.
fn on_sim<Fut: Future<Output = ()>>(case: impl Fn(SimEnv) -> Fut) {
    for seed in 0..10 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.run(case(env)).expect("nobody ends the node");
    }
}

async fn pause(env: &SimEnv, millis: u64) {
    env.sleep_until(env.now().after(Duration::from_millis(millis))).await;
}

#[test]
fn a_term_begins_with_loading_and_ends_for_all_who_wait() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        assert_eq!(partition.assign(term(ME, 1, 1, &[ME])).await, Change::Leads);
        let first = lead(&env, &partition);
        // What is spawned may have its first turn at once.
        let asked = first.request(commit(1)).await;
        assert!(asked.is_ok() || asked == Err(RequestError::Loading), "{asked:?}");
        first.loaded().await;
        first.request(commit(5)).await.unwrap();
        assert_eq!(fetch(&first).await, Ok(Some(5)));
        // A new version of the same term is no new term.
        assert_eq!(partition.assign(term(ME, 1, 2, &[ME])).await, Change::Version);
        assert_eq!(fetch(&first).await, Ok(Some(5)));

        let join = first.request(Request::Join(Join { takes_member_id: false, ..consumer() }));
        let end = async {
            pause(&env, 100).await;
            _ = partition.assign(term(OTHER, 2, 3, &[OTHER, ME])).await;
        };
        let (told, ()) = zip(join, end).await;
        assert_eq!(told, Err(RequestError::NotCoordinator), "it was parked");
        assert_eq!(fetch(&first).await, Err(RequestError::NotCoordinator));

        // The same broker again, in another term: another runtime.
        let change = partition.assign(term(ME, 3, 4, &[ME])).await;
        assert_eq!(change, Change::Leads);
        let second = lead(&env, &partition);
        second.loaded().await;
        assert_eq!(fetch(&second).await, Ok(Some(5)));
        let late = first.request(commit(4)).await;
        assert_eq!(late, Err(RequestError::NotCoordinator), "the old one never writes again");
        second.request(commit(6)).await.unwrap();
        assert_eq!(fetch(&second).await, Ok(Some(6)));
    });
}

#[test]
fn terms_that_end_at_once_leave_nothing_behind() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        for epoch in 0..20 {
            _ = partition.assign(term(ME, 2 * epoch, 2 * epoch, &[ME])).await;
            let runtime = lead(&env, &partition);
            _ = partition.assign(term(OTHER, 2 * epoch + 1, 2 * epoch + 1, &[OTHER, ME])).await;
            runtime.loaded().await;
            assert_eq!(fetch(&runtime).await, Err(RequestError::NotCoordinator));
        }
        _ = partition.assign(term(ME, 40, 40, &[ME])).await;
        let runtime = lead(&env, &partition);
        runtime.loaded().await;
        runtime.request(commit(1)).await.unwrap();
    });
}

#[test]
fn stopping_ends_it_in_the_middle_of_a_term() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        _ = partition.assign(term(ME, 1, 1, &[ME])).await;
        let runtime = lead(&env, &partition);
        runtime.stop();
        pause(&env, 100).await;
        let ended = fetch(&runtime).await;
        assert!(matches!(ended, Err(RequestError::Ended(_))), "{ended:?}");
        let another = lead(&env, &partition);
        another.loaded().await;
        another.request(commit(1)).await.unwrap();
    });
}

#[test]
fn a_sign_of_life_does_not_wait_for_others_commits() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        _ = partition.assign(term(ME, 1, 1, &[ME])).await;
        let runtime = lead(&env, &partition);
        runtime.loaded().await;
        let join = Join { takes_member_id: false, ..consumer() };
        let joined = runtime.request(Request::Join(join)).await.unwrap().reply;
        let Reply::Joined(joined) = joined else { panic!("{joined:?}") };
        assert_eq!(joined.generation.unwrap().id, 1);
        let mut other = Box::pin(runtime.request(commit_to("h", 1)));
        assert!(poll_once(&mut other).await.is_none(), "it is not on the device yet");
        let beat = Heartbeat {
            group: "g".into(),
            member: joined.member,
            generation: 1,
            ..Heartbeat::default()
        };
        let mut good = Box::pin(runtime.request(Request::Heartbeat(beat.clone())));
        let answer = poll_once(&mut good).await.expect("at once").unwrap();
        assert_eq!(answer.reply, Reply::Heartbeat(Ok(())));
        assert!(answer.at <= partition.high_watermark());
        let bad = Heartbeat { generation: 2, ..beat };
        let mut bad = Box::pin(runtime.request(Request::Heartbeat(bad)));
        assert!(poll_once(&mut bad).await.is_none(), "bad news waits until it is sure");
        other.await.unwrap();
        let bad = bad.await.unwrap().reply;
        assert_eq!(bad, Reply::Heartbeat(Err(GroupFault::IllegalGeneration)));
    });
}

#[test]
fn while_too_few_replicas_are_in_sync_members_live_on_and_nothing_is_written() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        _ = partition.assign(term(ME, 1, 1, &[ME])).await;
        let runtime = lead(&env, &partition);
        runtime.loaded().await;
        runtime.request(commit(5)).await.unwrap();
        let join = Join { takes_member_id: false, ..consumer() };
        let joined = runtime.request(Request::Join(join)).await.unwrap().reply;
        let Reply::Joined(joined) = joined else { panic!("{joined:?}") };
        partition.configure(config(2));
        let alone = Assignment { isr: vec![ME], ..term(ME, 1, 2, &[ME, OTHER]) };
        _ = partition.assign(alone).await;
        let refused = RequestError::Refused(ProposeError::NotEnoughReplicas);
        let end = partition.log().end();
        for _ in 0..10 {
            pause(&env, 4_000).await;
            assert_eq!(runtime.request(commit(6)).await, Err(refused.clone()));
            let (group, member) = ("g".into(), joined.member.clone());
            let beat = Heartbeat { group, member, generation: 1, ..Heartbeat::default() };
            let answer = runtime.request(Request::Heartbeat(beat)).await.unwrap();
            assert_eq!(answer.reply, Reply::Heartbeat(Ok(())), "soft state was not lost");
            assert_eq!(fetch(&runtime).await, Ok(Some(5)));
        }
        assert_eq!(partition.log().end(), end);
        partition.configure(config(1));
        runtime.request(commit_to("h", 6)).await.unwrap();
    });
}

fn append(partition: &Partition<SimEnv>, batch: Vec<u8>) {
    let ticket = partition.append(&check_trusted(&batch).unwrap(), Acks::All);
    let _ = ticket.unwrap();
}

#[test]
fn what_is_not_ours_in_the_log_is_passed_over() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        _ = partition.assign(term(ME, 1, 1, &[ME])).await;
        let runtime = lead(&env, &partition);
        runtime.loaded().await;
        runtime.request(commit(5)).await.unwrap();
        runtime.stop();
        let mut newer = BatchBuilder::new(1 << 20);
        let record = NewRecord {
            timestamp: Timestamp(1),
            key: Some(&[0, 99, 1]),
            value: Some(b"what a later version wrote"),
            headers: &[],
        };
        newer.push(&record).unwrap();
        append(&partition, newer.build().unwrap());
        append(&partition, marker());
        let again = lead(&env, &partition);
        again.loaded().await;
        assert_eq!(fetch(&again).await, Ok(Some(5)));
        again.request(commit(7)).await.unwrap();
        assert_eq!(fetch(&again).await, Ok(Some(7)));
    });
}

#[test]
fn a_log_that_cannot_be_read_is_no_coordinator() {
    on_sim(|env| async move {
        let partition = partition(&env).await;
        _ = partition.assign(term(ME, 1, 1, &[ME])).await;
        let mut broken = BatchBuilder::new(1 << 20);
        let key = Some([0u8, 2, 0, 1].as_slice());
        let record = NewRecord { timestamp: Timestamp(1), key, value: None, headers: &[] };
        broken.push(&record).unwrap();
        append(&partition, broken.build().unwrap());
        let runtime = lead(&env, &partition);
        runtime.loaded().await;
        let ended = fetch(&runtime).await;
        assert!(matches!(ended, Err(RequestError::Ended(_))), "{ended:?}");
    });
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..30 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let told = Rc::new(Cell::new(-1));
        for round in 0..3 {
            let (env, known) = (node.env(), told.clone());
            env.clone().spawn(Queue::Request, async move {
                let partition = partition(&env).await;
                _ = partition.assign(term(ME, round, round, &[ME])).await;
                let runtime = lead(&env, &partition);
                runtime.loaded().await;
                let found = fetch(&runtime).await.unwrap().unwrap_or(-1);
                assert!(found >= known.get(), "seed {seed}: {found}, told {}", known.get());
                for offset in found + 1.. {
                    runtime.request(commit(offset)).await.unwrap();
                    known.set(offset);
                }
            });
            sim.run_for(Duration::from_millis(40 + 7 * seed));
            node.end(End::PowerCut);
        }
        assert!(told.get() > 10, "seed {seed}: only {} commits", told.get());
    }
}

#[test]
fn loading_gives_others_their_turn() {
    let sim = Sim::new(1);
    let node = sim.node();
    let env = node.env();
    node.run(async {
        let partition = partition(&env).await;
        _ = partition.assign(term(ME, 1, 1, &[ME])).await;
        let runtime = lead(&env, &partition);
        runtime.loaded().await;
        let metadata = "x".repeat(4_000);
        for offset in 0..2_000 {
            let one = OffsetOf { offset, metadata: Some(metadata.clone()), ..OffsetOf::default() };
            let topics = vec![("t".into(), vec![one])];
            let (group, generation) = ("g".into(), -1);
            let commit = CommitOffsets { group, generation, topics, ..CommitOffsets::default() };
            runtime.request(Request::CommitOffsets(commit)).await.unwrap();
        }
        runtime.stop();
        let again = lead(&env, &partition);
        let turns = Rc::new(Cell::new(0));
        let (counted, ticker) = (turns.clone(), env.clone());
        env.spawn(Queue::Request, async move {
            loop {
                counted.set(counted.get() + 1);
                ticker.turn().await;
            }
        });
        again.loaded().await;
        assert!(turns.get() >= 8, "{} turns during 8 MB", turns.get());
        assert_eq!(fetch(&again).await, Ok(Some(1_999)));
    });
}

/// A transaction's end, as Kafka writes it also into this topic.
fn marker() -> Vec<u8> {
    let producer = Producer { id: ProducerId(1), epoch: ProducerEpoch(0), base_sequence: None };
    BatchBuilder::marker(Marker::Commit, producer, 0, Timestamp(1)).build().unwrap()
}
