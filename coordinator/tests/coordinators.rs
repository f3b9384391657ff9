//! Three coordinators with the real controller on the simulator, and a broker that only watches:
//! who answers, who says who does, and that everybody sees the same cluster.

#[path = "controller/alone.rs"]
mod alone;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use alone::{registration, topic};
use coordinator::config::Config;
use coordinator::controller::{Heartbeat, Reply, Request};
use coordinator::metadata::Metadata;
use coordinator::observer::{ObserveError, Observer};
use coordinator::quorum::Options;
use coordinator::quorum::since::{News, Since};
use coordinator::runtime::RequestError;
use engine::env::sim::{End, Node, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{BrokerId, Offset};

type Running = Rc<RefCell<Option<Metadata<SimEnv>>>>;

struct Three {
    sim: Sim,
    nodes: Vec<Node>,
    running: Vec<Running>,
}

impl Three {
    fn start(seed: u64) -> Three {
        let sim = Sim::new(seed);
        let nodes: Vec<Node> = (0..3).map(|_| sim.node()).collect();
        let running = (0..3).map(|_| Running::default()).collect();
        let three = Three { sim, nodes, running };
        (0..3).for_each(|at| three.begin(at));
        three
    }

    fn begin(&self, at: usize) {
        let env = self.nodes[at].env();
        let (mine, all) = (self.running[at].clone(), self.running.clone());
        *mine.borrow_mut() = None;
        env.clone().spawn(Queue::Request, async move {
            let options = Options {
                me: BrokerId(at as i32),
                cluster: Some("three".into()),
                voters: (0..3).map(|id| (BrokerId(id), format!("host-{id}"))).collect(),
                snapshot_bytes: 2_000,
                ..Options::alone(BrokerId(at as i32))
            };
            let dir = Path::new("/data/metadata");
            // The broker of this test says only once that it is there.
            let config = Config { session_timeout: None, ..Config::default() };
            let opened = Metadata::join(&env, dir, options, config).await;
            let (metadata, _) = opened.unwrap();
            *mine.borrow_mut() = Some(metadata.clone());
            while let Some(message) = metadata.outbox().next().await {
                let there = all[message.to.0 as usize].borrow().clone();
                env.spawn(Queue::Request, async move {
                    // Gone without an answer if nobody is there.
                    let Some(there) = there else { return };
                    let answer = there.receive(&message.message).await;
                    message.reply.send(answer);
                });
            }
        });
    }

    fn end(&self, at: usize) {
        *self.running[at].borrow_mut() = None;
        self.nodes[at].end(End::PowerCut);
    }

    fn metadata(&self, at: usize) -> Metadata<SimEnv> {
        self.running[at].borrow().clone().expect("it runs")
    }

    /// Asks `at` until it answers anything but that it is too early to say.
    fn ask(&self, at: usize, request: impl Fn() -> Request) -> Result<Reply, RequestError> {
        for _ in 0..1000 {
            let running = self.running[at].borrow().clone();
            if let Some(metadata) = running {
                let request = request();
                let asked = async move { metadata.request(request).await };
                match self.nodes[at].run(asked).expect("nobody ends it") {
                    Err(RequestError::NotController { leader: None }) => {}
                    other => return other.map(|answer| answer.reply),
                }
            }
            self.sim.run_for(Duration::from_millis(10));
        }
        panic!("nobody leads");
    }

    /// Asks whoever is active, following the hints.
    fn ask_controller(&self, from: usize, request: impl Fn() -> Request) -> (usize, Reply) {
        let mut at = from;
        for _ in 0..100 {
            match self.ask(at, &request) {
                Ok(reply) => return (at, reply),
                Err(RequestError::NotController { leader: Some(leader) })
                    if self.nodes[leader.0 as usize].is_up() =>
                {
                    at = leader.0 as usize;
                }
                Err(RequestError::NotController { .. }) => {
                    self.sim.run_for(Duration::from_millis(50));
                }
                Err(other) => panic!("{other}"),
            }
        }
        panic!("nobody decides");
    }

    /// Lets an observer ask `at` until it has reached `offset`; whether a snapshot came.
    fn observe(&self, observer: &mut Observer, at: usize, offset: Offset) -> bool {
        let mut snapshot = false;
        for _ in 0..10_000 {
            if observer.offset() >= offset {
                return snapshot;
            }
            let (metadata, from) = (self.metadata(at), observer.offset());
            let since = async move { metadata.committed_since(from, 500).await.unwrap() };
            let since = self.nodes[at].run(since).unwrap();
            let since = Since::decode(&since.encode()).unwrap();
            snapshot |= matches!(since.news, News::Snapshot(_));
            if let Some(image) = observer.on_since(&since).unwrap() {
                assert_eq!(image.offset(), observer.offset());
            }
            self.sim.run_for(Duration::from_millis(1));
        }
        panic!("{at} never shows what is below {offset}");
    }
}

fn create(name: &str) -> Request {
    Request::CreateTopics { topics: vec![topic(name, 3, 1)], validate_only: false }
}

#[test]
fn one_decides_and_all_see_it() {
    for seed in 0..10 {
        let three = Three::start(seed);
        let register = || Request::RegisterBroker(registration(1));
        let (leader, registered) = three.ask_controller(0, register);
        let Reply::Registered(Ok(registered)) = registered else { panic!("{registered:?}") };
        let reached = three.metadata(leader).image().offset();
        let heartbeat = Heartbeat {
            broker: BrokerId(1),
            epoch: registered.epoch,
            reached,
            want_shutdown: false,
        };
        three.ask_controller(leader, || Request::Heartbeat(heartbeat));
        for at in (0..3).filter(|at| *at != leader) {
            let elsewhere = three.ask(at, || create("never"));
            let hint = Some(BrokerId(leader as i32));
            assert_eq!(elsewhere, Err(RequestError::NotController { leader: hint }));
        }
        for round in 0..60 {
            three.ask_controller(leader, || create(&format!("a-{round}")));
        }
        // The active one dies; another takes over with everything, and the observer goes on.
        let mut observer = Observer::default();
        three.observe(&mut observer, leader, three.metadata(leader).image().offset());
        three.end(leader);
        let next = (leader + 1) % 3;
        let (next, _) = three.ask_controller(next, || create("b"));
        let image = three.metadata(next).image();
        assert!((0..60).all(|round| image.topic(&format!("a-{round}")).is_some()));
        assert!(image.topic("b").is_some() && image.topic("never").is_none());
        assert_eq!(image.controller(), Some(BrokerId(next as i32)));
        three.observe(&mut observer, next, image.offset());
        // The dead one comes back and sees the same.
        three.begin(leader);
        three.sim.run_for(Duration::from_secs(2));
        let end = three.metadata(next).image().offset();
        let shown = three.metadata(leader).image();
        assert_eq!(shown.offset(), end);
        assert_eq!(shown.cluster(), three.metadata(next).image().cluster());
        // Who comes late is given a snapshot.
        let mut late = Observer::default();
        assert!(three.observe(&mut late, next, end), "the log is kept short");
        three.observe(&mut observer, leader, end);
        for at in 0..3 {
            let (metadata, from) = (three.metadata(at), Offset::ZERO);
            let since = async move { metadata.committed_since(from, 1 << 20).await.unwrap() };
            let since = three.nodes[at].run(since).unwrap();
            let mut fresh = Observer::default();
            let image = fresh.on_since(&since).unwrap();
            assert!(image.is_some());
        }
    }
}

#[test]
fn an_answer_to_another_question_is_not_taken_in() {
    let mut observer = Observer::default();
    let since = |end: u64, count: usize| Since {
        leader: None,
        end: Offset::new(end),
        news: News::Entries(vec![Vec::new(); count]),
    };
    assert!(observer.on_since(&since(3, 3)).unwrap().is_some());
    assert!(observer.on_since(&since(3, 0)).unwrap().is_none(), "nothing new");
    let other = observer.on_since(&since(3, 3));
    assert!(matches!(other, Err(ObserveError::Other { .. })), "{other:?}");
    let broken = Since { news: News::Entries(vec![vec![vec![255, 0, 1]]]), ..since(4, 1) };
    assert!(matches!(observer.on_since(&broken), Err(ObserveError::Record { .. })));
    assert_eq!(observer.offset(), Offset::new(3));
    let bytes = since(9, 2).encode();
    for cut in 0..bytes.len() {
        assert!(Since::decode(&bytes[..cut]).is_err());
    }
}
