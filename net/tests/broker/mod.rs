//! A whole broker on a simulated machine, and clients of it on another one: for tests that speak
//! the protocol and want it decided by a seed.

use std::cell::Cell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::ClusterId;
use engine::env::sim::{End, Fault, Node, Sim, SimEnv};
use engine::env::{Env, Queue};
use net::config::{Inputs, Resolved, resolve};
use net::env::sim::SimNet;
use net::env::{LANE_LEN_MAX, NetEnv, Stream, mesh};
use net::mesh::Ends;
use net::node::run_shard;
use net::shard::Options;
use net::wire::{FRAME_LEN_BYTES, Message, Request, decode_response, encode_request};

/// Its port.
const PORT: u16 = 9092;

/// The broker's machine, the clients' machine, and the simulation that they are in.
pub struct Broker {
    machine: Node,
    clients: Node,
    shards: usize,
    settings: Vec<(&'static str, String)>,
    /// Whether shards may end by themselves.
    may_fail: Rc<Cell<bool>>,
    sim: Sim,
}

impl Broker {
    /// Starts one on an empty disk.
    pub fn start(seed: u64, shards: usize, settings: &[(&'static str, &str)]) -> Broker {
        let sim = Sim::new(seed);
        let (machine, clients) = (sim.node(), sim.node());
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let broker = Broker { machine, clients, shards, settings, may_fail: Rc::default(), sim };
        broker.begin();
        broker
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(SimNet::address(&self.machine), PORT)
    }

    fn configuration(&self) -> Resolved {
        let own = [("listeners", format!("PLAINTEXT://{}", self.address()))];
        let own = own.into_iter().chain([("log.dirs", "/data".to_owned())]);
        let flags = own.chain(self.settings.iter().cloned());
        let flags = flags.map(|(name, value)| ("--test", name, value)).collect();
        resolve(Inputs { flags, ..Inputs::default() }).expect("a good configuration")
    }

    /// One life of the broker's process.
    fn begin(&self) {
        let cluster = ClusterId::random([self.sim.executor().seed(), 1]);
        let options = Arc::new(Options::new(self.configuration(), cluster, self.shards));
        let net = SimNet::of(self.sim.executor());
        let doors = net.bind(&self.machine, PORT, self.shards).expect("the port is free");
        let calls = mesh::<SimEnv, _>(self.shards, LANE_LEN_MAX);
        let answers = mesh::<SimEnv, _>(self.shards, LANE_LEN_MAX);
        for (index, ((calls, answers), door)) in
            calls.into_iter().zip(answers).zip(doors).enumerate()
        {
            let env = self.machine.env();
            let (at, options) = ((index, self.shards), options.clone());
            let doors = vec![("PLAINTEXT".to_owned(), door)];
            let ends = Ends { calls, answers };
            let (spawning, may_fail) = (env.clone(), self.may_fail.clone());
            spawning.spawn(Queue::Request, async move {
                let stop = std::future::pending();
                let ended = run_shard(env, at, options, ends, doors, || {}, stop).await;
                assert!(may_fail.get(), "shard {index} ended: {ended:?}");
            });
        }
    }

    /// Ends the broker's process like this, and starts it again.
    pub fn restart(&self, end: End) {
        self.machine.end(end);
        self.begin();
    }

    /// The disk fails like this from now on. A shard that notices ends; the others are not told, as
    /// a process around them would do.
    pub fn fail_disk(&self, fault: Fault) {
        self.may_fail.set(true);
        self.machine.disk().fail(fault);
    }

    /// Runs a client until it has done what it came for.
    pub fn client<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        let client = Client { env: self.clients.env(), broker: self.address() };
        self.clients.run(work(client)).expect("clients are not killed")
    }
}

/// Somebody who connects to the broker.
#[derive(Clone)]
pub struct Client {
    env: SimEnv,
    broker: SocketAddr,
}

impl Client {
    /// A new connection, which another shard may accept than the one before.
    pub async fn connect(&self) -> Connection {
        // The broker may not listen yet.
        for _ in 0..1_000 {
            match self.env.connect(self.broker).await {
                Ok(stream) => return Connection(Rc::new(stream)),
                Err(_) => self.sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("no broker at {}", self.broker);
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        self.env.sleep_until(self.env.now().after(duration)).await;
    }
}

/// A connection to the broker.
#[derive(Clone)]
pub struct Connection(Rc<<SimEnv as NetEnv>::Stream>);

/// An answer, not yet decoded.
pub struct Answer {
    frame: Vec<u8>,
    version: i16,
}

impl Answer {
    /// What it says. It must be exactly that, in the version of the request.
    pub fn read<'f, M: Message<'f>>(&'f self) -> M {
        let (correlation_id, response) =
            decode_response(&self.frame, self.version).expect("an answer of this kind");
        assert_eq!(correlation_id, 7);
        response
    }
}

impl Connection {
    /// Asks and waits.
    pub async fn call<'a>(&self, request: &impl Request<'a>, version: i16) -> Answer {
        let frame = encode_request(request, version, 7, Some("test")).into_bytes();
        let frame = self.exchange(&frame).await.expect("the connection stays open");
        Answer { frame, version }
    }

    /// Sends a frame and reads one; `None` if the broker closes the connection instead.
    pub async fn exchange(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.0.write_all(&[IoSlice::new(frame)]).await.ok()?;
        let len = self.read(FRAME_LEN_BYTES).await?;
        let len = u32::from_be_bytes(len.try_into().expect("four bytes"));
        self.read(len as usize).await
    }

    async fn read(&self, len: usize) -> Option<Vec<u8>> {
        let (mut bytes, mut done) = (vec![0; len], 0);
        while done < len {
            match self.0.read(&mut bytes[done..]).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => done += count,
            }
        }
        Some(bytes)
    }
}
