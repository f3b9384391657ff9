//! The metadata of a node on the simulated device: power cuts and kills at every step, a full
//! device, a failing one, damaged snapshots. Invariants: AckedIsNeverLost · RequestsAreWhole ·
//! ImageIsPrefixOfMetadataLog · ProducerIdsAreNeverReused · NothingUncommittedIsShown.

#[path = "controller/alone.rs"]
mod alone;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use alone::{by_name, registration, topic};
use coordinator::config::Config;
use coordinator::controller::{CreatedTopic, Heartbeat, Refusal, Reply, Request};
use coordinator::image::Image;
use coordinator::metadata::{Metadata, Opened};
use coordinator::runtime::RequestError;
use engine::cache::BlockBudget;
use engine::env::Env;
use engine::env::sim::{Cut, End, Fault, Node, OpKind, Side, Sim, SimEnv};
use engine::ids::{BrokerEpoch, BrokerId, Offset, TopicId};
use engine::log::{Bounds, Disk, Shared};
use futures_lite::future::zip;

const DIR: &str = "/data/metadata";

fn shared() -> Shared {
    Shared {
        budget: BlockBudget::new(1 << 20, 1 << 20),
        disk: Disk::default(),
        bounds: Bounds::default(),
    }
}

fn config() -> Config {
    // Small, so that snapshots are taken in the middle of everything.
    // Nobody beats here: a broker is alive until it says otherwise.
    Config {
        snapshot_bytes: 1500,
        session_timeout: None,
        leader_rebalance: None,
        ..Config::default()
    }
}

async fn open(env: &SimEnv) -> (Metadata<SimEnv>, Opened) {
    Metadata::open(env, Path::new(DIR), BrokerId(1), config(), &shared()).await.unwrap()
}

/// What the outside world was told, and what it had asked for without hearing back.
#[derive(Default)]
struct Told {
    /// Topics by name, as acknowledged; `None`: deletion acknowledged.
    topics: BTreeMap<String, Option<TopicId>>,
    /// Names of each request whose fate is unknown.
    open_creations: Vec<[String; 2]>,
    open_deletions: BTreeSet<String>,
    epochs: BTreeSet<BrokerEpoch>,
    producer_ids: BTreeSet<i64>,
    acknowledged: u64,
}

impl Told {
    fn created(&mut self, names: &[String; 2], made: Vec<(String, Result<CreatedTopic, Refusal>)>) {
        self.open_creations.retain(|open| open != names);
        self.acknowledged += 1;
        for (name, made) in made {
            self.topics.insert(name, Some(made.unwrap().topic.id));
        }
    }
}

type Shown = Rc<RefCell<Told>>;

async fn register(metadata: &Metadata<SimEnv>, told: &Shown) -> Result<BrokerEpoch, RequestError> {
    let answer = metadata.request(Request::RegisterBroker(registration(1))).await?;
    let Reply::Registered(Ok(registered)) = answer.reply else { panic!("{:?}", answer.reply) };
    assert!(told.borrow_mut().epochs.insert(registered.epoch), "a session twice");
    assert!(metadata.at_least(answer.at).await.unwrap().broker(BrokerId(1)).is_some());
    let reached = metadata.image().offset();
    let (broker, epoch, want_shutdown) = (BrokerId(1), registered.epoch, false);
    let heartbeat = Heartbeat { broker, epoch, reached, want_shutdown };
    let Reply::Heartbeat(pulse) = metadata.request(Request::Heartbeat(heartbeat)).await?.reply
    else {
        panic!()
    };
    assert!(!pulse.unwrap().fenced);
    Ok(registered.epoch)
}

/// Creates two topics in one request.
async fn create(
    metadata: &Metadata<SimEnv>,
    told: &Shown,
    names: [String; 2],
) -> Result<(), RequestError> {
    told.borrow_mut().open_creations.push(names.clone());
    let topics = names.iter().map(|name| topic(name, 3, 1)).collect();
    let answer = metadata.request(Request::CreateTopics { topics, validate_only: false }).await?;
    let Reply::CreatedTopics(made) = answer.reply else { panic!() };
    told.borrow_mut().created(&names, made);
    let image = metadata.at_least(answer.at).await.unwrap();
    assert!(names.iter().all(|name| image.topic(name).is_some()), "told before it is shown");
    Ok(())
}

async fn delete(
    metadata: &Metadata<SimEnv>,
    told: &Shown,
    name: String,
) -> Result<(), RequestError> {
    told.borrow_mut().open_deletions.insert(name.clone());
    let topics = vec![by_name(&name)];
    metadata.request(Request::DeleteTopics { topics }).await?;
    let mut told = told.borrow_mut();
    told.open_deletions.remove(&name);
    told.acknowledged += 1;
    told.topics.insert(name, None);
    Ok(())
}

