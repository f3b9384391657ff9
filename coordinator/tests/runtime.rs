//! The driver with a machine made for it: parked requests, deadlines, limits, order of replies.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coordinator::config::{ANSWERS_AT_ONCE_MAX, BATCH_BYTES_MAX, REQUESTS_WAITING_MAX};
use coordinator::journal::{Journal, ProposeError};
use coordinator::machine::{Machine, Outcome, Seen, Stored, Token};
use coordinator::runtime::{RequestError, Runtime, Seeing};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::sim::{Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Bounds, Disk, Log, Shared};
use engine::time::Instant;
use futures_lite::future::{or, poll_once, zip};
use replication::partition::Partition;

/// A sum, and those who wait for it to change.
enum Sum {}

#[derive(Debug)]
enum Ask {
    Add(u64),
    Read,
    /// Answered by the next addition, or after a second.
    Park,
    /// Remembers this many bytes that mean nothing.
    Ballast(usize),
}

#[derive(Debug, PartialEq, Eq, Clone)]
enum Said {
    Now(u64),
    TimedOut(u64),
}

enum Note {
    Added(u64),
    Expired,
    Ballast(usize),
}

impl Stored for Note {
    type Error = Infallible;

    fn store(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match self {
            Note::Added(n) => (Some(b"added".into()), Some(n.to_be_bytes().into())),
            Note::Expired => (Some(b"expired".into()), None),
            Note::Ballast(bytes) => (None, Some(vec![7; *bytes])),
        }
    }

    fn load(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Note, Infallible> {
        Ok(match (key, value) {
            (Some(b"added"), Some(n)) => Note::Added(u64::from_be_bytes(n.try_into().unwrap())),
            (Some(b"expired"), None) => Note::Expired,
            (None, Some(ballast)) => Note::Ballast(ballast.len()),
            other => panic!("{other:?}"),
        })
    }
}

#[derive(Default, Clone, Debug, PartialEq, Eq)]
struct Memory {
    sum: u64,
    expired: u64,
}

impl Machine for Sum {
    type Config = Duration;
    type Hard = Memory;
    type Soft = BTreeMap<Token, Instant>;
    type Request = Ask;
    type Reply = Said;
    type Record = Note;

    fn decide(
        seen: Seen<'_, Sum>,
        parked: &mut BTreeMap<Token, Instant>,
        from: Token,
        request: Ask,
        out: &mut Outcome<Sum>,
    ) {
        match request {
            Ask::Add(n) => {
                out.record(Note::Added(n));
                out.reply(from, Said::Now(seen.hard.sum + n));
                for token in std::mem::take(parked).into_keys() {
                    out.reply(token, Said::Now(seen.hard.sum + n));
                }
            }
            Ask::Read => out.reply(from, Said::Now(seen.hard.sum)),
            Ask::Park => _ = parked.insert(from, seen.at.now.after(*seen.config)),
            Ask::Ballast(bytes) => {
                out.record(Note::Ballast(bytes));
                out.reply(from, Said::Now(seen.hard.sum));
            }
        }
    }

    fn expire(seen: Seen<'_, Sum>, parked: &mut BTreeMap<Token, Instant>, out: &mut Outcome<Sum>) {
        let due: Vec<Token> =
            parked.iter().filter(|(_, at)| **at <= seen.at.now).map(|(token, _)| *token).collect();
        for token in due {
            parked.remove(&token);
            out.record(Note::Expired);
            out.reply(token, Said::TimedOut(seen.hard.sum));
        }
    }

    fn deadline(parked: &BTreeMap<Token, Instant>) -> Option<Instant> {
        parked.values().min().copied()
    }

