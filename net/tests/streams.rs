//! What every implementation of streams, listeners and lanes must do, whatever it runs on: one
//! suite, generic over [`NetEnv`], and a list of tests for each implementation.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use engine::env::{Env, Queue};
use futures_lite::future::{or, poll_once, zip};
use net::env::{LaneReceive, LaneSend, Listener, NetEnv, Refused, Stream};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The byte that belongs at a position of a test's stream; long periods, so that any loss,
/// repetition or exchange shows.
fn byte_at(pos: usize) -> u8 {
    let mixed = (pos as u64 / 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 ^ pos as u8
}

fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte_at).collect()
}

/// A number below `below` from the environment's randomness.
fn below<E: Env>(env: &E, below: usize) -> usize {
    (env.random() % below as u64) as usize
}

async fn pause<E: Env>(env: &E, millis: u64) {
    env.sleep_until(env.now().after(Duration::from_millis(millis))).await;
}

/// Two ends of a new connection: who connected, who accepted.
async fn pair<E: NetEnv>(env: &E, listener: &E::Listener) -> (E::Stream, E::Stream) {
    let (near, far) = zip(env.connect(listener.local()), listener.accept()).await;
    (near.unwrap(), far.unwrap())
}

async fn write<S: Stream>(stream: &S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&[IoSlice::new(bytes)]).await
}

async fn read_exact<S: Stream>(stream: &S, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let got = stream.read(&mut bytes[done..]).await.unwrap();
        assert!(got > 0, "ended at {done} of {len}");
        done += got;
    }
    bytes
}

/// Reads to the end in buffers of random sizes and checks every byte.
async fn read_all<E: NetEnv>(env: &E, stream: &E::Stream) -> usize {
    let (mut pos, mut buffer) = (0, vec![0; 300 * KIB]);
    loop {
        let limit = 1 + below(env, buffer.len());
        let got = stream.read(&mut buffer[..limit]).await.unwrap();
        assert!(got <= limit);
        let wrong = (0..got).find(|i| buffer[*i] != byte_at(pos + i));
        assert_eq!(wrong, None, "wrong byte after {pos}");
        pos += got;
        if got == 0 {
            return pos;
        }
    }
}

/// Writes `len` bytes in calls of random sizes, cut into parts of random sizes, and ends.
async fn write_random<E: NetEnv>(env: &E, stream: &E::Stream, len: usize) {
    let mut pos = 0;
    while pos < len {
        let call = bytes(pos, (1 + below(env, 500 * KIB)).min(len - pos));
        let (mut parts, mut rest) = (Vec::new(), &call[..]);
        let part_max = [3, 200, 70 * KIB][below(env, 3)];
        while !rest.is_empty() && parts.len() < 3_000 {
            let (part, tail) = rest.split_at(below(env, part_max).min(rest.len()));
            parts.push(IoSlice::new(part));
            rest = tail;
        }
        stream.write_all(&parts).await.unwrap();
        pos += call.len() - rest.len();
    }
    stream.shutdown(Shutdown::Write);
}

/// Both directions at once, from four tasks, arrive byte for byte.
async fn full_duplex<E: NetEnv>(env: E, listener: E::Listener) {
    const LEN: usize = 12 * MIB;
    let (near, far) = pair(&env, &listener).await;
    let (near, far) = (Rc::new(near), Rc::new(far));
    let left = Rc::new(Cell::new(4));
    for stream in [near, far] {
        let (env1, stream1, left1) = (env.clone(), stream.clone(), left.clone());
        env.spawn(Queue::Request, async move {
            write_random(&env1, &stream1, LEN).await;
            left1.set(left1.get() - 1);
        });
        let (env1, left1) = (env.clone(), left.clone());
        env.spawn(Queue::Replication, async move {
            assert_eq!(read_all(&env1, &stream).await, LEN);
            left1.set(left1.get() - 1);
        });
    }
    while left.get() > 0 {
        pause(&env, 5).await;
    }
}

