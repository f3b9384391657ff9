//! Tests of what only a simulated network can show: partitions, silence, timeouts, resets.

use std::collections::BTreeSet;
use std::future::Future;

use engine::env::sim::{Random, Sim, Stream as RandomStream};
use engine::env::{Env, Queue};
use engine::time::Instant;
use futures_lite::future::{or, zip};

use super::*;
use crate::env::{Listener, Stream};

const SEEDS: u64 = 30;

/// Two running nodes, a listener on the second, and their network.
struct World {
    sim: Sim,
    net: SimNet,
    near: Node,
    far: Node,
    to: SocketAddr,
}

impl World {
    fn new(seed: u64) -> World {
        let sim = Sim::new(seed);
        let net = SimNet::of(sim.executor());
        let (near, far) = (sim.node(), sim.node());
        let to = SocketAddr::new(SimNet::address(&far), 9_092);
        near.env();
        World { sim, net, near, far, to }
    }

    /// A connection; the accepted side goes to `serve`, a task of the far node.
    fn connected<Fut: Future<Output = ()> + 'static>(
        &self,
        serve: impl FnOnce(SimEnv, SimStream) -> Fut + 'static,
    ) -> SimStream {
        let door = self.net.bind(&self.far, 9_092, 1).unwrap().remove(0);
        let env = self.far.env();
        self.far.env().spawn(Queue::Request, async move {
            let listener = env.listen(door).await.unwrap();
            let stream = listener.accept().await.unwrap();
            serve(env.clone(), stream).await;
            drop(listener);
            std::future::pending().await
        });
        self.near.run(self.near.env().connect(self.to)).unwrap().unwrap()
    }
}

async fn write(stream: &SimStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&[io::IoSlice::new(bytes)]).await
}

async fn read_to_end(stream: &SimStream) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 5_000]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn echo(_env: SimEnv, stream: SimStream) {
    let mut buffer = [0; 5_000];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if write(&stream, &buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn seconds(since: Instant, now: Instant) -> u64 {
    now.since(since).as_secs()
}

#[test]
fn reads_come_in_pieces_of_any_size() {
    let mut sizes = BTreeSet::new();
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let stream = world.connected(|_, stream| async move {
            write(&stream, &[1; 2_000]).await.unwrap();
        });
        world.near.run(async {
            let (mut left, mut buffer) = (2_000, [0; 3_000]);
            while left > 0 {
                let count = stream.read(&mut buffer).await.unwrap();
                sizes.insert(count);
                left -= count;
            }
        });
    }
    assert!(sizes.contains(&1) && sizes.contains(&2_000) && sizes.len() > 10, "{sizes:?}");
}

#[test]
fn a_partition_holds_everything_back_and_loses_nothing() {
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let stream = world.connected(echo);
        let start = world.sim.now();
        world.net.partition(&[&world.near], &[&world.far]);
        let (net, wake) = (world.net.clone(), world.sim.sleep(Duration::from_secs(20)));
        world.sim.spawn(async move {
            wake.await;
            net.heal();
        });
        let answer = world.near.run(async {
            write(&stream, b"hello").await.unwrap();
            stream.shutdown(std::net::Shutdown::Write);
            read_to_end(&stream).await.unwrap()
        });
        assert_eq!(answer.unwrap(), b"hello");
        let waited = seconds(start, world.sim.now());
        assert!((20..60).contains(&waited), "after {waited} s");
    }
}

#[test]
fn one_blocked_direction_stops_both_in_the_end() {
    // The peer hears everything; its answers, and that it has read, do not come back.
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let heard = Rc::new(Cell::new(0));
        let inside = heard.clone();
        let stream = world.connected(|_, stream| async move {
            let mut buffer = vec![0; 1 << 20];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                inside.set(inside.get() + count);
            }
        });
        world.net.block(&world.far, &world.near);
        let written = world.near.run(or(
            async { write(&stream, &[1; 4 << 20]).await.map(|()| true) },
            async {
                world.near.env().sleep_until(world.sim.now().after(Duration::from_secs(60))).await;
                Ok(false)
            },
        ));
        assert!(!written.unwrap().unwrap(), "no window is that large");
        assert!(heard.get() > 0);
    }
}

#[test]
fn a_link_that_stays_blocked_times_out() {
    let world = World::new(1);
    let stream = world.connected(echo);
    world.net.block(&world.near, &world.far);
    let start = world.sim.now();
    let error = world.near.run(async {
        write(&stream, b"hello").await.unwrap();
        let error = read_to_end(&stream).await.unwrap_err();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "it was told");
        assert_eq!(write(&stream, b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        error
    });
    assert_eq!(error.unwrap().kind(), io::ErrorKind::TimedOut);
    assert!((900..1_200).contains(&seconds(start, world.sim.now())));
}

#[test]
fn a_killed_process_ends_its_connections_and_a_dead_machine_does_not() {
    for seed in 0..SEEDS {
        for end in [End::Kill, End::PowerCut] {
            let world = World::new(seed);
            let stream = world.connected(|_, stream| async move {
                std::future::pending::<()>().await;
                drop(stream);
            });
            world.far.end(end);
            let read = world.near.run(or(async { Some(read_to_end(&stream).await) }, async {
                let late = world.sim.now().after(Duration::from_secs(3_600));
                world.near.env().sleep_until(late).await;
                None
            }));
            let read = read.unwrap();
            match end {
                End::Kill => assert_eq!(read.unwrap().unwrap(), b""),
                End::PowerCut => assert!(read.is_none(), "half open: nobody says anything"),
            }
        }
    }
}

#[test]
fn a_machine_that_runs_again_resets_the_connections_it_has_forgotten() {
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let stream = world.connected(echo);
        world.far.end(End::PowerCut);
        let (far, wake) = (world.far.clone(), world.sim.sleep(Duration::from_secs(10)));
        world.sim.spawn(async move {
            wake.await;
            far.env();
        });
        let start = world.sim.now();
        let error = world.near.run(async {
            write(&stream, b"are you there").await.unwrap();
            read_to_end(&stream).await.unwrap_err()
        });
        assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionReset);
        assert!((10..60).contains(&seconds(start, world.sim.now())));
    }
}