async fn take_ids(
    metadata: &Metadata<SimEnv>,
    told: &Shown,
    epoch: BrokerEpoch,
) -> Result<(), RequestError> {
    let request = Request::AllocateProducerIds { broker: BrokerId(1), epoch };
    let Reply::AllocatedProducerIds(block) = metadata.request(request).await?.reply else {
        panic!()
    };
    let block = block.unwrap();
    for id in block.first.0..block.first.0 + block.count {
        assert!(told.borrow_mut().producer_ids.insert(id), "producer id {id} twice");
    }
    Ok(())
}

/// Something of everything, some of it at the same time.
async fn work(
    metadata: &Metadata<SimEnv>,
    told: &Shown,
    life: u64,
    rounds: u64,
) -> Result<(), RequestError> {
    let epoch = register(metadata, told).await?;
    for round in 0..rounds {
        let name = |part: &str| format!("{part}-{life}-{round}");
        let (one, two) = zip(
            create(metadata, told, [name("a"), name("b")]),
            create(metadata, told, [name("c"), name("d")]),
        )
        .await;
        one.and(two)?;
        let (one, two) = zip(
            take_ids(metadata, told, epoch),
            zip(delete(metadata, told, name("b")), create(metadata, told, [name("e"), name("f")])),
        )
        .await;
        one.and(two.0).and(two.1)?;
    }
    Ok(())
}

/// What may be after a crash, by what was told before it. Afterwards everything is known.
fn check(image: &Image, told: &Shown) {
    let told = &mut *told.borrow_mut();
    for names in std::mem::take(&mut told.open_creations) {
        let ids = names.clone().map(|name| image.topic(&name).map(|topic| topic.id));
        assert_eq!(ids[0].is_some(), ids[1].is_some(), "{names:?}: half of a request");
        for (name, id) in names.into_iter().zip(ids) {
            told.topics.insert(name, id);
        }
    }
    for name in std::mem::take(&mut told.open_deletions) {
        if image.topic(&name).is_none() {
            told.topics.insert(name, None);
        }
    }
    let shown: BTreeMap<_, _> =
        image.topics().map(|topic| (topic.name.to_string(), Some(topic.id))).collect();
    let expected: BTreeMap<_, _> =
        told.topics.iter().filter(|(_, id)| id.is_some()).map(|(n, id)| (n.clone(), *id)).collect();
    assert_eq!(shown, expected);
    assert!(image.topics().all(|topic| topic.partitions.len() == 3), "half a topic");
    assert!(told.epochs.is_empty() || image.cluster_id().is_some());
}

/// One life of the node: opens, checks, works on; `None` when the node ended before it was done.
fn live(node: &Node, told: &Shown, life: u64, rounds: u64) -> Option<Opened> {
    let env = node.env();
    let told = told.clone();
    let opened = Rc::new(Cell::new(None));
    let result = opened.clone();
    node.run(async move {
        let (metadata, opened) = open(&env).await;
        check(&metadata.image(), &told);
        work(&metadata, &told, life, rounds).await.expect("nothing fails but the power");
        check(&metadata.image(), &told);
        // Let a snapshot that was begun be finished now and then.
        if env.random().is_multiple_of(2) {
            metadata.close().await.unwrap();
        }
        result.set(Some(opened));
    })?;
    opened.get()
}

#[test]
fn what_was_acknowledged_survives_a_cut_at_every_step() {
    let mut acknowledged = 0;
    for seed in 11..14 {
        let sim = Sim::new(seed);
        let node = sim.node();
        live(&node, &Shown::default(), 0, 6).expect("nobody ends it");
        assert!(node.disk().files().iter().any(|name| name.contains("snapshot.")));
        for step in 0..node.disk().steps() {
            for side in [Side::Before, Side::After] {
                for end in [End::PowerCut, End::Kill] {
                    acknowledged += cut_and_look(seed, Cut { step, side, end });
                }
            }
        }
    }
    assert!(acknowledged > 1000, "cuts fall between acknowledgements: {acknowledged}");
}

/// One run with a cut, and two lives after it; returns what was acknowledged before the cut.
fn cut_and_look(seed: u64, cut: Cut) -> u64 {
    let sim = Sim::new(seed);
    let node = sim.node();
    let told = Shown::default();
    node.env();
    node.disk().cut_at(cut);
    let done = live(&node, &told, 0, 6).is_some();
    let acknowledged = if done { 0 } else { told.borrow().acknowledged };
    node.end(End::PowerCut);
    live(&node, &told, 1, 1).expect("nobody ends it");
    node.end(End::PowerCut);
    live(&node, &told, 2, 0).expect("nobody ends it");
    acknowledged
}