/// One call with thousands of parts, empty, tiny and large ones among them.
async fn gathered_writes<E: NetEnv>(env: E, listener: E::Listener) {
    let (near, far) = pair(&env, &listener).await;
    let sizes = [0, 1, 7, 0, 4_096, 61, 0, 100_000, 3, 2_000_000, 1];
    let all = bytes(0, sizes.iter().sum::<usize>() + 4_000);
    let (mut parts, mut rest) = (Vec::new(), &all[..]);
    for size in sizes.into_iter().chain([1; 4_000]) {
        let (part, tail) = rest.split_at(size);
        parts.push(IoSlice::new(part));
        rest = tail;
    }
    let writes = async {
        near.write_all(&[]).await.unwrap();
        near.write_all(&[IoSlice::new(&[]), IoSlice::new(&[])]).await.unwrap();
        near.write_all(&parts).await.unwrap();
        near.shutdown(Shutdown::Write);
    };
    let (_, read) = zip(writes, read_all(&env, &far)).await;
    assert_eq!(read, all.len());
}

/// The end of one direction arrives after its last byte and leaves the other direction open.
async fn half_close<E: NetEnv>(env: E, listener: E::Listener) {
    let (near, far) = pair(&env, &listener).await;
    write(&near, b"question").await.unwrap();
    near.shutdown(Shutdown::Write);
    assert_eq!(read_exact(&far, 8).await, b"question");
    assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 0, "and it stays so");
    write(&far, b"answer").await.unwrap();
    assert_eq!(read_exact(&near, 6).await, b"answer");
    assert!(write(&near, b"more").await.is_err(), "this direction was ended here");
    drop(far);
    assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 0);
}

/// Ending the reading direction releases the reader; dropping a stream releases its peer, and
/// what was written before arrives.
async fn endings_release_readers<E: NetEnv>(env: E, listener: E::Listener) {
    let (near, far) = pair(&env, &listener).await;
    let mut buffer = [0; 10];
    let (got, ()) = zip(near.read(&mut buffer), async {
        pause(&env, 5).await;
        near.shutdown(Shutdown::Both);
    })
    .await;
    assert_eq!(got.unwrap(), 0);
    drop((near, far));
    let (near, far) = pair(&env, &listener).await;
    let last = bytes(0, 100 * KIB);
    let (read, ()) = zip(read_all(&env, &near), async {
        write(&far, &last).await.unwrap();
        drop(far);
    })
    .await;
    assert_eq!(read, last.len());
}

/// A peer that vanishes with unread bytes is an error to the writer, soon and for good.
async fn reset<E: NetEnv>(env: E, listener: E::Listener) {
    let (near, far) = pair(&env, &listener).await;
    write(&near, &[1; 1_000]).await.unwrap();
    pause(&env, 20).await;
    drop(far);
    let ends = async {
        let error = loop {
            match write(&near, &[2; 1_000]).await {
                Ok(()) => pause(&env, 1).await,
                Err(error) => break error,
            }
        };
        let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        assert!(write(&near, b"x").await.is_err());
        // The reader sees the reset or the end, never bytes.
        assert!(matches!(near.read(&mut [0; 10]).await, Ok(0) | Err(_)));
        true
    };
    assert!(
        or(ends, async {
            pause(&env, 10_000).await;
            false
        })
        .await,
        "it must not hang"
    );
}

/// A write larger than what is on the way waits for its reader, and is then complete.
async fn back_pressure<E: NetEnv>(env: E, listener: E::Listener) {
    let (near, far) = pair(&env, &listener).await;
    let all = bytes(0, 40 * MIB);
    let mut writes = Box::pin(async {
        write(&near, &all).await.unwrap();
        near.shutdown(Shutdown::Write);
    });
    let waited = async {
        pause(&env, 100).await;
        true
    };
    assert!(
        or(
            async {
                (&mut writes).await;
                false
            },
            waited
        )
        .await,
        "40 MiB fit nowhere"
    );
    let (_, read) = zip(writes, read_all(&env, &far)).await;
    assert_eq!(read, all.len());
}