    fn apply(hard: &mut Memory, _at: Offset, record: &Note) {
        match record {
            Note::Added(n) => hard.sum += n,
            Note::Expired => hard.expired += 1,
            Note::Ballast(_) => (),
        }
    }
}

type Observed = Rc<RefCell<Vec<(u64, Offset)>>>;

async fn open(env: &SimEnv) -> (Runtime<SimEnv, Sum>, Observed) {
    let shared = Shared {
        budget: BlockBudget::new(1 << 20, 1 << 20),
        disk: Disk::default(),
        bounds: Bounds::default(),
    };
    let config = LogConfig {
        message_bytes_max: BATCH_BYTES_MAX,
        retention_ms: None,
        ..LogConfig::default()
    };
    let identity =
        TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex(0) };
    let (log, _) =
        Log::open(env, Path::new("/sum"), identity, Rc::new(config), &shared).await.unwrap();
    let me = BrokerId(1);
    let journal = Journal::new(Partition::lead(env, log, me, LeaderEpoch(0), &[me]));
    let observed = Observed::default();
    let seen = observed.clone();
    let base = (Memory::default(), Offset::ZERO);
    let (runtime, _) = Runtime::open(
        env,
        journal,
        Duration::from_secs(1),
        base,
        move |seeing: Seeing<'_, Sum>| {
            seen.borrow_mut().push((seeing.hard.sum, seeing.end));
        },
    )
    .await
    .unwrap();
    (runtime, observed)
}

/// Runs a case on some seeds.
fn on_sim<Fut: Future<Output = ()>>(case: impl Fn(SimEnv) -> Fut) {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.run(case(env)).expect("nobody ends the node");
    }
}

#[test]
fn replies_come_when_what_they_are_true_of_is_committed() {
    on_sim(|env| async move {
        let (runtime, observed) = open(&env).await;
        let mut add = Box::pin(runtime.request(Ask::Add(5)));
        assert!(poll_once(&mut add).await.is_none(), "it is not on the device yet");
        assert_eq!(observed.borrow().last(), Some(&(5, Offset::new(1))), "but decided upon");
        let mut read = Box::pin(runtime.request(Ask::Read));
        assert!(poll_once(&mut read).await.is_none(), "a read has seen the addition");
        let answer = read.await.unwrap();
        assert_eq!((answer.reply, answer.at), (Said::Now(5), Offset::new(1)));
        assert_eq!(add.await.unwrap().at, Offset::new(1));
        let mut read = Box::pin(runtime.request(Ask::Read));
        assert!(poll_once(&mut read).await.is_some(), "nothing to wait for");
    });
}

#[test]
fn a_parked_request_is_answered_by_another_or_by_its_deadline() {
    on_sim(|env| async move {
        let (runtime, _) = open(&env).await;
        let start = env.now();
        let later = async {
            env.sleep_until(start.after(Duration::from_millis(300))).await;
            runtime.request(Ask::Add(2)).await
        };
        let (parked, added) = zip(runtime.request(Ask::Park), later).await;
        assert_eq!(parked.unwrap().reply, Said::Now(2));
        assert_eq!(added.unwrap().reply, Said::Now(2));
        let start = env.now();
        let parked = runtime.request(Ask::Park).await.unwrap();
        assert_eq!(parked.reply, Said::TimedOut(2));
        let waited = env.now().since(start);
        assert!((1000..1100).contains(&waited.as_millis()), "{waited:?}");
    });
}

#[test]
fn a_request_that_nobody_waits_for_any_more_leaves_nothing_behind() {
    let sim = Sim::new(1);
    let node = sim.node();
    let env = node.env();
    node.run(async {
        let (runtime, _) = open(&env).await;
        for _ in 0..REQUESTS_WAITING_MAX + 5 {
            let mut parked = Box::pin(runtime.request(Ask::Park));
            assert!(poll_once(&mut parked).await.is_none());
        }
        assert_eq!(runtime.request(Ask::Add(1)).await.unwrap().reply, Said::Now(1));
    });
}

#[test]
fn more_than_the_most_waiting_requests_are_turned_away() {
    let sim = Sim::new(1);
    let node = sim.node();
    let env = node.env();
    node.run(async {
        let (runtime, _) = open(&env).await;
        let mut parked: Vec<_> =
            (0..REQUESTS_WAITING_MAX).map(|_| Box::pin(runtime.request(Ask::Park))).collect();
        for one in &mut parked {
            assert!(poll_once(one).await.is_none());
        }
        assert_eq!(runtime.request(Ask::Read).await, Err(RequestError::Busy));
        parked.pop();
        assert!(runtime.request(Ask::Read).await.is_ok());
    });
}

