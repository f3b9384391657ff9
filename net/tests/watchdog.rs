//! The watchdog gets a shard out of the executor's trap, names a task that keeps its shard, and
//! leaves idle and busy shards alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use engine::env::{Env, Queue};
use net::env::uring::{ShardOptions, UringEnv, start_shards};
use net::watchdog::Watchdog;

fn options() -> ShardOptions {
    ShardOptions { abort_on_panic: false, ..ShardOptions::default() }
}

async fn pause(env: &UringEnv, millis: u64) {
    env.sleep_until(env.now().after(Duration::from_millis(millis))).await;
}

/// Ready again at once, once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[test]
fn a_shard_that_sleeps_with_work_is_woken_until_it_works() {
    // With so short a preempt timer a busy shard falls into the trap every few seconds at most,
    // and stays there.
    let options = ShardOptions { preempt_timer: Duration::from_micros(100), ..options() };
    let (rounds, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let end = end.clone();
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (rounds1, end1) = (rounds.clone(), end.clone());
    let shards = start_shards(&options, vec![()], move |_, ()| {
        let (rounds, end) = (rounds1.clone(), end1.clone());
        async move {
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                while began.elapsed() < Duration::from_micros(20) {}
                rounds.fetch_add(1, Ordering::Relaxed);
                Yield(false).await;
            }
        }
    })
    .unwrap();
    let watchdog = Watchdog::start(&shards).unwrap();
    let began = Instant::now();
    let (mut was, mut moved) = (0, Instant::now());
    // Three times, so that being woken once is not the end of it.
    while watchdog.counts().rescues() < 3 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
        let now = rounds.load(Ordering::Relaxed);
        if now != was {
            (was, moved) = (now, Instant::now());
        }
        assert!(
            moved.elapsed() < Duration::from_secs(3),
            "nobody woke it: {:?}",
            watchdog.counts()
        );
    }
    let seen = format!("{:?} after {:?}", watchdog.counts(), began.elapsed());
    end.store(true, Ordering::Relaxed);
    // Whether it ends may depend on being woken once more.
    while !shards.pulses()[0].ended() {
        std::thread::sleep(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(90), "{seen}");
    }
    println!("{seen}");
    assert!(watchdog.counts().rescues() >= 3, "the trap did not spring: {seen}");
    drop(watchdog);
    shards.join().into_iter().for_each(|shard| shard.unwrap());
    busy.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_task_that_keeps_its_shard_is_counted_once_and_not_interrupted() {
    let shards = start_shards(&options(), vec![()], |env, ()| async move {
        pause(&env, 50).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(700) {
            std::hint::spin_loop();
        }
        pause(&env, 250).await;
    })
    .unwrap();
    let watchdog = Watchdog::start(&shards).unwrap();
    let counts = watchdog.counts().clone();
    while !shards.pulses()[0].ended() {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(watchdog);
    assert_eq!((counts.stalls(), counts.interrupts()), (1, 0));
    shards.join().into_iter().for_each(|shard| shard.unwrap());
}

#[test]
fn idle_and_busy_shards_are_left_alone() {
    let shards = start_shards(&options(), vec![false, true], |env, busy| async move {
        let end = env.now().after(Duration::from_millis(800));
        while busy && env.now() < end {
            let turned = env.clone();
            env.spawn(Queue::Background, async move { turned.turn().await });
            env.turn().await;
        }
        env.sleep_until(end).await;
    })
    .unwrap();
    let watchdog = Watchdog::start(&shards).unwrap();
    while !shards.pulses().iter().all(|pulse| pulse.ended()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let counts = watchdog.counts().clone();
    drop(watchdog);
    assert_eq!(counts.interrupts(), 0);
    shards.join().into_iter().for_each(|shard| shard.unwrap());
}