/// A read that is given up has taken nothing.
async fn dropped_reads<E: NetEnv>(env: E, listener: E::Listener) {
    const MESSAGES: usize = 4_000;
    let (near, far) = pair(&env, &listener).await;
    let writes = async {
        for i in 0..MESSAGES {
            write(&near, &bytes(i * 100, 100)).await.unwrap();
            if i % 2 == 0 {
                env.sleep_until(env.now().after(Duration::from_micros(50))).await;
            }
        }
        near.shutdown(Shutdown::Write);
    };
    let reads = async {
        let (mut pos, mut dropped) = (0, 0);
        loop {
            let mut buffer = [0; 150];
            let wait = Duration::from_micros(below(&env, 60) as u64);
            let soon = async {
                env.sleep_until(env.now().after(wait)).await;
                None
            };
            let given_up = match below(&env, 2) {
                // Polled once, and dropped if that did not do.
                0 => poll_once(far.read(&mut buffer)).await,
                // Dropped at any moment.
                _ => or(async { Some(far.read(&mut buffer).await) }, soon).await,
            };
            let Some(got) = given_up else {
                dropped += 1;
                if dropped % 8 == 0 {
                    pause(&env, 1).await;
                }
                continue;
            };
            let got = got.unwrap();
            assert_eq!(buffer[..got], bytes(pos, got));
            pos += got;
            if got == 0 {
                return (pos, dropped);
            }
        }
    };
    let (_, (read, dropped)) = zip(writes, reads).await;
    assert_eq!(read, MESSAGES * 100);
    assert!(dropped >= 500, "only {dropped} reads were dropped");
}

/// Connecting where nobody listens is an error; so is connecting once the door is closed.
async fn refused<E: NetEnv>(env: E, listener: E::Listener) {
    let to = listener.local();
    let (near, far) = pair(&env, &listener).await;
    drop(listener);
    // The ring may hold the port a moment longer than its descriptor.
    pause(&env, 50).await;
    assert_eq!(env.connect(to).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    write(&near, b"still here").await.unwrap();
    assert_eq!(read_exact(&far, 10).await, b"still here");
}

/// Many connections at once, each its own.
async fn many_connections<E: NetEnv>(env: E, listener: E::Listener) {
    const COUNT: usize = 100;
    let to: SocketAddr = listener.local();
    let done = Rc::new(Cell::new(0));
    for i in 0..COUNT {
        let (env1, done) = (env.clone(), done.clone());
        env.spawn(Queue::Request, async move {
            let stream = env1.connect(to).await.unwrap();
            assert_eq!(stream.peer(), to);
            write(&stream, &bytes(i, 5_000)).await.unwrap();
            assert_eq!(read_exact(&stream, 5_000).await, bytes(i, 5_000));
            done.set(done.get() + 1);
        });
    }
    for _ in 0..COUNT {
        let stream = listener.accept().await.unwrap();
        env.spawn(Queue::Replication, async move {
            let echo = read_exact(&stream, 5_000).await;
            write(&stream, &echo).await.unwrap();
        });
    }
    while done.get() < COUNT {
        pause(&env, 5).await;
    }
}

/// Values come out in the order in which they went in, from several senders of one shard, with
/// the lane full most of the time; and the end comes last.
async fn lanes_in_order<E: NetEnv>(env: E, _: E::Listener) {
    const EACH: u64 = 20_000;
    let (tx, rx) = E::lane::<(u64, u64)>(1_024);
    let tx = Rc::new(tx);
    for sender in 0..3 {
        let tx = tx.clone();
        env.spawn(Queue::Request, async move {
            for i in 0..EACH {
                match tx.try_send((sender, i)) {
                    Ok(()) => {}
                    Err(Refused::Full(value)) => tx.send(value).await.unwrap(),
                    Err(Refused::Closed(_)) => panic!("it is open"),
                }
            }
        });
    }
    drop(tx);
    let (mut next, mut values) = ([0; 3], Vec::new());
    while rx.recv_many(&mut values, 100).await > 0 {
        assert!(values.len() <= 100);
        for (sender, i) in values.drain(..) {
            assert_eq!(i, next[sender as usize]);
            next[sender as usize] += 1;
        }
    }
    assert_eq!(next, [EACH; 3]);
}

/// The tests of one implementation; `$run` gives each test a fresh environment and listener.
macro_rules! suite {
    ($run:path: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            $run(|env, listener| super::$test(env, listener));
        }
    )*};
}

mod sim {
    use engine::env::sim::{Sim, SimEnv};
    use net::env::sim::{SimListener, SimNet};