#[test]
fn who_asks_meanwhile_does_not_wait_for_all_who_are_answered_at_once() {
    on_sim(|env| async move {
        let (runtime, _) = open(&env).await;
        let heard = Rc::new(Cell::new(0));
        let heard_before = Rc::new(Cell::new(None));
        for _ in 0..100 * ANSWERS_AT_ONCE_MAX {
            let (env2, runtime, heard) = (env.clone(), runtime.clone(), heard.clone());
            let heard_before = heard_before.clone();
            env.spawn(Queue::Request, async move {
                assert_eq!(runtime.request(Ask::Park).await.unwrap().reply, Said::Now(1));
                heard.set(heard.get() + 1);
                if heard.get() == 1 {
                    // The first who hears calls for somebody who comes in between.
                    env2.spawn(Queue::Request, async move {
                        runtime.request(Ask::Read).await.unwrap();
                        heard_before.set(Some(heard.get()));
                    });
                }
            });
        }
        // They have asked by then, and are far from their deadline.
        env.sleep_until(env.now().after(Duration::from_millis(100))).await;
        runtime.request(Ask::Add(1)).await.unwrap();
        env.sleep_until(env.now().after(Duration::from_millis(100))).await;
        assert_eq!(heard.get(), 100 * ANSWERS_AT_ONCE_MAX, "all are answered");
        let before = heard_before.get().expect("so is who came in between");
        assert!(before <= 10 * ANSWERS_AT_ONCE_MAX, "after {before}");
    });
}

#[test]
fn records_that_are_too_large_are_refused_and_the_machine_goes_on() {
    on_sim(|env| async move {
        let (runtime, _) = open(&env).await;
        runtime.request(Ask::Add(1)).await.unwrap();
        let parked = runtime.request(Ask::Park);
        let too_large = async {
            let asked = runtime.request(Ask::Ballast(BATCH_BYTES_MAX as usize)).await;
            let max = BATCH_BYTES_MAX;
            assert_eq!(asked, Err(RequestError::Refused(ProposeError::TooLarge { max })));
        };
        let (parked, ()) = zip(parked, too_large).await;
        assert_eq!(parked, Err(RequestError::Lost), "soft state went with the decision");
        runtime.request(Ask::Ballast(BATCH_BYTES_MAX as usize - 200)).await.unwrap();
        assert_eq!(runtime.request(Ask::Add(1)).await.unwrap().reply, Said::Now(2));
    });
}

#[test]
fn stopping_tells_those_who_wait() {
    on_sim(|env| async move {
        let (runtime, _) = open(&env).await;
        let stop = async {
            env.sleep_until(env.now().after(Duration::from_millis(10))).await;
            runtime.stop();
        };
        let (parked, ()) = zip(runtime.request(Ask::Park), stop).await;
        assert!(matches!(parked, Err(RequestError::Ended(_))), "{parked:?}");
        let after = runtime.request(Ask::Read).await;
        assert!(matches!(after, Err(RequestError::Ended(_))), "{after:?}");
    });
}

#[test]
fn what_was_remembered_is_there_after_a_replay() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.run(async {
            let (runtime, _) = open(&env).await;
            for n in 0..50 {
                runtime.request(Ask::Add(n)).await.unwrap();
            }
            runtime.request(Ask::Park).await.unwrap();
        });
        node.end(engine::env::sim::End::PowerCut);
        let env = node.env();
        node.run(async {
            let (runtime, observed) = open(&env).await;
            assert_eq!(*observed.borrow(), [(1225, Offset::new(51))], "shown once, as a whole");
            assert_eq!(runtime.request(Ask::Read).await.unwrap().reply, Said::Now(1225));
        });
    }
}

#[test]
fn many_at_once_share_the_device_and_keep_their_order() {
    on_sim(|env| async move {
        let (runtime, observed) = open(&env).await;
        let done = Rc::new(RefCell::new(Vec::new()));
        for n in 0..200u64 {
            let (runtime, done) = (runtime.clone(), done.clone());
            env.spawn(Queue::Request, async move {
                let answer = runtime.request(Ask::Add(1)).await.unwrap();
                done.borrow_mut().push((n, answer));
            });
        }
        let all = async {
            while done.borrow().len() < 200 {
                env.sleep_until(env.now().after(Duration::from_millis(1))).await;
            }
        };
        let late = async {
            env.sleep_until(env.now().after(Duration::from_secs(5))).await;
            panic!("{} of 200 were answered", done.borrow().len());
        };
        or(all, late).await;
        for (_, answer) in done.borrow().iter() {
            assert_eq!(answer.reply, Said::Now(answer.at.value()), "each is true of its offset");
        }
        assert!(observed.borrow().windows(2).all(|pair| pair[0].1 < pair[1].1));
    });
}