#[test]
fn connecting_is_refused_by_a_machine_and_unanswered_by_none() {
    let world = World::new(1);
    world.far.env();
    let connect = || world.near.run(world.near.env().connect(world.to)).unwrap().map(|_| ());
    assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "unknown to it");
    let start = world.sim.now();
    world.far.end(End::PowerCut);
    assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!((120..135).contains(&seconds(start, world.sim.now())));
    let door = world.net.bind(&world.far, 9_092, 2).unwrap();
    let again = world.net.bind(&world.far, 9_092, 1).map(|_| ()).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    world.far.env();
    connect().unwrap();
    drop(door);
    assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    world.net.bind(&world.far, 9_092, 1).unwrap();
}

#[test]
fn a_connection_that_nobody_waits_for_any_more_is_closed() {
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let door = world.net.bind(&world.far, 9_092, 1).unwrap().remove(0);
        let env = world.far.env();
        world.near.run(async {
            let near = world.near.env();
            let listener = env.listen(door).await.unwrap();
            let gave_up = or(async { near.connect(world.to).await.map(|_| ()) }, async {
                // About when the connection is accepted.
                near.sleep_until(near.now().after(Duration::from_micros(50 + seed * 20))).await;
                Ok(())
            });
            gave_up.await.unwrap();
            let accepted = or(async { Some(listener.accept().await.unwrap()) }, async {
                near.sleep_until(near.now().after(Duration::from_secs(5))).await;
                None
            });
            if let Some(stream) = accepted.await {
                assert_eq!(read_to_end(&stream).await.unwrap(), b"");
            }
        });
    }
}

#[test]
fn a_reset_breaks_both_sides_once() {
    let world = World::new(1);
    let stream = world.connected(|_, stream| async move {
        let error = read_to_end(&stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
    assert_eq!(world.net.reset(&world.near, &world.far), 1);
    assert_eq!(world.net.reset(&world.near, &world.far), 0);
    world.near.run(async {
        let error = write(&stream, b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
    world.sim.run_for(Duration::from_secs(1));
}

#[test]
fn doors_are_dealt_in_turn() {
    let world = World::new(1);
    let doors = world.net.bind(&world.far, 9_092, 3).unwrap();
    let env = world.far.env();
    world.near.run(async {
        let mut listeners = Vec::new();
        for door in doors {
            listeners.push(env.listen(door).await.unwrap());
        }
        let near = world.near.env();
        let mut streams = Vec::new();
        for _ in 0..9 {
            streams.push(near.connect(world.to).await.unwrap());
        }
        for listener in &listeners {
            for _ in 0..3 {
                let (accepted, ()) = zip(listener.accept(), async {}).await;
                assert_eq!(accepted.unwrap().peer().ip(), SimNet::address(&world.near));
            }
        }
    });
}

#[test]
fn a_slow_link_takes_its_time() {
    let world = World::new(1);
    let stream = world.connected(|_, stream| async move {
        write(&stream, &[1; 1 << 20]).await.unwrap();
    });
    world.net.set_rate(&world.far, &world.near, 1 << 18);
    let start = world.sim.now();
    let read = world.near.run(read_to_end(&stream)).unwrap().unwrap();
    assert_eq!(read.len(), 1 << 20);
    // What was on the way before is not slowed down: a whole window at most.
    assert!(seconds(start, world.sim.now()) <= 5);
    let far = world.far.env();
    let far_latency = Duration::from_millis(500);
    world.net.set_latency(&world.far, &world.near, far_latency, far_latency);
    let start = far.now();
    let door = world.net.bind(&world.far, 1, 1).unwrap();
    world.near.run(world.near.env().connect(door[0].local())).unwrap().unwrap();
    assert!(far.now().since(start) >= far_latency);
}

#[test]
fn the_network_repeats_with_its_seed() {
    let run = |seed| {
        let world = World::new(seed);
        let stream = world.connected(echo);
        let random = Random::new(seed, RandomStream::Workload, 0);
        let writes = async {
            for _ in 0..50 {
                let bytes = vec![1; random.between(1, 3_000) as usize];
                write(&stream, &bytes).await.unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write);
        };
        // Both at once: an echo that nobody reads stops its reader.
        world.near.run(zip(writes, async { read_to_end(&stream).await.unwrap() }));
        (world.sim.trace_hash(), world.sim.now())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