    use super::*;

    /// Seeds that every test sees.
    const SEEDS: u64 = 5;

    fn on_a_node<Fut: Future<Output = ()>>(test: impl Fn(SimEnv, SimListener) -> Fut) {
        for seed in 0..SEEDS {
            let sim = Sim::new(seed);
            let node = sim.node();
            let door = SimNet::of(sim.executor()).bind(&node, 0, 1).unwrap().remove(0);
            let env = node.env();
            node.run(async {
                let listener = env.listen(door).await.unwrap();
                test(env.clone(), listener).await;
            })
            .expect("nobody ends the node");
        }
    }

    suite! { on_a_node:
        full_duplex gathered_writes half_close endings_release_readers reset back_pressure
        dropped_reads refused many_connections lanes_in_order
    }
}

mod uring {
    use engine::wait::Gate;
    use net::env::uring::{ShardOptions, UringEnv, UringListener, bind, run, start_shards};
    use net::env::{LaneEnds, mesh};

    use super::*;

    fn on_a_shard<Fut: Future<Output = ()>>(test: impl Fn(UringEnv, UringListener) -> Fut) {
        let door = bind(([127, 0, 0, 1], 0).into(), 1).unwrap().remove(0);
        run(|env| async move {
            let listener = env.listen(door).await.unwrap();
            test(env, listener).await;
        })
        .unwrap();
    }

    suite! { on_a_shard:
        full_duplex gathered_writes half_close endings_release_readers reset back_pressure
        dropped_reads refused many_connections lanes_in_order
    }

    /// For several shards, where a panic should fail the test and not the process.
    fn options() -> ShardOptions {
        ShardOptions { abort_on_panic: false, ..ShardOptions::default() }
    }

    #[test]
    fn connections_are_dealt_evenly_over_the_shards() {
        let doors = bind(([127, 0, 0, 1], 0).into(), 3).unwrap();
        let to = doors[0].local();
        let shards = start_shards(&options(), doors, |env, door| async move {
            let shard = env.shard();
            let listener = env.listen(door).await.unwrap();
            let mut streams = Vec::new();
            for _ in 0..3 {
                let stream = listener.accept().await.unwrap();
                write(&stream, &[shard as u8]).await.unwrap();
                streams.push(stream);
            }
            // The peer goes first, so that nothing is reset.
            assert_eq!(streams[2].read(&mut [0]).await.unwrap(), 0);
        })
        .unwrap();
        let mut clients: Vec<_> =
            (0..9).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
        let mut per_shard = [0; 3];
        for client in &mut clients {
            let mut shard = [9];
            io::Read::read_exact(client, &mut shard).unwrap();
            per_shard[shard[0] as usize] += 1;
        }
        assert_eq!(per_shard, [3; 3]);
        drop(clients);
        shards.join().into_iter().for_each(|shard| shard.unwrap());
    }

    #[test]
    fn a_port_is_refused_to_a_second_owner() {
        let door = bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
        let second = bind(door[0].local(), 1).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_mesh_carries_everything_between_all_shards_in_order() {
        const SHARDS: usize = 3;
        const EACH: u64 = 30_000;
        type Ends = LaneEnds<UringEnv, (usize, u64)>;
        let ends: Vec<Ends> = mesh(SHARDS, 64);
        let shards = start_shards(&options(), ends, |env, ends| async move {
            let sending = Gate::default();
            for tx in ends.to.into_iter().flatten() {
                let (shard, pass) = (env.shard(), sending.enter().unwrap());
                env.spawn(Queue::Request, async move {
                    for i in 0..EACH {
                        tx.send((shard, i)).await.unwrap();
                    }
                    drop((tx, pass));
                });
            }
            for (peer, rx) in ends.from.into_iter().enumerate() {
                assert_eq!(rx.is_none(), peer == env.shard());
                let Some(rx) = rx else { continue };
                for i in 0..EACH {
                    assert_eq!(rx.recv().await, Some((peer, i)));
                }
                assert_eq!(rx.recv().await, None);
            }
            sending.close().await;
        })
        .unwrap();
        shards.join().into_iter().for_each(|shard| shard.unwrap());
    }
}