#[test]
fn many_lives_each_cut_at_random() {
    for seed in 0..150 {
        let sim = Sim::new(seed);
        let random = sim.workload(0);
        let node = sim.node();
        let told = Shown::default();
        for life in 0..12 {
            node.env();
            let step = node.disk().steps() + random.below(60);
            let side = if random.chance(1, 2) { Side::Before } else { Side::After };
            let end = if random.chance(1, 2) { End::Kill } else { End::PowerCut };
            node.disk().cut_at(Cut { step, side, end });
            live(&node, &told, life, 2);
            node.end(end);
        }
    }
}

#[test]
fn snapshots_keep_the_log_and_the_start_short() {
    let sim = Sim::new(5);
    let node = sim.node();
    let told = Shown::default();
    for life in 0..6 {
        live(&node, &told, life, 12).unwrap();
        node.end(End::Kill);
    }
    let opened = live(&node, &told, 6, 0).unwrap();
    assert!(opened.snapshot > Offset::ZERO && !opened.created);
    assert!(opened.replayed_bytes < 12_000, "{opened:?}");
    let files = node.disk().files();
    let snapshots = files.iter().filter(|name| name.contains("snapshot.")).count();
    assert!(snapshots <= 2, "{files:?}");
}

#[test]
fn a_damaged_snapshot_is_passed_over() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let told = Shown::default();
        live(&node, &told, 0, 12).unwrap();
        let env = node.env();
        // Whatever the newest snapshot made unnecessary is gone by now.
        node.run(env.sleep_until(env.now().after(std::time::Duration::from_secs(1))));
        node.end(End::Kill);
        let newest = node.disk().files().into_iter().rfind(|n| n.contains("snapshot.0")).unwrap();
        node.env();
        assert!(node.disk().rot(&PathBuf::from(&newest), 8 * 100));
        let opened = live(&node, &told, 1, 0).expect("the older one and the log are enough");
        assert!(!newest.contains(&format!("{:020}", opened.snapshot.value())));
    }
}

#[test]
fn a_full_device_refuses_and_nothing_refused_is_remembered() {
    let mut refusals = 0;
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        let told = Shown::default();
        let (inner, disk) = (told.clone(), node.disk());
        refusals += node
            .run(async move {
                let (metadata, _) = open(&env).await;
                register(&metadata, &inner).await.unwrap();
                create(&metadata, &inner, ["a".into(), "b".into()]).await.unwrap();
                disk.set_capacity(Some(disk.used()));
                let mut refusals = 0;
                // What is preallocated still takes some.
                for round in 0..5000 {
                    let names = [format!("x{round}"), format!("y{round}")];
                    match create(&metadata, &inner, names).await {
                        Ok(()) => continue,
                        Err(RequestError::Lost | RequestError::Refused(_)) => refusals += 1,
                        Err(other) => panic!("{other}"),
                    }
                    inner.borrow_mut().open_creations.clear();
                    if refusals == 3 {
                        break;
                    }
                }
                disk.set_capacity(None);
                env.sleep_until(env.now().after(std::time::Duration::from_secs(2))).await;
                // Refused requests may be asked again, under the same names.
                create(&metadata, &inner, ["v".into(), "w".into()]).await.unwrap();
                check(&metadata.image(), &inner);
                metadata.close().await.unwrap();
                refusals
            })
            .unwrap();
        node.end(End::PowerCut);
        live(&node, &told, 1, 0).unwrap();
    }
    assert!(refusals > 0, "the device was never full");
}

#[test]
fn a_failing_device_ends_it_and_nothing_false_is_told() {
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        let told = Shown::default();
        let (inner, disk) = (told.clone(), node.disk());
        node.run(async move {
            let (metadata, _) = open(&env).await;
            register(&metadata, &inner).await.unwrap();
            create(&metadata, &inner, ["a".into(), "b".into()]).await.unwrap();
            disk.fail(Fault::eio(OpKind::Write).under("/data/metadata/log"));
            let before = metadata.image().offset();
            let failed = create(&metadata, &inner, ["c".into(), "d".into()]).await;
            assert!(
                matches!(failed, Err(RequestError::Ended(_) | RequestError::Lost)),
                "{failed:?}"
            );
            assert_eq!(metadata.image().offset(), before, "shown, but not committed");
            let again = create(&metadata, &inner, ["e".into(), "f".into()]).await;
            assert!(again.is_err());
        })
        .unwrap();
        node.disk().heal();
        node.end(End::PowerCut);
        live(&node, &told, 1, 1).unwrap();
    }
}
