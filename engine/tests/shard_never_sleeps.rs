//! A shard under an endless hog on a contended core goes on: its timers fire, its disk answers,
//! other threads can wake its tasks, for as long as it runs.
//!
//! This is the trap described in `engine::env::uring`: the executor can park a thread whose tasks
//! are runnable. It runs 20 s, or as many as `SHARD_NEVER_SLEEPS_SECONDS` says.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use engine::env::uring::{ShardOptions, UringEnv, start_shards};
use engine::env::{Block, Env, File, Open, Persist, Queue};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// No part of the shard may stand still longer than this. What contention costs is far below; the
/// trap is for ever.
const STOP_MAX: Duration = Duration::from_secs(1);

/// Each worker's rounds, read by the test's thread.
#[derive(Default)]
struct Rounds {
    hog: AtomicU64,
    timer: AtomicU64,
    disk: AtomicU64,
    woken: AtomicU64,
    end: AtomicBool,
}

impl Rounds {
    fn all(&self) -> [(&'static str, u64); 4] {
        let load = |rounds: &AtomicU64| rounds.load(Ordering::Relaxed);
        [
            ("hog", load(&self.hog)),
            ("timer", load(&self.timer)),
            ("disk", load(&self.disk)),
            ("woken", load(&self.woken)),
        ]
    }
    fn ended(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}

/// Always ready: works for 20 µs at a time and offers a turn after each.
async fn hog(env: UringEnv, rounds: Arc<Rounds>) {
    while !rounds.ended() {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
        rounds.hog.fetch_add(1, Ordering::Relaxed);
        env.turn().await;
    }
}

/// Wakes up every millisecond; returns the latest that it ever was.
async fn timer(env: UringEnv, rounds: Arc<Rounds>) -> Duration {
    let mut late_max = Duration::ZERO;
    while !rounds.ended() {
        let due = env.now().after(Duration::from_millis(1));
        env.sleep_until(due).await;
        late_max = late_max.max(env.now().since(due));
        rounds.timer.fetch_add(1, Ordering::Relaxed);
    }
    late_max
}

/// Writes and reads one block, over and over.
async fn disk(env: UringEnv, rounds: Arc<Rounds>, dir: PathBuf) {
    let file = env.open(&dir.join("echo"), Open::Create).await.unwrap();
    while !rounds.ended() {
        let round = rounds.disk.load(Ordering::Relaxed);
        let mut block = env.block(4_096);
        block.bytes_mut().fill(round as u8);
        file.write_at(Rc::new(block), 0, Persist::Written).await.unwrap();
        assert_eq!(file.read_at(17, 1).await.unwrap()[0], round as u8);
        rounds.disk.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for another thread, over and over.
async fn woken(rounds: Arc<Rounds>, wakers: mpsc::Sender<(Waker, Arc<AtomicBool>)>) {
    while !rounds.ended() {
        let flag = Arc::new(AtomicBool::new(false));
        let mut sent = false;
        std::future::poll_fn(|cx| {
            if flag.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut sent, true) {
                wakers.send((cx.waker().clone(), flag.clone())).unwrap();
            }
            Poll::Pending
        })
        .await;
        rounds.woken.fetch_add(1, Ordering::Relaxed);
    }
}

/// Binds the calling thread to the processor that shard 0 is pinned to.
fn join_the_shard() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

#[test]
fn a_shard_with_work_never_sleeps() {
    let seconds = std::env::var("SHARD_NEVER_SLEEPS_SECONDS");
    let seconds = seconds.map_or(20, |seconds| seconds.parse().expect("a number of seconds"));
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let dir = tempfile::tempdir_in(beside).unwrap();
    let rounds = Arc::new(Rounds::default());

    let contention: Vec<_> = (0..2)
        .map(|_| {
            let rounds = rounds.clone();
            std::thread::spawn(move || {
                join_the_shard();
                while !rounds.ended() {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (wakers, to_wake) = mpsc::channel::<(Waker, Arc<AtomicBool>)>();
    let waking = std::thread::spawn(move || {
        for (i, (waker, flag)) in to_wake.into_iter().enumerate() {
            if i % 3 == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
            flag.store(true, Ordering::Release);
            waker.wake();
        }
    });

    let options = ShardOptions { pin: true, abort_on_panic: false, ..ShardOptions::default() };
    let (shared, path) = (rounds.clone(), dir.path().to_owned());
    let shards = start_shards(&options, vec![wakers], move |env, wakers| {
        let (rounds, path) = (shared.clone(), path.clone());
        async move {
            env.spawn(Queue::Background, hog(env.clone(), rounds.clone()));
            env.spawn(Queue::Storage, disk(env.clone(), rounds.clone(), path));
            env.spawn(Queue::Request, woken(rounds.clone(), wakers));
            timer(env, rounds).await
        }
    })
    .unwrap();

    let began = Instant::now();
    let mut moved = rounds.all().map(|(name, count)| (name, count, Instant::now()));
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(20));
        for (was, (_, count)) in moved.iter_mut().zip(rounds.all()) {
            longest = longest.max(was.2.elapsed());
            if count != was.1 {
                *was = (was.0, count, Instant::now());
            }
            let pulse = &shards.pulses()[0];
            assert!(
                was.2.elapsed() < STOP_MAX,
                "{} stands still at {count} with {} runnable tasks after {:?}: {:?}",
                was.0,
                pulse.runnable(),
                began.elapsed(),
                rounds.all(),
            );
        }
    }
    rounds.end.store(true, Ordering::Relaxed);
    let late_max = shards.join().remove(0).unwrap();
    contention.into_iter().for_each(|thread| thread.join().unwrap());
    drop(waking);
    println!("{:?}, longest stop {longest:?}, latest timer {late_max:?}", rounds.all());
}
